//! AssemblyScript: compiled to a WASI command that speaks CGI.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains, javascript};

/// Tells an AssemblyScript folder from a TypeScript one: the compiler's own
/// configuration file, as `asinit` leaves it.
const CONFIGURATION: &str = "asconfig.json";
/// Where a program begins, in this order.
const ENTRIES: [&str; 4] = ["assembly/index.ts", "index.ts", "src/index.ts", "main.ts"];
/// What the compiler needs to reach WASI: `process`, `console`, `Date`.
const SHIM: &str = "@assemblyscript/wasi-shim";

pub(super) fn recognises(names: &FileNames) -> bool {
    names.has(CONFIGURATION)
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    let mut missing = javascript::missing_node(toolchains, Language::AssemblyScript);
    let modules = modules(toolchains);
    for (package, pinned, why) in [
        ("assemblyscript", "ASSEMBLYSCRIPT", "its compiler"),
        (SHIM, "ASSEMBLYSCRIPT_WASI_SHIM", "it connects programs with WASI"),
    ] {
        if !javascript::has_package(&modules, package, version(pinned)) {
            missing.push(MissingTool::new(package, why, Language::AssemblyScript));
        }
    }
    missing
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let folder = folder.canonicalize().map_err(BuildError::file("find", folder))?;
    let entry = entry(request, &folder)?;
    let modules = modules(&request.toolchains);
    let mut command = Command::new(javascript::node_or_name(&request.toolchains));
    command
        // Messages name files relative to here.
        .current_dir(&folder)
        .arg(modules.join("assemblyscript/bin/asc.js"))
        .arg(entry)
        .arg("--config")
        .arg(from_root(&folder).join(relative(&modules.join(SHIM).join(CONFIGURATION))))
        .args(["-O", "--noAssert", "--outFile"])
        .arg(&request.component);
    if folder.join("node_modules").is_dir() {
        command.args(["--path", "node_modules"]);
    }
    javascript::clear(&mut command);
    tools::run("asc", &mut command, output)
}

/// Nothing but its folder: the compiler finds no file outside of it.
pub(super) fn inputs(_request: &BuildRequest) -> Vec<PathBuf> {
    Vec::new()
}

fn entry(request: &BuildRequest, folder: &Path) -> Result<PathBuf, BuildError> {
    if request.source.is_file() {
        return Ok(request.source.clone());
    }
    let entry = ENTRIES.into_iter().find(|name| folder.join(name).is_file());
    entry.map(PathBuf::from).ok_or_else(|| {
        let known = ENTRIES.join(", ");
        BuildError::source(folder, format!("no file to start from; name it one of {known}"))
    })
}

/// The way from a folder to the root: the compiler joins every path of a
/// configuration to the folder that it runs in, absolute ones too.
fn from_root(folder: &Path) -> PathBuf {
    folder.iter().skip(1).map(|_| "..").collect()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn modules(toolchains: &Toolchains) -> PathBuf {
    toolchains.root.join("assemblyscript/node_modules")
}
