//! Python: the folder, a shim and an interpreter, frozen into one component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, Embedded, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};
use crate::dev::watch::fingerprint;

/// Where a function is looked for, in this order.
const ENTRIES: [&str; 4] = ["app.py", "index.py", "handler.py", "main.py"];

const SHIM: [Embedded; 10] = [
    (
        "whit_adapter/__init__.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/__init__.py"),
    ),
    (
        "whit_adapter/componentize.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/componentize.py"),
    ),
    ("whit_adapter/asgi.py", include_str!("../../../../guest-sdk/python/whit_adapter/asgi.py")),
    ("whit_adapter/entry.py", include_str!("../../../../guest-sdk/python/whit_adapter/entry.py")),
    (
        "whit_adapter/exchange.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/exchange.py"),
    ),
    ("whit_adapter/find.py", include_str!("../../../../guest-sdk/python/whit_adapter/find.py")),
    (
        "whit_adapter/http_server.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/http_server.py"),
    ),
    ("whit_adapter/warm.py", include_str!("../../../../guest-sdk/python/whit_adapter/warm.py")),
    ("whit_adapter/wasi.py", include_str!("../../../../guest-sdk/python/whit_adapter/wasi.py")),
    ("whit_adapter/wsgi.py", include_str!("../../../../guest-sdk/python/whit_adapter/wsgi.py")),
];

/// Names of the native files that were taken out of the dependencies.
const REMOVED: &str = "native-code-removed.txt";

pub(super) fn recognises(names: &FileNames) -> bool {
    names.has("requirements.txt") || entry(names).is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if toolchains.has_python_package("componentize_py", version("COMPONENTIZE_PY")) {
        return Vec::new();
    }
    vec![MissingTool::new(
        "componentize-py",
        "it freezes Python with a program into a component",
        Language::Python,
    )]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let names = tools::file_names(&request.source)?;
    let module = entry(&names).ok_or_else(|| {
        BuildError::source(
            folder,
            format!("no Python file to start from; name it one of {}", ENTRIES.join(", ")),
        )
    })?;
    let shim = request.work.join("shim");
    let wit = request.work.join("wit");
    tools::write_all(&shim, &SHIM)?;
    tools::write_all(&wit, &tools::WIT_0_2)?;
    let dependencies = install_dependencies(request, output)?;
    write_entry(request, folder, module, &shim, output)?;
    // Freezing takes seconds, and never gives the same bytes twice: what has
    // not changed is not frozen again, which is no new revision for a host.
    let inputs = inputs(request, folder, dependencies.as_deref());
    let (kept, kept_for) = (request.work.join("built.wasm"), request.work.join("built.txt"));
    if let Some(inputs) = &inputs
        && fs::read_to_string(&kept_for).is_ok_and(|present| present == *inputs)
        && fs::copy(&kept, &request.component).is_ok()
    {
        return Ok(());
    }

    let mut command = Command::new(request.toolchains.python_program("python"));
    command
        .current_dir(&request.work)
        .args(["-m", "whit_adapter.componentize"])
        .env("PYTHONPATH", &shim)
        .arg("--wit-path")
        .arg(&wit)
        .args(["--world", "wasi:http/proxy@0.2.12", "--quiet"])
        .args(["componentize", "whit_entry"])
        .arg("-p")
        .arg(&request.work)
        .arg("-p")
        .arg(&shim)
        .arg("-p")
        .arg(folder);
    if request.root != folder {
        // Files of a project import what lies beside its `api/`.
        command.arg("-p").arg(&request.root);
    }
    if let Some(dependencies) = &dependencies {
        command.arg("-p").arg(dependencies);
    }
    command.arg("-o").arg(&request.component);
    quiet(&mut command);
    tools::run("componentize-py", &mut command, output)?;
    if let Some(inputs) = inputs {
        // Without them the next build is merely slower.
        let _ = fs::remove_file(&kept_for);
        if fs::copy(&request.component, &kept).is_ok() {
            let _ = fs::write(&kept_for, inputs);
        }
    }
    Ok(())
}

/// All that a component is made of, in one line; `None` if it can not be read.
fn inputs(request: &BuildRequest, folder: &Path, dependencies: Option<&Path>) -> Option<String> {
    let entry = fs::read(request.work.join("whit_entry.py")).ok()?;
    let shim: Vec<&str> = SHIM.iter().map(|(_, text)| *text).collect();
    let mut line = format!(
        "{} {} {}",
        version("COMPONENTIZE_PY"),
        blake3::hash(&entry),
        blake3::hash(shim.concat().as_bytes())
    );
    for folder in [Some(folder), Some(request.root.as_path()), dependencies].into_iter().flatten() {
        line.push(' ');
        line.push_str(&fingerprint(folder).ok()?.to_hex());
    }
    Some(line)
}

fn entry(names: &FileNames) -> Option<&str> {
    let known = ENTRIES.into_iter().find(|name| names.has(name));
    let mut all = names.with_extension(&["py"]);
    let file = known.or_else(|| match (all.next(), all.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    })?;
    file.strip_suffix(".py")
}

/// The module that componentize-py starts from. It is written by a part of the
/// shim, because finding the imports of a Python file is Python's work; a
/// syntax error in the function is reported here, before the slow step.
fn write_entry(
    request: &BuildRequest,
    folder: &Path,
    module: &str,
    shim: &Path,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let mut command = Command::new(request.toolchains.python_program("python"));
    command
        .args(["-m", "whit_adapter.entry", "--module", module])
        .arg("--source")
        .arg(folder)
        .arg("--output")
        .arg(request.work.join("whit_entry.py"))
        .env("PYTHONPATH", shim);
    quiet(&mut command);
    tools::run("python", &mut command, output)
}

/// Installs requirements.txt into a folder of its own, again only when the file
/// has changed.
fn install_dependencies(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<Option<PathBuf>, BuildError> {
    let Some(list) = tools::nearest(request, "requirements.txt") else { return Ok(None) };
    let wanted = fs::read(&list).map_err(BuildError::file("read", &list))?;
    let target = request.work.join("dependencies");
    let installed = request.work.join("dependencies.txt");
    if target.is_dir() && fs::read(&installed).is_ok_and(|present| present == wanted) {
        tell_removed(&target, output);
        return Ok(Some(target));
    }
    if target.exists() {
        fs::remove_dir_all(&target).map_err(BuildError::file("remove", &target))?;
    }
    let mut command = Command::new(request.toolchains.python_program("python"));
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .arg("--target")
        .arg(&target)
        .arg("--requirement")
        .arg(&list);
    quiet(&mut command);
    tools::run("pip install", &mut command, output)?;
    let mut removed = String::new();
    remove_native_code(&target, &mut removed)?;
    let list = target.join(REMOVED);
    fs::write(&list, removed).map_err(BuildError::file("write", &list))?;
    fs::write(&installed, wanted).map_err(BuildError::file("write", &installed))?;
    tell_removed(&target, output);
    Ok(Some(target))
}

/// Native code of this machine does not run in a component. Many packages have
/// it only to be quicker and do without when it is not there; one that cannot
/// fails to import.
fn remove_native_code(folder: &Path, removed: &mut String) -> Result<(), BuildError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(BuildError::file("read", folder))? {
        let path = entry.map_err(BuildError::file("read", folder))?.path();
        if path.is_dir() {
            remove_native_code(&path, removed)?;
        } else if path.extension().is_some_and(|end| end == "so" || end == "pyd") {
            fs::remove_file(&path).map_err(BuildError::file("remove", &path))?;
            removed.extend(path.file_name().map(|name| format!("{}\n", name.display())));
        }
    }
    Ok(())
}

/// Said in every build, for it explains an import that fails.
fn tell_removed(target: &Path, output: &mut dyn FnMut(&str)) {
    for name in fs::read_to_string(target.join(REMOVED)).unwrap_or_default().lines() {
        output(&format!("left out, because native code does not run in a component: {name}"));
    }
}

/// Keeps what steers the machine's Python, and backtraces of the tools' own
/// code, away from a build.
fn quiet(command: &mut Command) {
    command.env_remove("PYTHONHOME").env("RUST_BACKTRACE", "0").env("PYTHONDONTWRITEBYTECODE", "1");
}
