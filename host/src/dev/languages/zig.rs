//! Zig: one program, compiled to a WASI command that speaks CGI.

use std::path::PathBuf;
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

/// Where a program begins, in this order.
const ENTRIES: [&str; 2] = ["main.zig", "src/main.zig"];

pub(super) fn recognises(names: &FileNames) -> bool {
    names.has("build.zig") || names.with_extension(&["zig"]).next().is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if toolchains.has_python_package("ziglang", version("ZIGLANG")) {
        return Vec::new();
    }
    vec![MissingTool::new("zig", "it compiles to WASI", Language::Zig)]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let names = tools::file_names(&request.source)?;
    let zig_files = names.with_extension(&["zig"]).filter(|name| *name != "build.zig");
    let known =
        ENTRIES.into_iter().find(|name| request.source.is_dir() && folder.join(name).is_file());
    let entry = known.or_else(|| tools::only(zig_files)).ok_or_else(|| {
        BuildError::source(folder, "no Zig file to start from; name it main.zig or src/main.zig")
    })?;
    let mut binary = std::ffi::OsString::from("-femit-bin=");
    binary.push(&request.component);
    let mut command = Command::new(request.toolchains.python_program("python"));
    in_cache(&mut command, &request.toolchains)
        .args(["-m", "ziglang"])
        .current_dir(folder)
        .args(["build-exe", entry, "-target", "wasm32-wasi", "-O", "ReleaseSmall", "-fstrip"])
        .arg(binary);
    tools::run("zig", &mut command, output)
}

pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    tools::included(tools::sources(request, &["zig"]), &["@import", "@embedFile"])
}

/// Any zig compiles its libraries once, and keeps them there.
pub(super) fn in_cache<'a>(command: &'a mut Command, toolchains: &Toolchains) -> &'a mut Command {
    let cache = toolchains.root.join("zig-cache");
    command.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache)
}
