use wasmtime::component::{Component, Linker, WasmList};
use wasmtime::{Engine, Store, StoreContextMut};

use super::super::{Track, pool};
use super::NotMerged;

fn merge(component: &[u8]) -> Result<Vec<u8>, NotMerged> {
    super::merge(component, "touch")
}

/// What a component's `run` returns, or its trap, and what it has logged until then.
fn run(component: &[u8]) -> (Result<u32, String>, Vec<String>) {
    let mut config = pool::compiler_config(Track::Sequential).unwrap();
    config.epoch_interruption(false);
    let engine = Engine::new(&config).unwrap();
    let component = Component::from_binary(&engine, component).unwrap();
    let mut linker = Linker::<Vec<String>>::new(&engine);
    let mut root = linker.root();
    root.func_wrap("log", |mut store: StoreContextMut<'_, Vec<String>>, (text,): (String,)| {
        store.data_mut().push(text);
        Ok(())
    })
    .unwrap();
    root.func_wrap("name", |_: StoreContextMut<'_, Vec<String>>, (): ()| {
        Ok(("a name from the host".to_owned(),))
    })
    .unwrap();
    let mut store = Store::new(&engine, Vec::new());
    let result = linker.instantiate(&mut store, &component).and_then(|instance| {
        let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run")?;
        run.call(&mut store, ())
    });
    let result = result.map(|(number,)| number);
    (result.map_err(|error| error.root_cause().to_string()), store.into_data())
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// How many core modules, and how many instances of such, a component has.
fn parts(component: &[u8]) -> (usize, usize) {
    let (mut modules, mut instances) = (0, 0);
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            wasmparser::Payload::ModuleSection { .. } => modules += 1,
            wasmparser::Payload::InstanceSection(section) => {
                let made = |it: &wasmparser::Result<_>| {
                    matches!(it, Ok(wasmparser::Instance::Instantiate { .. }))
                };
                instances += section.into_iter().filter(made).count();
            }
            _ => {}
        }
    }
    (modules, instances)
}

/// Merges a component, and sees that it does the same. Returns what it does.
fn same(text: &str) -> (Result<u32, String>, Vec<String>) {
    let component = wat(text);
    let merged = merge(&component).unwrap();
    assert_eq!(parts(&merged), (2, 2));
    let (before, after) = (run(&component), run(&merged));
    assert_eq!(before, after);
    after
}

/// As `wit-component` has it: a shim, the main module, and what fills the shim's
/// table. `$main` is what the main module has besides its imports and exports.
fn with_shim(main: &str, run: &str) -> String {
    format!(
        r#"(component
  (import "log" (func $log (param "text" string)))
  (import "name" (func $name (result string)))
  (core module $shim
    (type $log (func (param i32 i32)))
    (type $name (func (param i32)))
    (table (export "$imports") 2 2 funcref)
    (func (export "0") (type $log) local.get 0 local.get 1 i32.const 0 call_indirect (type $log))
    (func (export "1") (type $name) local.get 0 i32.const 1 call_indirect (type $name)))
  (core module $main
    (import "host" "log" (func $log (param i32 i32)))
    (import "host" "name" (func $name (param i32)))
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 4096))
    (global $shift i32 (i32.const 8))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      global.get $free
      (global.set $free (i32.add (global.get $free) (local.get 3))))
    {main}
    (func (export "run") (result i32) {run}))
  (core module $fixup
    (import "" "0" (func (param i32 i32)))
    (import "" "1" (func (param i32)))
    (import "" "$imports" (table 2 2 funcref))
    (elem (i32.const 0) func 0 1))
  (core instance $shim (instantiate $shim))
  (alias core export $shim "0" (core func $log-later))
  (alias core export $shim "1" (core func $name-later))
  (core instance $host
    (export "log" (func $log-later))
    (export "name" (func $name-later)))
  (core instance $main (instantiate $main (with "host" (instance $host))))
  (alias core export $main "memory" (core memory $memory))
  (alias core export $main "cabi_realloc" (core func $realloc))
  (core func $log (canon lower (func $log) (memory $memory)))
  (core func $name (canon lower (func $name) (memory $memory) (realloc $realloc)))
  (alias core export $shim "$imports" (core table $table))
  (core instance $all
    (export "0" (func $log))
    (export "1" (func $name))
    (export "$imports" (table $table)))
  (core instance (instantiate $fixup (with "" (instance $all))))
  (alias core export $main "run" (core func $run))
  (func (export "run") (result u32) (canon lift (core func $run)))
)"#
    )
}

#[test]
fn a_shim_is_left_out() {
    let text = with_shim(
        r#"(data (i32.const 16) "some text")
           (table 4 funcref) (elem (i32.const 1) func $seven)
           (func $seven (result i32) i32.const 7)"#,
        r"(call $log (i32.const 16) (i32.const 9))
          (call $name (i32.const 32))
          (call $log (i32.load (i32.const 32)) (i32.load (i32.const 36)))
          (i32.add (i32.load (i32.const 32)) (call_indirect (result i32) (i32.const 1)))",
    );
    let (result, logged) = same(&text);
    assert_eq!(result, Ok(4096 + 7));
    assert_eq!(logged, ["some text", "a name from the host"]);
    // Neither its functions nor its table are there any more.
    assert_eq!(calls_and_tables(&text), (1, 1));
}

/// Its resources can end before anything was called that may allocate.
#[test]
fn what_destroys_a_resource_is_there_from_the_beginning() {
    let text = r#"(component
  (core module $shim
    (type $destroy (func (param i32)))
    (table (export "$imports") 1 1 funcref)
    (func (export "0") (type $destroy) local.get 0 i32.const 0 call_indirect (type $destroy)))
  (core module $main
    (import "host" "new" (func $new (param i32) (result i32)))
    (import "host" "drop" (func $drop (param i32)))
    (memory (export "memory") 1)
    (global $destroyed (mut i32) (i32.const 0))
    (func (export "destroy") (param i32) (global.set $destroyed (local.get 0)))
    (func (export "run") (result i32)
      (call $drop (call $new (i32.const 77))) (global.get $destroyed)))
  (core module $fixup
    (import "" "0" (func (param i32)))
    (import "" "$imports" (table 1 1 funcref))
    (elem (i32.const 0) func 0))
  (core instance $shim (instantiate $shim))
  (type $thing (resource (rep i32) (dtor (core func $shim "0"))))
  (core func $new (canon resource.new $thing))
  (core func $drop (canon resource.drop $thing))
  (core instance $host (export "new" (func $new)) (export "drop" (func $drop)))
  (core instance $main (instantiate $main (with "host" (instance $host))))
  (core instance $all
    (export "0" (func $main "destroy"))
    (export "$imports" (table $shim "$imports")))
  (core instance (instantiate $fixup (with "" (instance $all))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))"#;
    assert_eq!(same(text), (Ok(77), vec![]));
}

/// Calls through tables, and tables, once merged. The first module has one of each, for
/// the function that allocates.
fn calls_and_tables(text: &str) -> (usize, usize) {
    let outline = outline(&merge(&wat(text)).unwrap());
    (outline.matches("call_indirect").count(), outline.matches("(table").count())
}

/// A table of which place 2 is empty, and calls by each type that is in it.
const CALLED: &str = r#"
  (table $t 7 funcref)
  (elem (i32.const 0) func $one $two)
  (elem (i32.const 3) func $log $one $add $plain)
  (elem declare func $two)
  (global $noted (mut i32) (i32.const 0))
  (func $one (result i32) i32.const 1)
  (func $two (result i32) i32.const 2)
  (func $add (param i32 i32 i32 i32) (result i32)
    (i32.add (i32.add (local.get 0) (local.get 1)) (i32.add (local.get 2) (local.get 3))))
  (func $plain (global.set $noted (i32.const 1000)))
  (func $get (param $place i32) (result i32) (call_indirect (result i32) (local.get $place)))
  (func $go (param $place i32) (call_indirect (local.get $place)))
  (func $sum (param $place i32) (result i32)
    (call_indirect (param i32 i32 i32 i32) (result i32)
      (i32.const 1) (i32.const 20) (i32.const 300) (i32.const 4000) (local.get $place)))
  (func $last (param $place i32) (result i32)
    (return_call_indirect (result i32) (local.get $place)))
  (data (i32.const 16) "by the table")"#;

#[test]
fn calls_through_a_table_are_direct() {
    let text = with_shim(
        CALLED,
        r"(call_indirect (param i32 i32) (i32.const 16) (i32.const 12) (i32.const 3))
          (call $go (i32.const 6))
          (drop (ref.func $two))
          (i32.add
            (i32.add (call $get (i32.const 0)) (i32.mul (call $last (i32.const 4)) (i32.const 10)))
            (i32.add (i32.mul (call $get (i32.const 1)) (i32.const 100))
              (i32.add (call $sum (i32.const 5)) (global.get $noted))))",
    );
    let (result, logged) = same(&text);
    assert_eq!(result, Ok(1 + 10 + 200 + 4321 + 1000));
    assert_eq!(logged, ["by the table"]);
    assert_eq!(calls_and_tables(&text), (1, 1));
}

#[test]
fn a_call_that_goes_nowhere_traps_in_the_same_way() {
    for (call, expected) in [
        ("call $get (i32.const 2)", "uninitialized element"),
        ("call $get (i32.const 3)", "indirect call type mismatch"),
        ("call $get (i32.const 5)", "indirect call type mismatch"),
        ("call $get (i32.const 6)", "indirect call type mismatch"),
        ("call $get (i32.const 7)", "undefined element"),
        ("call $get (i32.const -1)", "undefined element"),
        ("call $last (i32.const 2)", "uninitialized element"),
        ("call $sum (i32.const 2)", "uninitialized element"),
        ("call $sum (i32.const 0)", "indirect call type mismatch"),
        ("call $sum (i32.const 100)", "undefined element"),
        ("call $go (i32.const 2)", "uninitialized element"),
        ("call $go (i32.const 0)", "indirect call type mismatch"),
        ("call $go (i32.const 7)", "undefined element"),
    ] {
        let drop = if call.contains("$go") { "" } else { "drop" };
        let (result, _) = same(&with_shim(CALLED, &format!("({call}) {drop} i32.const 0")));
        let error = result.expect_err(call);
        assert!(error.contains(expected), "{call}: {error}");
    }
}

#[test]
fn a_table_that_is_used_otherwise_stays() {
    for other in [
        "(table.set $t (i32.const 1) (ref.func $two))",
        "(drop (table.get $t (i32.const 1)))",
        "(drop (table.size $t))",
        "(drop (table.grow $t (ref.null func) (i32.const 1)))",
        "(table.fill $t (i32.const 0) (ref.func $two) (i32.const 1))",
        "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))",
        "(elem.drop 0)",
    ] {
        let text = with_shim(CALLED, &format!("{other} (call $get (i32.const 1))"));
        assert_eq!(same(&text).0, Ok(2), "{other}");
        assert!(calls_and_tables(&text).1 > 1, "{other}");
    }
    let other_form = |from: &str, to: &str| {
        let text = with_shim(&CALLED.replacen(from, to, 1), "(call $get (i32.const 1))");
        assert_eq!(same(&text).0, Ok(2), "{to}");
        assert!(calls_and_tables(&text).1 > 1, "{to}");
    };
    other_form("(table $t 7 funcref)", "(table $t 200000 funcref)");
    other_form("(table $t 7 funcref)", "(table $t 7 funcref) (table 1 funcref)");
    // More than a function can go on to: of one type, and of many arguments.
    let many = |functions: usize, parameters: usize| {
        let mut text = CALLED.replacen("(table $t 7 funcref)", "(table $t 5000 funcref)", 1);
        let parameters = "i32 ".repeat(parameters);
        let ty = format!("(type $wide (func (param {parameters})))");
        text.push_str(&ty);
        for number in 0..functions {
            text.push_str(&format!("(func $w{number} (type $wide))"));
        }
        let names: String = (0..functions).map(|number| format!(" $w{number}")).collect();
        text.push_str(&format!("(elem (table $t) (i32.const 7) func{names})"));
        let zeros = "(i32.const 0)".repeat(parameters.len() / 4);
        text.push_str(&format!("(func (call_indirect (type $wide) {zeros} (i32.const 0)))"));
        with_shim(&text, "(call $get (i32.const 1))")
    };
    for (functions, parameters, tables) in [(1024, 3, 1), (1025, 3, 2), (66, 990, 1), (67, 990, 2)]
    {
        let text = many(functions, parameters);
        assert_eq!(same(&text).0, Ok(2), "{functions} {parameters}");
        assert_eq!(calls_and_tables(&text).1, tables, "{functions} {parameters}");
    }
    other_form("func $one $two)", "funcref (ref.func $one) (ref.func $two))");
}

#[test]
fn segments_keep_their_indices() {
    let text = with_shim(
        r#"(data (i32.const 16) "at first")
           (data $later "text for later")
           (table $t 4 funcref)
           (elem (i32.const 0) func $one)
           (elem $later func $two)
           (func $one (result i32) i32.const 1)
           (func $two (result i32) i32.const 2)"#,
        r"(memory.init $later (i32.const 64) (i32.const 5) (i32.const 9))
          (call $log (i32.const 64) (i32.const 9))
          (table.init $t $later (i32.const 2) (i32.const 0) (i32.const 1))
          (data.drop $later)
          (call_indirect $t (result i32) (i32.const 2))",
    );
    assert_eq!(same(&text), (Ok(2), vec!["for later".to_owned()]));
    // What the memory began with is used up, as in any module.
    let used_up = with_shim(
        r#"(data $first (i32.const 16) "at first")"#,
        "(memory.init $first (i32.const 64) (i32.const 0) (i32.const 1)) i32.const 0",
    );
    let (result, _) = same(&used_up);
    assert!(result.unwrap_err().contains("out of bounds memory access"));
}

#[test]
fn what_is_made_twice_is_imported_once() {
    let text = |second: &str| {
        format!(
            r#"(component
  (import "clock" (instance $clock
    (export "now" (func (result u32))) (export "then" (func (result u32)))))
  (alias export $clock "now" (func $now))
  (core func $now (canon lower (func $now)))
  (alias export $clock "{second}" (func $again))
  (core func $again (canon lower (func $again)))
  (core instance $host (export "1" (func $now)) (export "2" (func $again)))
  (core module $a (memory (export "memory") 1))
  (core module $b (import "" "1" (func (result i32))) (import "" "2" (func (result i32)))
    (func (export "run") (result i32) (i32.add (call 0) (call 1))))
  (core module $c)
  (core instance (instantiate $a))
  (core instance $b (instantiate $b (with "" (instance $host))))
  (core instance (instantiate $c))
  (func (export "run") (result u32) (canon lift (core func $b "run"))))"#
        )
    };
    let imports = |second| {
        let outline = outline(&merge(&wat(&text(second))).unwrap());
        outline.matches("module: \"canonical\"").count()
    };
    assert_eq!((imports("now"), imports("then")), (1, 2));
}

#[test]
fn what_nothing_calls_is_left_out() {
    // Of what the table had, only what is of the called type.
    let main = r#"
  (table $t 2 funcref)
  (elem (i32.const 0) func $logs $names)
  (elem declare func $alone $referred)
  (func $logs (result i32) (call $log (i32.const 16) (i32.const 7)) i32.const 1)
  (func $names (call $name (i32.const 64)))
  (func $alone (drop (ref.func $alone)))
  (func $referred)
  (func $through (call_indirect (i32.const 1)))
  (data (i32.const 16) "is used")"#;
    let outlined = |run: &str| outline(&merge(&wat(&with_shim(main, run))).unwrap());
    let imports = |run| outlined(run).matches("module: \"canonical\"").count();
    let calls = "(call_indirect (result i32) (i32.const 0))";
    assert_eq!(same(&with_shim(main, calls)), (Ok(1), vec!["is used".to_owned()]));
    assert_eq!(imports(calls), 1);
    assert_eq!(imports("(call $through) i32.const 0"), 1);
    assert_eq!(imports("(drop (ref.func $referred)) i32.const 0"), 0);
    let both = "(call $through) (call_indirect (result i32) (i32.const 0))";
    assert_eq!(same(&with_shim(main, both)).0, Ok(1));
    assert_eq!(imports(both), 2);
    // What stands for the table is called by what else is left out.
    let bodies = |run| outlined(run).matches("(func").count();
    assert!(bodies("i32.const 0") < bodies(calls) && bodies(calls) < bodies(both));
}

#[test]
fn a_trap_is_the_same() {
    let (result, logged) = same(&with_shim(
        r#"(data (i32.const 16) "last words")"#,
        "(call $log (i32.const 16) (i32.const 10)) unreachable",
    ));
    assert!(result.unwrap_err().contains("unreachable"));
    assert_eq!(logged, ["last words"]);
}

/// As libraries are linked: they share a memory, a table and globals of which some
/// say where each begins.
const LINKED: &str = r#"(component
  (core module $main
    (memory (export "memory") 1)
    (table (export "table") 8 funcref)
    (global (export "stack") (mut i32) (i32.const 1000))
    (global (export "memory_base") i32 (i32.const 128))
    (global (export "table_base") i32 (i32.const 2)))
  (core module $library
    (import "env" "memory" (memory 1))
    (import "env" "table" (table 4 funcref))
    (import "env" "stack" (global $stack (mut i32)))
    (import "env" "memory_base" (global $memory_base i32))
    (import "env" "table_base" (global $table_base i32))
    (global $at i32 (i32.add (global.get $memory_base) (i32.const 4)))
    (global $kept (export "at") i32 (global.get $memory_base))
    (data (i32.add (global.get $memory_base) (i32.const 4)) "\2a\00\00\00")
    (elem (global.get $table_base) func $own $read)
    (func $own (result i32) i32.const 1)
    (func $read (result i32) (i32.load (global.get $at)))
    (func (export "read") (result i32) call $read)
    (func (export "push") (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))))
  (core module $program
    (import "env" "memory" (memory 1))
    (import "env" "table" (table 4 funcref))
    (import "env" "stack" (global $stack (mut i32)))
    (import "library" "read" (func $read (result i32)))
    (import "library" "push" (func $push))
    (import "library" "at" (global $at i32))
    (func (export "run") (result i32)
      call $push
      (i32.store (i32.const 132) (i32.add (i32.load (i32.const 132)) (global.get $at)))
      (i32.add (global.get $stack)
        (i32.add (call_indirect (result i32) (i32.const 3)) (call $read)))))
  (core instance $main (instantiate $main))
  (core instance $library (instantiate $library (with "env" (instance $main))))
  (core instance $program (instantiate $program
    (with "env" (instance $main)) (with "library" (instance $library))))
  (func (export "run") (result u32) (canon lift (core func $program "run"))))"#;

#[test]
fn libraries_become_one() {
    let (result, _) = same(LINKED);
    assert_eq!(result, Ok(1000 - 16 + 2 * (42 + 128)));
    // Elements that are known before are in the artifact: nothing is imported but
    // the memory.
    let text = outline(&merge(&wat(LINKED)).unwrap());
    assert_eq!(text.matches("(import ").count(), 1, "{text}");
}

#[test]
fn start_functions_run_in_their_order() {
    let text = |second: &str| {
        format!(
            r#"(component
  (core module $a (memory (export "memory") 1) (func $start (i32.store (i32.const 0) (i32.const 5))) (start $start))
  (core module $b (import "a" "memory" (memory 1)) {second}
    (func $start (i32.store (i32.const 0) (i32.mul (i32.load (i32.const 0)) (i32.const 3)))) (start $start))
  (core module $c (import "a" "memory" (memory 1))
    (func (export "run") (result i32) (i32.load (i32.const 0))))
  (core instance $a (instantiate $a))
  (core instance $b (instantiate $b (with "a" (instance $a))))
  (core instance $c (instantiate $c (with "a" (instance $a))))
  (func (export "run") (result u32) (canon lift (core func $c "run"))))"#
        )
    };
    assert_eq!(same(&text("")), (Ok(15), vec![]));
    // What the first leaves in memory is what the second's data is written over.
    assert_refused(&text(r#"(data (i32.const 0) "\01")"#), "a start function");
}

#[test]
fn a_component_inside_is_merged() {
    let outer = format!(
        "(component {} (instance $i (instantiate 0)) (export \"run\" (func $i \"run\")))",
        LINKED.replacen("(component", "(component $inner", 1)
    );
    let merged = merge(&wat(&outer)).unwrap();
    assert_eq!(parts(&merged), (2, 2));
    assert_eq!(run(&merged), run(&wat(&outer)));
}

fn assert_refused(text: &str, why: &str) {
    let refused = merge(&wat(text)).expect_err(text).to_string();
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn other_forms_stay_as_they_are() {
    assert!(matches!(merge(&wat("(component)")), Err(NotMerged::Nothing)));
    let linked = |from: &str, to: &str| {
        assert!(LINKED.contains(from), "{from}");
        LINKED.replacen(from, to, 1)
    };
    let second_memory = linked("(func $own (result i32)", "(memory 1) (func $own (result i32)");
    assert_refused(&second_memory, "more than one memory");
    let table = "(table (export \"table\") 8 funcref)";
    let tables = format!("{table} {}", "(table 1 funcref)".repeat(4));
    assert_refused(&linked(table, &tables), "more tables");
    let twice = linked(
        "(core instance $program",
        "(core instance (instantiate $library (with \"env\" (instance $main)))) (core instance $program",
    );
    assert_refused(&twice, "two instances");
    let entered = linked(
        "(core instance $program",
        "(core func $early (alias core export $library \"read\")) (func (result u32) (canon lift (core func $early))) (core instance $program",
    );
    assert_refused(&entered, "parts that run");
    let outer = linked(
        "(core instance $main",
        "(component (alias outer 1 0 (core module))) (core instance $main",
    );
    assert_refused(&outer, "a core module of an outer component");
}

#[test]
fn what_is_broken_does_no_harm() {
    let component = wat(&with_shim(CALLED, "(call $get (i32.const 0))"));
    for end in 0..component.len() {
        let _ = merge(&component[..end]);
    }
    for at in 0..component.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = component.clone();
            broken[at] = value;
            let _ = merge(&broken);
        }
    }
}

/// The imports, tables, functions and indirect calls of all core modules in a component.
fn outline(component: &[u8]) -> String {
    let mut text = String::new();
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            wasmparser::Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    text.push_str(&format!("(import {:?})\n", import.unwrap()));
                }
            }
            wasmparser::Payload::TableSection(section) => {
                for table in section {
                    text.push_str(&format!("(table {:?})\n", table.unwrap()));
                }
            }
            wasmparser::Payload::CodeSectionEntry(body) => {
                text.push_str("(func\n");
                for operator in body.get_operators_reader().unwrap() {
                    if let wasmparser::Operator::CallIndirect { .. } = operator.unwrap() {
                        text.push_str("call_indirect\n");
                    }
                }
            }
            _ => {}
        }
    }
    text
}

/// A component whose memory begins with so many pages of 64 KiB.
fn with_memory(pages: u32, export: &str) -> Vec<u8> {
    let main = r#"(func (export "unused"))"#;
    let text = with_shim(main, "(i32.load8_u (i32.const 70000))");
    let text = text.replace("\"memory\") 1)", &format!("\"memory\") {pages})"));
    let (text, _) = text.rsplit_once(')').unwrap();
    wat(&format!("{text} {export})"))
}

#[test]
fn a_large_memory_can_be_touched_and_found() {
    let merged = merge(&with_memory(64, "")).unwrap();
    let mut config = pool::compiler_config(Track::Sequential).unwrap();
    config.epoch_interruption(false);
    let engine = Engine::new(&config).unwrap();
    let component = Component::from_binary(&engine, &merged).unwrap();
    let mut linker = Linker::<()>::new(&engine);
    let mut root = linker.root();
    root.func_wrap("log", |_: StoreContextMut<'_, ()>, (_,): (String,)| Ok(())).unwrap();
    root.func_wrap("name", |_: StoreContextMut<'_, ()>, (): ()| Ok((String::new(),))).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let touch = instance.get_typed_func::<(u32, u32), (WasmList<u8>,)>(&mut store, "touch");
    let touch = touch.unwrap();
    let (memory,) = touch.call(&mut store, (0, 0)).unwrap();
    let before = memory.as_le_slice(&store).to_vec();
    assert_eq!(before.len(), 64 << 16);
    let (memory,) = touch.call(&mut store, (4096, 64 << 16)).unwrap();
    // But for what it writes of itself to the beginning it changes nothing.
    assert!(memory.as_le_slice(&store) == before, "the memory is another");
    assert!(touch.call(&mut store, (0, (64 << 16) + 4096)).is_err(), "it ends where memory does");
}

#[test]
fn only_a_large_memory_can_be_touched() {
    let names =
        |component: &[u8]| merge(component).unwrap().windows(5).any(|bytes| bytes == b"touch");
    assert!(names(&with_memory(64, "")));
    assert!(!names(&with_memory(63, "")));
    let taken = with_memory(64, r#"(export "touch" (func $log))"#);
    assert!(
        merge(&taken)
            .is_ok_and(|merged| { wasmparser::Validator::new().validate_all(&merged).is_err() }),
        "two of the same name: the component is compiled as it was uploaded"
    );
}
