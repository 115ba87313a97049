//! Rust: a cdylib becomes an HTTP component, a program a WASI command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::tools::{self, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

/// A library that exports an HTTP handler: a component at once.
const COMPONENT_TARGET: &str = "wasm32-wasip2";
/// A program that reads CGI variables: a core module, the smaller for it.
const COMMAND_TARGET: &str = "wasm32-wasip1";

/// Crates whose `main` is an HTTP handler in disguise: with one of them a
/// program has to be built as a component.
const HANDLER_CRATES: [&str; 5] = ["wstd", "whit-sdk", "wasip2", "wasip3", "wit-bindgen"];

/// What a cargo that started this process has set for itself, and what would
/// steer the guest's build away from the target it needs.
const FOREIGN_VARIABLES: [&str; 16] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

pub(super) fn recognises(names: &FileNames) -> bool {
    names.has("Cargo.toml")
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    if toolchains.rust().is_some() {
        return Vec::new();
    }
    [COMPONENT_TARGET, COMMAND_TARGET]
        .into_iter()
        .filter(|target| !system_has(target, None))
        .map(|target| {
            MissingTool::new(
                format!("the Rust target {target}"),
                "guests are compiled to it",
                Language::Rust,
            )
        })
        .collect()
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let generated;
    let folder = if request.source.is_file() {
        generated = package_of_file(request)?;
        &generated
    } else {
        &request.source
    };
    let guest = Guest::of(folder, &request.toolchains)?;
    let mut command = cargo(&request.toolchains, guest.target, folder);
    command
        .args(["build", "--release", "--message-format=json-render-diagnostics"])
        .args(["--target", guest.target])
        .arg("--target-dir")
        .arg(request.work.join("target"))
        .args(&guest.selection);

    // Messages of cargo to programs are lines of JSON among those to people.
    let mut artifacts = Vec::new();
    tools::run("cargo build", &mut command, &mut |line| {
        if line.starts_with('{') {
            artifacts.extend(serde_json::from_str::<Artifact>(line).ok());
        } else {
            output(line);
        }
    })?;
    let module = artifacts
        .into_iter()
        .filter(|artifact| artifact.target.name.replace('-', "_") == guest.name.replace('-', "_"))
        .flat_map(|artifact| artifact.filenames)
        .rfind(|file| file.extension().is_some_and(|end| end == "wasm"));
    let Some(module) = module else {
        return Err(BuildError::NoComponent {
            language: Language::Rust,
            expected: request.work.join("target").join(guest.target),
        });
    };
    fs::copy(&module, &request.component).map_err(BuildError::file("copy", &module))?;
    Ok(())
}

/// The folders of the packages that it depends on by path, and where the
/// workspace or project says what else.
pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> = tools::nearest(request, "Cargo.toml").into_iter().collect();
    let generated = request.work.join("package");
    let folder = match request.source.is_file() {
        true => generated.as_path(),
        false => &request.source,
    };
    let mut command = cargo(&request.toolchains, COMPONENT_TARGET, folder);
    command.args(["metadata", "--format-version", "1"]);
    let answer = tools::ask(&mut command).unwrap_or_default();
    if let Ok(metadata) = serde_json::from_str::<Metadata>(&answer) {
        inputs.extend(metadata.local_packages(folder));
        inputs.push(metadata.workspace_root.join("Cargo.toml"));
        inputs.push(metadata.workspace_root.join("Cargo.lock"));
    }
    inputs
}

/// A package around a source that is one file, with the dependencies of the
/// nearest Cargo.toml.
fn package_of_file(request: &BuildRequest) -> Result<PathBuf, BuildError> {
    let text =
        fs::read_to_string(&request.source).map_err(BuildError::file("read", &request.source))?;
    let mut manifest = toml::Table::new();
    let mut dependencies = toml::Table::new();
    if let Some(path) = tools::nearest(request, "Cargo.toml") {
        let text = fs::read_to_string(&path).map_err(BuildError::file("read", &path))?;
        let own: toml::Table =
            text.parse().map_err(|error| BuildError::source(&path, format!("{error}")))?;
        if let Some(toml::Value::Table(own)) = own.get("dependencies") {
            dependencies.clone_from(own);
        }
        // Paths are relative to where they were written.
        let folder = path.parent().unwrap_or(Path::new("/"));
        for dependency in dependencies.iter_mut().filter_map(|(_, value)| value.as_table_mut()) {
            if let Some(toml::Value::String(path)) = dependency.get_mut("path") {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        }
    }
    let table = |pairs: &[(&str, toml::Value)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        toml::Value::Table(pairs.collect())
    };
    let (name, version) = ("function".into(), "0.0.0".into());
    let package = [("name", name), ("version", version), ("edition", "2024".into())];
    manifest.insert("package".into(), table(&package));
    manifest.insert("dependencies".into(), toml::Value::Table(dependencies));
    manifest.insert("workspace".into(), toml::Value::Table(toml::Table::new()));
    let release = [
        ("opt-level", "s".into()),
        ("lto", true.into()),
        ("codegen-units", 1.into()),
        ("strip", true.into()),
    ];
    manifest.insert("profile".into(), table(&[("release", table(&release))]));
    let path: toml::Value = request.source.to_string_lossy().into_owned().into();
    // The attribute of our SDK makes a library of a file; anything else has a `main`.
    if text.contains("fn main(") {
        let program = table(&[("name", "function".into()), ("path", path)]);
        manifest.insert("bin".into(), toml::Value::Array(vec![program]));
    } else {
        let kind = toml::Value::Array(vec!["cdylib".into()]);
        manifest.insert("lib".into(), table(&[("path", path), ("crate-type", kind)]));
    }
    let folder = request.work.join("package");
    tools::write_if_changed(&folder.join("Cargo.toml"), manifest.to_string().as_bytes())?;
    Ok(folder)
}

/// One artifact message of cargo; messages of other kinds have no filenames.
#[derive(Deserialize)]
struct Artifact {
    target: ArtifactTarget,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
}

/// What there is to build in a package.
struct Guest {
    name: String,
    target: &'static str,
    selection: Vec<String>,
}

impl Guest {
    fn of(folder: &Path, toolchains: &Toolchains) -> Result<Guest, BuildError> {
        let package = Package::read(folder, toolchains)?;
        let kind = |target: &&PackageTarget, kind: &str| target.kind.iter().any(|own| own == kind);
        if let Some(library) = package.targets.iter().find(|target| kind(target, "cdylib")) {
            return Ok(Guest {
                name: library.name.clone(),
                target: COMPONENT_TARGET,
                selection: vec!["--lib".to_owned()],
            });
        }
        let programs: Vec<_> =
            package.targets.iter().filter(|target| kind(target, "bin")).collect();
        let chosen = match programs.as_slice() {
            [] => {
                return Err(BuildError::source(
                    folder,
                    "the package has neither a program nor a library with crate-type = [\"cdylib\"]",
                ));
            }
            [only] => &only.name,
            _ => package.default_run.as_ref().ok_or_else(|| {
                BuildError::source(
                    folder,
                    "the package has several programs; name one as `default-run` in Cargo.toml",
                )
            })?,
        };
        let is_handler = package
            .dependencies
            .iter()
            .any(|dependency| HANDLER_CRATES.contains(&dependency.name.as_str()));
        Ok(Guest {
            name: chosen.clone(),
            target: if is_handler { COMPONENT_TARGET } else { COMMAND_TARGET },
            selection: vec!["--bin".to_owned(), chosen.clone()],
        })
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    /// Absent unless asked for.
    resolve: Option<Resolve>,
}

/// Which package needs which.
#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<ResolveNode>,
}

#[derive(Deserialize)]
struct ResolveNode {
    id: String,
    dependencies: Vec<String>,
}

impl Metadata {
    fn package_at(&self, folder: &Path) -> Option<&Package> {
        let manifest = folder.join("Cargo.toml");
        let manifest = manifest.canonicalize().unwrap_or(manifest);
        let is_here = |package: &&Package| {
            package.manifest_path.canonicalize().is_ok_and(|path| path == manifest)
        };
        self.packages.iter().find(is_here)
    }

    /// The folders of all packages without a registry that the one in `folder`
    /// needs, directly or not.
    fn local_packages(&self, folder: &Path) -> Vec<PathBuf> {
        let nodes = self.resolve.as_ref().map_or(&[][..], |resolve| &resolve.nodes);
        let mut needed: Vec<&str> =
            self.package_at(folder).map(|package| package.id.as_str()).into_iter().collect();
        let mut next = 0;
        while let Some(id) = needed.get(next).copied() {
            next += 1;
            let node = nodes.iter().find(|node| node.id == id);
            for dependency in node.into_iter().flat_map(|node| &node.dependencies) {
                if !needed.contains(&dependency.as_str()) {
                    needed.push(dependency);
                }
            }
        }
        let is_local =
            |package: &&Package| package.source.is_none() && needed.contains(&package.id.as_str());
        let folder_of = |package: &Package| package.manifest_path.parent().map(Path::to_owned);
        self.packages.iter().filter(is_local).filter_map(folder_of).collect()
    }
}

#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    /// Where it was downloaded from.
    source: Option<String>,
    manifest_path: PathBuf,
    default_run: Option<String>,
    targets: Vec<PackageTarget>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Deserialize)]
struct PackageTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct Dependency {
    name: String,
}

impl Package {
    /// Asks cargo rather than reading Cargo.toml: defaults and workspace
    /// inheritance are its business.
    fn read(folder: &Path, toolchains: &Toolchains) -> Result<Package, BuildError> {
        let mut command = cargo(toolchains, COMPONENT_TARGET, folder);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let mut answer = String::new();
        tools::run("cargo metadata", &mut command, &mut |line| {
            if line.starts_with('{') {
                answer.push_str(line);
            }
        })?;
        let metadata: Metadata = serde_json::from_str(&answer)
            .map_err(|error| BuildError::source(folder, format!("cargo metadata: {error}")))?;
        metadata.package_at(folder).cloned().ok_or_else(|| {
            BuildError::source(
                folder,
                "Cargo.toml is a workspace; name one of its packages as the source",
            )
        })
    }
}

/// The cargo to use: the user's own where it has the target, else the
/// toolchain made from the distribution's packages.
fn cargo(toolchains: &Toolchains, target: &str, folder: &Path) -> Command {
    let mut command = match toolchains.rust() {
        Some(made) if !system_has(target, Some(folder)) => {
            let mut command = Command::new(made.join("bin/cargo"));
            command.env("RUSTC", made.join("bin/rustc"));
            command.env("RUSTDOC", made.join("bin/rustdoc"));
            clear(&mut command, &["RUSTC"]);
            command
        }
        _ => {
            let mut command = Command::new("cargo");
            clear(&mut command, &[]);
            command
        }
    };
    command.current_dir(folder);
    command
}

/// Whether the compiler on PATH has a standard library for a target. In a
/// package's folder, a rust-toolchain.toml may choose another compiler.
fn system_has(target: &str, folder: Option<&Path>) -> bool {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir", "--target", target]);
    clear(&mut command, &[]);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    tools::ask(&mut command).is_some_and(|library| Path::new(&library).is_dir())
}

fn clear(command: &mut Command, keep: &[&str]) {
    for variable in FOREIGN_VARIABLES {
        if !keep.contains(&variable) {
            command.env_remove(variable);
        }
    }
}
