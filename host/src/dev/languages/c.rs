//! C and C++: every source file of the folder, compiled to a WASI command that
//! speaks CGI.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::{self, FileNames};
use super::zig;
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

/// Where distributions put the C library for WASI.
const SYSTEM_LIBC: &str = "/usr/lib/wasm32-wasi/libc.a";
const SYSTEM_COMPILERS: [&str; 2] = ["clang", "clang-19"];

const C_EXTENSIONS: [&str; 1] = ["c"];
const CPP_EXTENSIONS: [&str; 3] = ["cpp", "cc", "cxx"];

pub(super) fn recognises(names: &FileNames) -> bool {
    names.with_extension(&C_EXTENSIONS).next().is_some()
}

pub(super) fn recognises_cpp(names: &FileNames) -> bool {
    names.with_extension(&CPP_EXTENSIONS).next().is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if toolchains.c_compiler().is_some() || system_compiler().is_some() {
        return Vec::new();
    }
    vec![MissingTool::new(
        "a C compiler for WASI",
        "zig from PyPI, or the system's clang with wasi-libc",
        Language::C,
    )]
}

/// Distributions have no C++ library for WASI; zig brings one.
pub(super) fn missing_cpp(toolchains: &Toolchains) -> Vec<MissingTool> {
    if toolchains.c_compiler().is_some() {
        return Vec::new();
    }
    vec![MissingTool::new("a C++ compiler for WASI", "zig from PyPI", Language::Cpp)]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    // zig first: it is the pinned one, and brings its own C library.
    let system = request.toolchains.c_compiler().is_none().then(system_compiler).flatten();
    let mut command = match system {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["--target=wasm32-wasi", "--sysroot=/usr"]);
            command
        }
        None => zig_compiler(request, "cc"),
    };
    let names = tools::file_names(&request.source)?;
    let c: Vec<&str> = names.with_extension(&C_EXTENSIONS).collect();
    compile(request, &mut command, &c, "the C compiler", output)
}

pub(super) fn build_cpp(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let mut command = zig_compiler(request, "c++");
    // WASI has no way to unwind: a `throw` is an error of the compiler's.
    command.args(["-fno-exceptions", "-std=c++20"]);
    let names = tools::file_names(&request.source)?;
    let cpp: Vec<&str> = names.with_extension(&CPP_EXTENSIONS).collect();
    // A C++ program may have parts in C.
    let c: Vec<&str> =
        names.with_extension(&C_EXTENSIONS).flat_map(|name| ["-x", "c", name]).collect();
    compile(request, &mut command, &[cpp, c].concat(), "the C++ compiler", output)
}

/// What is included in quotes; what is in angle brackets is the compiler's.
pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let extensions = [&C_EXTENSIONS[..], &CPP_EXTENSIONS].concat();
    tools::included(tools::sources(request, &extensions), &["include"])
}

fn zig_compiler(request: &BuildRequest, language: &str) -> Command {
    // What is missing was said before.
    let zig = request.toolchains.c_compiler().unwrap_or_else(|| "zig".into());
    let mut command = Command::new(zig);
    zig::in_cache(&mut command, &request.toolchains).args([language, "-target", "wasm32-wasi"]);
    command
}

fn compile(
    request: &BuildRequest,
    command: &mut Command,
    sources: &[&str],
    tool: &str,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    command
        .current_dir(tools::folder(&request.source))
        // Optimised for size, because a small component loads fast.
        .args(["-Os", "-Wall", "-s", "-o"])
        .arg(&request.component)
        .args(sources);
    tools::run(tool, command, output)
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
