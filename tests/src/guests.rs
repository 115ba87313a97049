//! The guests: those in `guests/`, built once, and those in `guests-wat/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use whit::dev::languages::{self, BuildRequest, Engine, Language, Toolchains};

use crate::Host;

/// A guest made with the crate `wasip2` alone: `wasi:http/incoming-handler@0.2`.
#[must_use]
pub fn http_02() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("wasip2-raw"))
}

/// A guest made with the crate `wasip3` alone: `wasi:http/handler@0.3`.
#[must_use]
pub fn http_03() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("wasip3-raw"))
}

/// A guest of the standard library alone: a wasip1 command, CGI.
#[must_use]
pub fn cgi() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("cgi-rust"))
}

/// A wasip1 command that answers which request it has seen: `x-proxy-id` comes back
/// as `x-witness`, the target in the body.
#[must_use]
pub fn witness() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("witness"))
}

/// A guest made with `wstd` and an axum router: `wasi:http/incoming-handler@0.2`.
#[must_use]
pub fn wstd_axum() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| built("wstd-axum"))
}

/// Every kind of guest that a test can ask the same routes: its name, the kind
/// that the host sees in it, and the component.
#[must_use]
pub fn all() -> [(&'static str, &'static str, &'static [u8]); 4] {
    [
        ("wasip2-raw", "http-0.2", http_02()),
        ("wasip3-raw", "http-0.3", http_03()),
        ("cgi-rust", "cgi-0.1", cgi()),
        ("wstd-axum", "http-0.2", wstd_axum()),
    ]
}

/// Deploys [`all`], each under its name.
///
/// # Panics
/// When the host does not take one.
#[track_caller]
pub fn deploy_all(host: &Host) {
    for (name, _, component) in all() {
        host.admin().deploy(name, component);
    }
}

/// A guest of `guests-wat/`, by its file's name.
///
/// # Panics
/// When there is no such file, or it is not WebAssembly text.
#[must_use]
pub fn wat(name: &str) -> Vec<u8> {
    let path = folder("guests-wat").join(format!("{name}.wat"));
    wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// A core module of `guests-wat/` with the type of a component in a custom
/// section, as toolchains leave it for others to wrap: the world
/// `wasi:http/proxy` of 0.2.
///
/// # Panics
/// When the module or the world is broken.
#[must_use]
pub fn typed_module(name: &str) -> Vec<u8> {
    typed(wat(name), "p2", "proxy")
}

/// As [`typed_module`], from text, and of a world of 0.2 (`p2`) or 0.3 (`p3`).
///
/// # Panics
/// When the module or the world is broken.
#[must_use]
pub fn typed_text(generation: &str, world: &str, text: &str) -> Vec<u8> {
    typed(wat_text(text), generation, world)
}

fn typed(mut module: Vec<u8>, generation: &str, world: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let worlds = repository().join("guest-sdk/wit").join(generation);
    let (package, _) = resolve.push_dir(&worlds).expect("the worlds");
    let world = resolve.select_world(&[package], Some(world)).expect("the world");
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding)
        .expect("a module");
    module
}

/// Text as WebAssembly.
///
/// # Panics
/// When it is not WebAssembly text.
#[must_use]
pub fn wat_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A command that answers with this text, whatever it is asked.
#[must_use]
pub fn answering(text: &str) -> Vec<u8> {
    printing(&format!("Content-Type: text/plain\\0a\\0a{text}"))
}

/// A command that prints this, in the escapes of WebAssembly text: `\0a`.
#[must_use]
pub fn printing(output: &str) -> Vec<u8> {
    writing(1, output)
}

/// A command that writes this to standard error, and then answers nothing.
#[must_use]
pub fn complaining(output: &str) -> Vec<u8> {
    writing(2, output)
}

fn writing(descriptor: u32, output: &str) -> Vec<u8> {
    let bytes = output.len() - 2 * output.matches('\\').count();
    wat_text(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00")
            (data (i32.const 16) "{output}")
            (func (export "_start")
                (i32.store (i32.const 4) (i32.const {bytes}))
                (drop
                    (call $fd_write
                        (i32.const {descriptor}) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
}

/// The package's own folder.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    folder("..").canonicalize().expect("the repository")
}

/// Where the tools for guests are.
#[must_use]
pub fn toolchains() -> Toolchains {
    Toolchains { root: whit::config::toolchains_dir() }
}

/// Builds that take all processors take turns, in this process and the others
/// that test at the same time: hold what this returns while building.
///
/// # Panics
/// When the lock can not be taken.
#[must_use]
pub fn take_turns() -> File {
    let work = repository().join("target/guests");
    fs::create_dir_all(&work).expect("the guests' target folder");
    let lock = File::create(work.join("examples-lock")).expect("a lock");
    lock.lock().expect("lock it");
    lock
}

/// Gets what a language needs, if it is not there.
///
/// # Panics
/// When it can not be had.
pub fn get_ready(language: Language) {
    let toolchains = toolchains();
    if !languages::missing(language, &toolchains).is_empty() {
        let mut output = |line: &str| eprintln!("{line}");
        languages::install(&[language], &toolchains, &mut output)
            .unwrap_or_else(|error| panic!("install what {language} needs: {error}"));
    }
    let missing = languages::missing(language, &toolchains);
    assert!(missing.is_empty(), "{language} is not there: {missing:?}");
}

/// Builds one of `guests/`, or finds that it is built already. Test processes
/// that run at the same time take turns; what they share is kept in the
/// workspace's target folder.
fn built(name: &str) -> Vec<u8> {
    let work = repository().join("target/guests");
    fs::create_dir_all(&work).expect("make the guests' target folder");
    let lock = File::create(work.join("lock")).expect("make the guests' lock");
    lock.lock().expect("lock the guests' target folder");
    let mut output = |line: &str| eprintln!("{line}");
    if !languages::missing(Language::Rust, &toolchains()).is_empty() {
        languages::install(&[Language::Rust], &toolchains(), &mut output)
            .unwrap_or_else(|error| panic!("install the Rust targets: {error}"));
    }
    let request = BuildRequest {
        language: Language::Rust,
        engine: Engine::default(),
        source: folder("guests").join(name),
        root: folder("guests").join(name),
        work: work.clone(),
        component: work.join(format!("{name}.wasm")),
        toolchains: toolchains(),
    };
    languages::build(&request, &mut output)
        .unwrap_or_else(|error| panic!("build the guest {name}: {error}"));
    fs::read(&request.component).expect("read the guest")
}
