//! Snapshots of JavaScript functions, made when they are built.
//!
//! A template is a component in which an interpreter with its adapter has been
//! started already. A build instantiates it, lets it evaluate the function's
//! bundle, and writes what is then in memory into a component of its own: the code
//! stays byte for byte the same, so that a host that has compiled one function
//! has nearly compiled all of them.
//!
//! What runs here is a developer's own code on the developer's own machine. It
//! still gets neither files nor network, and its time and memory are bounded.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use wasm_encoder::{ComponentSectionId, RawSection};
use wasmparser::{ComponentExternalKind, Parser, Payload};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, Instance, InstancePre, Lift, Linker, LinkerInstance, ResourceTable, ResourceType,
    WasmList,
};
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder, Strategy};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wizer::{ComponentContext, ComponentInstanceState, Wizer};

/// The template's export that evaluates a bundle. Functions do not have it.
const LOAD: &str = "load";
/// Longest that a bundle's top level may run or wait.
pub const TOP_LEVEL_TIME_MAX: Duration = Duration::from_secs(10);
/// Most memory of the interpreter while it evaluates, in bytes.
const MEMORY_BYTES_MAX: usize = 512 << 20;
/// Most that is passed between interpreter and host, in bytes: the bundle, and at
/// the end all of its memory.
const HOSTCALL_BYTES_MAX: usize = 1 << 30;
/// Wasm stack, in bytes: twice that of a request, since unoptimised code needs more.
const WASM_STACK_BYTES: usize = 1 << 20;
/// The whole stack, in bytes.
const STACK_BYTES: usize = 3 << 20;
/// Pause between two looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// Most that is kept of what the interpreter itself complains of, in bytes.
const COMPLAINT_BYTES_MAX: usize = 8 << 10;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The template is not one.
    #[error("the template can not be used: {why}")]
    Template {
        /// What is wrong with it.
        why: String,
    },
    /// The bundle's top level threw an exception, or has no handler.
    #[error("{what}")]
    Thrown {
        /// The exception, with its stack.
        what: String,
    },
    /// The bundle's top level went on for too long.
    #[error(
        "the top level of the module did not end within {} s; it runs once, when the function is \
         built: what waits or goes on for ever belongs into the handler",
        TOP_LEVEL_TIME_MAX.as_secs()
    )]
    Endless,
    /// The bundle's top level did what can not be done at a build.
    #[error("the top level of the module failed: {why}")]
    TopLevel {
        /// What happened.
        why: String,
    },
}

fn unusable(error: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::Template { why: format!("{error:#}") }
}

/// A component that can become functions: parsed, instrumented and compiled.
pub struct Template {
    key: blake3::Hash,
    sections: Vec<Section>,
    /// Of the component inside that has the memory.
    context: ComponentContext<'static>,
    start: InstancePre<BuildState>,
}

enum Section {
    Kept(RawSection<'static>),
    /// The component inside that has the memory.
    Interpreter,
}

/// The template that was used last: `whit dev` takes the same for all its builds,
/// and compiling it is most of what they would do.
static LAST: Mutex<Option<Arc<Template>>> = Mutex::new(None);

impl Template {
    /// Makes a template of a component's bytes, or takes the one that was made of
    /// the same bytes last.
    ///
    /// # Errors
    /// When they are no template.
    pub fn new(component: Vec<u8>) -> Result<Arc<Self>, SnapshotError> {
        let key = blake3::hash(&component);
        // Held while it is compiled: builds at the same time do it once.
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = last.as_ref().filter(|template| template.key == key) {
            return Ok(Arc::clone(template));
        }
        let template = Arc::new(Self::compile(key, component)?);
        *last = Some(Arc::clone(&template));
        Ok(template)
    }

    fn compile(key: blake3::Hash, component: Vec<u8>) -> Result<Self, SnapshotError> {
        // What is parsed points into it. A process sees one template, or as many as
        // its toolchain changes.
        let component: &'static [u8] = Vec::leak(component);
        let (sections, interpreter) = split(component)?;
        let (context, instrumented) =
            wizer().instrument_component(interpreter).map_err(unusable)?;
        let engine = Engine::new(&config()).map_err(unusable)?;
        let compiled = Component::from_binary(&engine, &instrumented).map_err(unusable)?;
        let start = linker(&engine, &compiled)
            .and_then(|linker| linker.instantiate_pre(&compiled))
            .map_err(unusable)?;
        Ok(Self { key, sections, context, start })
    }

    /// Evaluates a bundle, and returns the component that begins where this ends.
    /// Blocks.
    ///
    /// # Errors
    /// When the bundle's top level fails or does not end.
    pub fn evaluate(&self, bundle: &str) -> Result<Vec<u8>, SnapshotError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(unusable)?;
        let engine = self.start.engine();
        let (ended, end) = mpsc::channel::<()>();
        let interpreter = std::thread::scope(|scope| {
            // What computes without a pause gives way at each tick, so that the time
            // limit is seen.
            scope.spawn(move || {
                while end.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    engine.increment_epoch();
                }
            });
            let interpreter = runtime.block_on(self.snapshot(bundle));
            drop(ended);
            interpreter
        })?;
        let mut function = wasm_encoder::Component::new();
        for section in &self.sections {
            match section {
                Section::Kept(section) => function.section(section),
                Section::Interpreter => function.section(&RawSection {
                    id: ComponentSectionId::Component.into(),
                    data: &interpreter,
                }),
            };
        }
        Ok(function.finish())
    }

    /// The interpreter as it is when it has evaluated a bundle.
    async fn snapshot(&self, bundle: &str) -> Result<Vec<u8>, SnapshotError> {
        let complaint = MemoryOutputPipe::new(COMPLAINT_BYTES_MAX);
        let mut store = Store::new(self.start.engine(), BuildState::new(complaint.clone()));
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let failed = |error: wasmtime::Error| {
            let complaint = String::from_utf8_lossy(&complaint.contents()).trim().to_owned();
            let separator = if complaint.is_empty() { "" } else { "\n" };
            SnapshotError::TopLevel { why: format!("{error:#}{separator}{complaint}") }
        };
        let instance = self.start.instantiate_async(&mut store).await.map_err(unusable)?;
        let load = instance.get_typed_func::<(&str,), (Option<String>,)>(&mut store, LOAD);
        let call = load.map_err(unusable)?;
        let loaded = call.call_async(&mut store, (bundle,));
        match tokio::time::timeout(TOP_LEVEL_TIME_MAX, loaded).await {
            Err(_) => return Err(SnapshotError::Endless),
            Ok(Err(error)) => return Err(failed(error)),
            Ok(Ok((Some(what),))) => return Err(SnapshotError::Thrown { what }),
            Ok(Ok((None,))) => {}
        }
        let mut state = InterpreterState { store: &mut store, instance, failed: None };
        let interpreter = wizer().snapshot_component(&self.context, &mut state).await;
        match state.failed {
            Some(error) => Err(failed(error)),
            None => interpreter.map_err(failed),
        }
    }
}

fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    wizer.init_func(LOAD).keep_init_func(true);
    wizer
}

/// Takes a template apart: what functions keep of it, and the component inside
/// that has the memory. What is around that one stands in for the imports that
/// only its first snapshot needed.
fn split(template: &'static [u8]) -> Result<(Vec<Section>, &'static [u8]), SnapshotError> {
    let (mut sections, mut interpreter, mut loads, mut depth) = (Vec::new(), None, 0, 0);
    for payload in Parser::new(0).parse_all(template) {
        let payload = payload.map_err(unusable)?;
        let is_outermost = depth == 0;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if !is_outermost => depth -= 1,
            _ => {}
        }
        let Some((id, range)) = payload.as_section().filter(|_| is_outermost) else { continue };
        let data = template.get(range).unwrap_or_default();
        match payload {
            Payload::ComponentSection { .. } if interpreter.is_none() => {
                interpreter = Some(data);
                sections.push(Section::Interpreter);
            }
            Payload::ComponentExportSection(exports)
                if exports_load(exports.clone()).map_err(unusable)? =>
            {
                loads += 1;
            }
            _ => sections.push(Section::Kept(RawSection { id, data })),
        }
    }
    match interpreter {
        Some(interpreter) if loads == 1 => Ok((sections, interpreter)),
        _ => Err(unusable("it has another form")),
    }
}

/// Whether a section exports `load`, and nothing else that would be lost with it.
/// What is exported gets a new index: no function may follow it, and none does,
/// since a handler is an instance.
fn exports_load(exports: wasmparser::ComponentExportSectionReader<'_>) -> wasmparser::Result<bool> {
    let only = exports.count() == 1;
    for export in exports {
        let export = export?;
        if export.name.name == LOAD && export.kind == ComponentExternalKind::Func {
            return Ok(only);
        }
    }
    Ok(false)
}

/// Of an engine that runs a template once for each build, and nothing else ever.
fn config() -> Config {
    let mut config = Config::new();
    config
        // Guests never get it, but this code comes with the toolchain, and it runs
        // for a few milliseconds: a fifth of the time to compile is worth more.
        .strategy(Strategy::Winch)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        .native_unwind_info(false)
        // Functions inside of an interpreter tell a user nothing.
        .wasm_backtrace_max_frames(None)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .concurrency_support(true);
    config
}

/// WASI as far as there is any at a build; whatever else is imported fails when it
/// is called.
fn linker(engine: &Engine, component: &Component) -> wasmtime::Result<Linker<BuildState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    let component_type = component.component_type();
    for (name, import) in component_type.imports(engine) {
        let is_there = name.starts_with("wasi:") && !name.starts_with("wasi:http/");
        if !is_there && let ComponentItem::ComponentInstance(interface) = import.ty {
            let mut absent = linker.instance(name)?;
            for (item, export) in interface.exports(engine) {
                define_absent(&mut absent, name, item, &export.ty)?;
            }
        }
    }
    Ok(linker)
}

fn define_absent(
    interface: &mut LinkerInstance<'_, BuildState>,
    name: &str,
    item: &str,
    is: &ComponentItem,
) -> wasmtime::Result<()> {
    let why = format!("{name} {item} is for requests; at a build there is no host yet");
    let error = move || wasmtime::Error::msg(why.clone());
    match is {
        ComponentItem::ComponentFunc(function) if function.async_() => interface
            .func_new_concurrent(item, move |_, _, _, _| {
                let error = error();
                Box::pin(async move { Err(error) })
            }),
        ComponentItem::ComponentFunc(_) => interface.func_new(item, move |_, _, _, _| Err(error())),
        ComponentItem::Resource(_) => {
            interface.resource(item, ResourceType::host::<()>(), |_, _| Ok(()))
        }
        _ => Ok(()),
    }
}

/// What the store of a build holds.
struct BuildState {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl BuildState {
    fn new(stderr: MemoryOutputPipe) -> Self {
        let wasi = WasiCtx::builder().allow_tcp(false).allow_udp(false).stderr(stderr).build();
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build();
        Self { wasi, table: ResourceTable::new(), limits }
    }
}

impl WasiView for BuildState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// How the snapshot sees the interpreter: through functions that the
/// instrumentation has added.
struct InterpreterState<'a> {
    store: &'a mut Store<BuildState>,
    instance: Instance,
    /// What went wrong: the trait has no place for it.
    failed: Option<wasmtime::Error>,
}

impl InterpreterState<'_> {
    async fn call<R: Lift + Send + Sync + 'static>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> Option<R> {
        let called = self.try_call::<R>(interface, function).await;
        called.map_err(|error| self.failed = Some(error)).ok()
    }

    async fn try_call<R: Lift + Send + Sync + 'static>(
        &mut self,
        interface: &str,
        function: &str,
    ) -> wasmtime::Result<R> {
        let absent = || wasmtime::Error::msg(format!("there is no {interface} {function}"));
        let mut export = |parent: Option<&_>, name: &str| {
            self.instance.get_export(&mut *self.store, parent, name).map(|(_, export)| export)
        };
        let interface = export(None, interface).ok_or_else(absent)?;
        let function = export(Some(&interface), function).ok_or_else(absent)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, function)?;
        Ok(function.call_async(&mut *self.store, ()).await?.0)
    }
}

impl ComponentInstanceState for InterpreterState<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        interface: &str,
        function: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        match self.call::<WasmList<u8>>(interface, function).await {
            Some(list) => contents(list.as_le_slice(&*self.store)),
            None => contents(&[]),
        }
    }

    async fn call_func_ret_s32(&mut self, interface: &str, function: &str) -> i32 {
        self.call(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, interface: &str, function: &str) -> i64 {
        self.call(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, interface: &str, function: &str) -> u32 {
        self.call(interface, function).await.map_or(0, f32::to_bits)
    }

    async fn call_func_ret_f64(&mut self, interface: &str, function: &str) -> u64 {
        self.call(interface, function).await.map_or(0, f64::to_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the toolchain makes them: an interpreter, what stands in for an import of
    /// its own, and both put together. This interpreter complains of bundles that
    /// begin with `!`, traps at `?`, never ends at `@`, and keeps the first byte of
    /// all others for `first`.
    const TEMPLATE: &str = r#"(component
        (component $interpreter
            (import "wasi:http/absent@0.3.0" (instance (export "call" (func))))
            (core module $code
                (memory (export "memory") 1)
                (global $free (mut i32) (i32.const 1024))
                (data (i32.const 16) "no!")
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (global.get $free)
                    (global.set $free (i32.add (global.get $free) (local.get 3))))
                (func (export "load") (param $bundle i32) (param i32) (result i32)
                    (local $first i32)
                    (local.set $first (i32.load8_u (local.get $bundle)))
                    (if (i32.eq (local.get $first) (i32.const 33)) (then
                        (i32.store (i32.const 32) (i32.const 1))
                        (i32.store (i32.const 36) (i32.const 16))
                        (i32.store (i32.const 40) (i32.const 3))))
                    (if (i32.eq (local.get $first) (i32.const 63)) (then unreachable))
                    (if (i32.eq (local.get $first) (i32.const 64)) (then (loop (br 0))))
                    (i32.store8 (i32.const 8) (local.get $first))
                    (i32.const 32))
                (func (export "first") (result i32) (i32.load8_u (i32.const 8))))
            (core instance $run (instantiate $code))
            (func (export "load") (param "bundle" string) (result (option string))
                (canon lift (core func $run "load")
                    (memory (core memory $run "memory"))
                    (realloc (core func $run "realloc"))))
            (func (export "first") (result u32) (canon lift (core func $run "first"))))
        (component $stand-in
            (core module $code (func (export "call") unreachable))
            (core instance $run (instantiate $code))
            (func $call (canon lift (core func $run "call")))
            (instance $absent (export "call" (func $call)))
            (export "absent" (instance $absent)))
        (instance $stands-in (instantiate $stand-in))
        (instance $runs (instantiate $interpreter
            (with "wasi:http/absent@0.3.0" (instance $stands-in "absent"))))
        (export "first" (func $runs "first"))
        (export "load" (func $runs "load")))"#;

    fn template() -> Arc<Template> {
        Template::new(wat::parse_str(TEMPLATE).unwrap()).unwrap()
    }

    #[test]
    fn a_function_begins_where_its_top_level_ended() {
        let function = template().evaluate("abc").unwrap();
        let engine = Engine::default();
        let component = Component::new(&engine, function).unwrap();
        let component_type = component.component_type();
        let exports: Vec<&str> = component_type.exports(&engine).map(|(name, _)| name).collect();
        assert_eq!(exports, ["first"]);
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let first = instance.get_typed_func::<(), (u32,)>(&mut store, "first").unwrap();
        assert_eq!(first.call(&mut store, ()).unwrap(), (97,));
        // The template has not changed, and is not compiled again.
        assert!(template().evaluate("b").is_ok());
        assert!(Arc::ptr_eq(&template(), &template()));
    }

    #[test]
    fn what_the_top_level_does_wrong_is_told_apart() {
        let failed = |bundle| template().evaluate(bundle).unwrap_err();
        assert!(matches!(failed("!"), SnapshotError::Thrown { what } if what == "no!"));
        let trapped = failed("?");
        assert!(matches!(trapped, SnapshotError::TopLevel { .. }), "{trapped}");
        assert!(trapped.to_string().contains("unreachable"), "{trapped}");
        // One that never ends holds up no other, and ends.
        std::thread::scope(|scope| {
            let endless = scope.spawn(|| failed("@"));
            assert!(template().evaluate("abc").is_ok());
            assert!(matches!(endless.join().unwrap(), SnapshotError::Endless));
        });
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let two = TEMPLATE.replace(r#"(export "first" (func $runs "first"))"#, "");
        let without = TEMPLATE.replace(r#"(export "load" (func $runs "load"))"#, "");
        let parsed = |text: &str| wat::parse_str(text).unwrap();
        for (component, is_template) in [
            (parsed(&two), true),
            (parsed(&without), false),
            (parsed("(component)"), false),
            (parsed("(module)"), false),
            (b"nonsense".to_vec(), false),
            (parsed(TEMPLATE).split_off(20), false),
        ] {
            let template = Template::new(component);
            assert_eq!(template.is_ok(), is_template, "{:?}", template.err());
        }
    }
}
