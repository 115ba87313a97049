//! The compile child: reads a component from standard input, writes its
//! artifact's code to standard output and a [`Report`] to standard error.
//!
//! It limits itself before it reads a byte: no network, no files but the three
//! it was given, no other programs, bounded memory and CPU time, low priority.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit};
use wasmparser::{Validator, WasmFeatures};
use wasmtime::component::Component;
use wasmtime::{CacheStore, Engine, Module};

use super::classify::{self, Form, NotAGuest};
use super::compile::{Compiled, Report};
use super::compile_cache::CompileCache;
use super::loader::Guest;
use super::{Track, instances, linker, merge, pool, resident};
use crate::model::function::GuestKind;
use crate::sandbox;

/// Largest artifact, in bytes.
const ARTIFACT_BYTES_MAX: u64 = 1 << 30;
/// Larger uploads are refused before they get here; this is the last resort.
const COMPONENT_BYTES_MAX: u64 = 1 << 30;

/// What `main` becomes when its first argument is
/// [`super::compile::CHILD_COMMAND`]. The further arguments are the memory in
/// bytes, the CPU time in seconds, the folder of the compile cache, the number of
/// threads, and the digest of what is compiled.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    let (Some(memory_bytes), Some(cpu_seconds), Some(cache), Some(digest)) =
        (number(0), number(1), arguments.get(2), arguments.get(4))
    else {
        eprintln!("usage: for the host's own use");
        return ExitCode::from(2);
    };
    let help = Help {
        // Without a cache a compile is only slower.
        cache: CompileCache::open(Path::new(cache)).ok().map(Arc::new),
        parallel: number(3).is_some_and(|threads| threads > 1),
        touch: resident::export_name(digest),
    };
    if let Err(error) = confine(memory_bytes, cpu_seconds) {
        eprintln!("the compile child can not be confined: {error}");
        return ExitCode::FAILURE;
    }
    match run(&help) {
        Ok(report) => match serde_json::to_string(&report) {
            Ok(line) => {
                eprintln!("{line}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

/// What a compile needs besides the upload.
struct Help {
    cache: Option<Arc<CompileCache>>,
    /// Whether it may use more than one thread.
    parallel: bool,
    /// What the host's own function is called, if there is to be one.
    touch: String,
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

fn run(help: &Help) -> wasmtime::Result<Report> {
    let mut upload = Vec::new();
    io::stdin().lock().take(COMPONENT_BYTES_MAX).read_to_end(&mut upload)?;
    Ok(match compile(upload, help) {
        Ok((compiled, code)) => {
            let mut output = io::stdout().lock();
            output.write_all(&code)?;
            output.flush()?;
            Report::Compiled(compiled)
        }
        Err(Refused::NotAGuest(NotAGuest::Unsupported(found))) => Report::Unsupported { found },
        Err(Refused::NotAGuest(NotAGuest::Invalid(why))) => Report::Invalid { why },
        Err(Refused::NotAGuest(NotAGuest::NoHandler(exports))) => Report::NoHandler { exports },
        Err(Refused::MissingImports(imports)) => Report::MissingImports { imports },
        Err(Refused::Engine(error)) => return Err(error),
    })
}

enum Refused {
    NotAGuest(NotAGuest),
    MissingImports(Vec<String>),
    Engine(wasmtime::Error),
}

impl From<NotAGuest> for Refused {
    fn from(reason: NotAGuest) -> Self {
        Self::NotAGuest(reason)
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Refused {
    Refused::NotAGuest(NotAGuest::Invalid(format!("{error:#}")))
}

fn compile(upload: Vec<u8>, help: &Help) -> Result<(Compiled, Vec<u8>), Refused> {
    let component = match classify::form(&upload)? {
        Form::Component => upload,
        Form::CoreHttp => wrap(&upload)?,
        Form::CoreCommand => return compile_command(&upload, help),
    };
    let kind = classify::kind(&component)?;
    let track = Track::of(kind);
    if track == Track::Concurrent {
        check_instances(&component)?;
    }
    let engine = engine(track, help)?;
    let compiled =
        compile_component(&engine, &component, &help.touch).map_err(|error| invalid(&error))?;
    let imports = check_imports(&engine, kind, &compiled)?;
    let code = compiled.serialize().map_err(Refused::Engine)?;
    save(help);
    Ok((Compiled { kind, imports }, code))
}

/// Compiles a component, its core modules made one where that can be done. What is
/// not valid is refused before: the parts of it that were left out no longer show.
fn compile_component(
    engine: &Engine,
    component: &[u8],
    touch: &str,
) -> wasmtime::Result<Component> {
    let is_valid = || {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        validator.validate_all(component).is_ok()
    };
    if is_valid()
        && let Ok(merged) = merge::merge(component, touch)
        && let Ok(compiled) = Component::from_binary(engine, &merged)
    {
        return Ok(compiled);
    }
    Component::from_binary(engine, component)
}

/// Refuses what could take more stacks than there are for one guest.
fn check_instances(component: &[u8]) -> Result<(), Refused> {
    let most = pool::INSTANCES_WITH_CODE_MAX;
    match instances::with_code(component).map_err(|error| invalid(&error))? {
        Some(count) if count <= most.into() => Ok(()),
        Some(count) => Err(invalid(&format!(
            "it is made of {count} instances with code; {most} are the most in WASI 0.3"
        ))),
        None => Err(invalid(&"it instantiates components that are given to it")),
    }
}

/// A core command runs as it is: see [`linker::module_linker`].
fn compile_command(module: &[u8], help: &Help) -> Result<(Compiled, Vec<u8>), Refused> {
    let engine = engine(Track::Sequential, help)?;
    let compiled = Module::from_binary(&engine, module).map_err(|error| invalid(&error))?;
    let linker = linker::module_linker(&engine).map_err(Refused::Engine)?;
    if let Err(error) = linker.instantiate_pre(&compiled) {
        let missing: Vec<String> = compiled
            .imports()
            .filter(|import| !import.module().starts_with("wasi_"))
            .map(|import| format!("{}.{}", import.module(), import.name()))
            .collect();
        // Where every name is known, one of them has another type here.
        let unknown = if missing.is_empty() { vec![format!("{error:#}")] } else { missing };
        return Err(Refused::MissingImports(unknown));
    }
    let start = compiled.get_export("_start");
    let start = start.as_ref().and_then(|export| export.func());
    if !start.is_some_and(|start| start.params().len() == 0 && start.results().len() == 0) {
        return Err(invalid(&"its _start is not a function without parameters and results"));
    }
    let code = compiled.serialize().map_err(Refused::Engine)?;
    save(help);
    let modules: BTreeSet<String> =
        compiled.imports().map(|import| import.module().to_owned()).collect();
    Ok((Compiled { kind: GuestKind::Cgi01, imports: modules.into_iter().collect() }, code))
}

fn engine(track: Track, help: &Help) -> Result<Engine, Refused> {
    let mut config = pool::compiler_config(track).map_err(Refused::Engine)?;
    config.parallel_compilation(help.parallel);
    if let Some(cache) = &help.cache {
        let cache = Arc::clone(cache) as Arc<dyn CacheStore>;
        config.enable_incremental_compilation(cache).map_err(Refused::Engine)?;
    }
    Engine::new(&config).map_err(Refused::Engine)
}

fn save(help: &Help) {
    if let Some(cache) = &help.cache {
        // If it fails, the next compile is slower: nothing else.
        let _ = cache.save();
    }
}

fn wrap(module: &[u8]) -> Result<Vec<u8>, Refused> {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as NAME, WASI_SNAPSHOT_PREVIEW1_PROXY_ADAPTER as PROXY,
    };
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(NAME, PROXY))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| wrap_refused(module, &format!("{error:#}")))
}

/// A core module can only import WASI preview 1; everything else it imports is
/// named, because the encoder names only the first.
fn wrap_refused(module: &[u8], why: &str) -> Refused {
    let mut foreign = BTreeMap::new();
    for payload in wasmparser::Parser::new(0).parse_all(module).flatten() {
        if let wasmparser::Payload::ImportSection(section) = payload {
            for import in section.into_imports().flatten() {
                if !import.module.starts_with("wasi_") {
                    foreign.insert(format!("{}.{}", import.module, import.name), ());
                }
            }
        }
    }
    if foreign.is_empty() {
        Refused::NotAGuest(NotAGuest::Invalid(why.to_owned()))
    } else {
        Refused::MissingImports(foreign.into_keys().collect())
    }
}

/// Links the component as the loader will, so that what can not be linked is
/// refused now and not when it is called.
fn check_imports(
    engine: &Engine,
    kind: GuestKind,
    component: &Component,
) -> Result<Vec<String>, Refused> {
    let track = Track::of(kind);
    let linker = linker::linker(engine, track).map_err(Refused::Engine)?;
    let component_type = component.component_type();
    let imports: Vec<String> =
        component_type.imports(engine).map(|(name, _)| name.to_owned()).collect();
    match linker.instantiate_pre(component) {
        Ok(pre) => match Guest::of_component(kind, pre) {
            Ok(_) => Ok(imports),
            // It exports the name, but not what belongs under it.
            Err(error) => Err(invalid(&error)),
        },
        Err(error) => {
            let missing: Vec<String> =
                imports.into_iter().filter(|name| !linker::offers(track, name)).collect();
            if missing.is_empty() {
                // The name is known, but not in this version or with this type.
                return Err(Refused::MissingImports(vec![format!("{error:#}")]));
            }
            Err(Refused::MissingImports(missing))
        }
    }
}

/// Gives up every right that compiling does not need.
fn confine(memory_bytes: u64, cpu_seconds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let limit = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let cpu = Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds + 1) };
    rustix::process::setrlimit(Resource::As, limit(memory_bytes))?;
    rustix::process::setrlimit(Resource::Cpu, cpu)?;
    rustix::process::setrlimit(Resource::Core, limit(0))?;
    rustix::process::setrlimit(Resource::Fsize, limit(ARTIFACT_BYTES_MAX))?;
    rustix::process::nice(10)?;
    sandbox::confine_compiler()?;
    Ok(())
}
