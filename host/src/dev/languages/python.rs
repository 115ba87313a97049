//! Python: the folder, a shim and an interpreter, frozen into one component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchains::version;
use super::tools::{self, Embedded, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains, is_source};
use crate::dev::watch::{fingerprint, is_ignored_name};

/// Where a function is looked for, in this order.
const ENTRIES: [&str; 4] = ["app.py", "index.py", "handler.py", "main.py"];

const SHIM: [Embedded; 14] = [
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
    (
        "whit_adapter/immortal.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/immortal.py"),
    ),
    (
        "whit_adapter/library.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/library.py"),
    ),
    ("whit_adapter/native.py", include_str!("../../../../guest-sdk/python/whit_adapter/native.py")),
    (
        "whit_adapter/packages.py",
        include_str!("../../../../guest-sdk/python/whit_adapter/packages.py"),
    ),
    ("whit_adapter/warm.py", include_str!("../../../../guest-sdk/python/whit_adapter/warm.py")),
    ("whit_adapter/wasi.py", include_str!("../../../../guest-sdk/python/whit_adapter/wasi.py")),
    ("whit_adapter/wsgi.py", include_str!("../../../../guest-sdk/python/whit_adapter/wsgi.py")),
];

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
    let packages = install_packages(request, &shim, output)?;
    write_entry(request, folder, module, &shim, packages.as_ref(), output)?;
    let dependencies = packages.map(|packages| packages.folder);
    // Freezing takes seconds, and never gives the same bytes twice: what has
    // not changed is not frozen again, which is no new revision for a host.
    let made_of = made_of(request, folder, dependencies.as_deref());
    let (kept, kept_for) = (request.work.join("built.wasm"), request.work.join("built.txt"));
    if let Some(made_of) = &made_of
        && fs::read_to_string(&kept_for).is_ok_and(|present| present == *made_of)
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
    if let Some(made_of) = made_of {
        // Without them the next build is merely slower.
        let _ = fs::remove_file(&kept_for);
        if fs::copy(&request.component, &kept).is_ok() {
            let _ = fs::write(&kept_for, made_of);
        }
    }
    Ok(())
}

/// The list of packages, and for a file of a project what else is in it.
pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let packages = tools::nearest(request, "requirements.txt");
    packages.into_iter().chain(project_files(request)).collect()
}

/// What a file of a project may import or read while it is frozen: anything but
/// other languages' source, and files that are served as they are.
fn project_files(request: &BuildRequest) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if !request.source.is_file() {
        return files;
    }
    let mut folders = vec![request.root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if is_ignored_name(&name) || path.is_symlink() || path == request.root.join("public") {
                continue;
            }
            let is_python = path.extension().is_some_and(|end| end == "py");
            if path.is_dir() {
                folders.push(path);
            } else if is_python || !is_source(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// All that a component is made of, in one line; `None` if it can not be read.
fn made_of(request: &BuildRequest, folder: &Path, dependencies: Option<&Path>) -> Option<String> {
    let entry = fs::read(request.work.join("whit_entry.py")).ok()?;
    let shim: Vec<&str> = SHIM.iter().map(|(_, text)| *text).collect();
    let mut line = format!(
        "{} {} {}",
        version("COMPONENTIZE_PY"),
        blake3::hash(&entry),
        blake3::hash(shim.concat().as_bytes())
    );
    let source = if request.source.is_file() { &request.source } else { folder };
    let files = project_files(request);
    let files = files.iter().map(PathBuf::as_path);
    for place in [source].into_iter().chain(files).chain(dependencies) {
        line.push(' ');
        line.push_str(&fingerprint(place).ok()?.to_hex());
    }
    Some(line)
}

fn entry(names: &FileNames) -> Option<&str> {
    let known = ENTRIES.into_iter().find(|name| names.has(name));
    known.or_else(|| tools::only(names.with_extension(&["py"])))?.strip_suffix(".py")
}

/// The module that componentize-py starts from. It is written by a part of the
/// shim, because finding the imports of a Python file is Python's work; a
/// syntax error in the function is reported here, before the slow step.
fn write_entry(
    request: &BuildRequest,
    folder: &Path,
    module: &str,
    shim: &Path,
    packages: Option<&Packages>,
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
    if let Some(packages) = packages {
        command.arg("--native").arg(&packages.native);
    }
    quiet(&mut command);
    tools::run("python", &mut command, output)
}

/// Packages that were installed.
struct Packages {
    folder: PathBuf,
    /// What was left out of them, as JSON.
    native: PathBuf,
}

/// Installs requirements.txt into a folder of its own, again only when the file
/// has changed.
fn install_packages(
    request: &BuildRequest,
    shim: &Path,
    output: &mut dyn FnMut(&str),
) -> Result<Option<Packages>, BuildError> {
    let Some(list) = tools::nearest(request, "requirements.txt") else { return Ok(None) };
    let wanted = fs::read(&list).map_err(BuildError::file("read", &list))?;
    let packages = Packages {
        folder: request.work.join("dependencies"),
        native: request.work.join("native-code.json"),
    };
    let installed = request.work.join("dependencies.txt");
    let is_there = packages.folder.is_dir() && packages.native.is_file();
    if is_there && fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Ok(Some(packages));
    }
    if packages.folder.exists() {
        fs::remove_dir_all(&packages.folder)
            .map_err(BuildError::file("remove", &packages.folder))?;
    }
    let mut command = Command::new(request.toolchains.python_program("python"));
    command
        .args(["-m", "whit_adapter.packages", "--requirements"])
        .arg(&list)
        .arg("--target")
        .arg(&packages.folder)
        .arg("--native")
        .arg(&packages.native)
        .env("PYTHONPATH", shim)
        // What is made here without native code is not for the user's own pip.
        .env("PIP_CACHE_DIR", request.toolchains.root.join("pip-cache"));
    quiet(&mut command);
    tools::run("pip install", &mut command, output)?;
    fs::write(&installed, wanted).map_err(BuildError::file("write", &installed))?;
    Ok(Some(packages))
}

/// Keeps what steers the machine's Python, and backtraces of the tools' own
/// code, away from a build.
fn quiet(command: &mut Command) {
    command.env_remove("PYTHONHOME").env("RUST_BACKTRACE", "0").env("PYTHONDONTWRITEBYTECODE", "1");
}
