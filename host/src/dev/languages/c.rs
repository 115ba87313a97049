//! C: every `.c` file of the folder, compiled to a WASI command that speaks CGI.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

/// Where distributions put the C library for WASI.
const SYSTEM_LIBC: &str = "/usr/lib/wasm32-wasi/libc.a";
const SYSTEM_COMPILERS: [&str; 2] = ["clang", "clang-19"];

pub(super) fn recognises(names: &FileNames) -> bool {
    names.with_extension(&["c"]).next().is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if has_zig(toolchains) || system_compiler().is_some() {
        return Vec::new();
    }
    vec![MissingTool::new(
        "a C compiler for WASI",
        "zig from PyPI, or the system's clang with wasi-libc",
        Language::C,
    )]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let names = tools::file_names(&request.source)?;
    let mut command = compiler(&request.toolchains);
    // Optimised for size, because a small component loads fast.
    command
        .current_dir(folder)
        .args(["-Os", "-Wall", "-o"])
        .arg(&request.component)
        .args(names.with_extension(&["c"]));
    tools::run("the C compiler", &mut command, output)
}

/// zig first: it is the pinned one, and brings its own C library.
fn compiler(toolchains: &Toolchains) -> Command {
    match system_compiler() {
        Some(program) if !has_zig(toolchains) => {
            let mut command = Command::new(program);
            command.args(["--target=wasm32-wasi", "--sysroot=/usr"]);
            command
        }
        _ => {
            let mut command = Command::new(toolchains.python_program("python"));
            command
                .args(["-m", "ziglang", "cc", "-target", "wasm32-wasi"])
                // zig compiles its C library once, and keeps it here.
                .env("ZIG_GLOBAL_CACHE_DIR", cache(toolchains))
                .env("ZIG_LOCAL_CACHE_DIR", cache(toolchains));
            command
        }
    }
}

fn cache(toolchains: &Toolchains) -> PathBuf {
    toolchains.root.join("zig-cache")
}

fn has_zig(toolchains: &Toolchains) -> bool {
    toolchains.has_python_package("ziglang", version("ZIGLANG"))
}

/// A clang that can really make a WASI program: its linker and its runtime
/// library are packages of their own, and often not there.
fn system_compiler() -> Option<&'static str> {
    if !Path::new(SYSTEM_LIBC).is_file() {
        return None;
    }
    let scratch = tempfile::tempdir().ok()?;
    let program = scratch.path().join("probe.c");
    std::fs::write(&program, "int main(void) { return 0; }\n").ok()?;
    SYSTEM_COMPILERS.into_iter().find(|compiler| {
        let mut command = Command::new(compiler);
        command
            .args(["--target=wasm32-wasi", "--sysroot=/usr", "-o"])
            .arg(scratch.path().join("probe.wasm"))
            .arg(&program);
        tools::ask(&mut command).is_some()
    })
}
