//! JavaScript and TypeScript: bundled with an adapter, run by QuickJS or by
//! StarlingMonkey.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::Deserialize;

use super::toolchains::version;
use super::tools::{self, Embedded, FileNames};
use super::{BuildError, BuildRequest, Language, MissingTool, Toolchains};

mod quickjs;

const EXTENSIONS: [&str; 5] = ["ts", "mts", "js", "mjs", "tsx"];
/// Names of the file to start from, when package.json names none.
const ENTRIES: [&str; 5] = ["index", "app", "handler", "main", "worker"];
const NODE_MAJOR_MIN: u32 = 20;

/// What runs a JavaScript function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Small, quick to build, to load and to start. The usual web APIs, but no
    /// `crypto.subtle`.
    #[default]
    QuickJs,
    /// All of the web platform, six times the size.
    StarlingMonkey,
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Engine::QuickJs => "quickjs",
            Engine::StarlingMonkey => "starlingmonkey",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "quickjs" => Ok(Engine::QuickJs),
            "starlingmonkey" => Ok(Engine::StarlingMonkey),
            _ => Err(format!("unknown engine `{name}`; known are quickjs and starlingmonkey")),
        }
    }
}

const SDK: [Embedded; 17] = [
    ("adapter.js", include_str!("../../../../guest-sdk/javascript/adapter.js")),
    ("build.mjs", include_str!("../../../../guest-sdk/javascript/build.mjs")),
    ("quickjs-fetch.js", include_str!("../../../../guest-sdk/javascript/quickjs-fetch.js")),
    ("quickjs-function.js", include_str!("../../../../guest-sdk/javascript/quickjs-function.js")),
    ("quickjs-globals.js", include_str!("../../../../guest-sdk/javascript/quickjs-globals.js")),
    ("quickjs.js", include_str!("../../../../guest-sdk/javascript/quickjs.js")),
    ("runtime.js", include_str!("../../../../guest-sdk/javascript/runtime.js")),
    ("start.js", include_str!("../../../../guest-sdk/javascript/start.js")),
    ("web/events.js", include_str!("../../../../guest-sdk/javascript/web/events.js")),
    ("web/fetch.js", include_str!("../../../../guest-sdk/javascript/web/fetch.js")),
    ("web/format.js", include_str!("../../../../guest-sdk/javascript/web/format.js")),
    ("web/http.js", include_str!("../../../../guest-sdk/javascript/web/http.js")),
    ("web/streams.js", include_str!("../../../../guest-sdk/javascript/web/streams.js")),
    ("web/text.js", include_str!("../../../../guest-sdk/javascript/web/text.js")),
    ("web/url.js", include_str!("../../../../guest-sdk/javascript/web/url.js")),
    ("wit/function.wit", include_str!("../../../../guest-sdk/javascript/wit/function.wit")),
    ("wit/quickjs.wit", include_str!("../../../../guest-sdk/javascript/wit/quickjs.wit")),
];

pub(super) fn recognises(names: &FileNames) -> bool {
    names.with_extension(&EXTENSIONS).next().is_some()
}

pub(super) fn missing(toolchains: &Toolchains) -> Vec<MissingTool> {
    let mut missing = missing_node(toolchains, Language::JavaScript);
    let modules = toolchains.javascript().join("node_modules");
    let packages = [
        (
            "@bytecodealliance/componentize-js",
            "COMPONENTIZE_JS",
            "it puts a program and StarlingMonkey into a component",
        ),
        ("@bytecodealliance/jco", "JCO", "componentize-js builds on it"),
        ("componentize-qjs", "COMPONENTIZE_QJS", "it puts a program and QuickJS into a component"),
        ("rolldown", "ROLLDOWN", "it bundles modules and TypeScript"),
    ];
    for (package, pinned, why) in packages {
        if !has_package(&modules, package, version(pinned)) {
            missing.push(MissingTool::new(package, why, Language::JavaScript));
        }
    }
    missing
}

/// Node.js, if it is missing for a language whose tools run on it.
pub(super) fn missing_node(toolchains: &Toolchains, language: Language) -> Vec<MissingTool> {
    if node(toolchains).is_some() {
        return Vec::new();
    }
    vec![MissingTool::new("Node.js 20 or newer", "the language's tools run on it", language)]
}

pub(super) fn build(
    request: &BuildRequest,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let folder = tools::folder(&request.source);
    let entry = entry(request, folder)?;
    let sdk = request.work.join("sdk");
    tools::write_all(&sdk, &SDK)?;
    tools::write_all(&sdk.join("wit-0.2"), &tools::WIT_0_2)?;
    tools::write_all(&sdk.join("wit-0.3"), &tools::WIT_0_3)?;
    let node = node_or_name(&request.toolchains);
    let modules = install_dependencies(request, folder, &node, output)?;

    let mut script = |command: &str, result: &Path, output: &mut dyn FnMut(&str)| {
        let mut node = Command::new(&node);
        node.current_dir(&request.work).arg(sdk.join("build.mjs")).arg(command);
        node.arg("--entry").arg(&entry).arg("--output").arg(result);
        node.arg("--work").arg(&request.work).arg("--tools").arg(request.toolchains.javascript());
        if let Some(modules) = &modules {
            node.arg("--modules").arg(modules);
        }
        clear(&mut node);
        tools::run("the JavaScript build", &mut node, output)
    };
    match request.engine {
        Engine::StarlingMonkey => script("component", &request.component, output),
        Engine::QuickJs => quickjs::build(request, &mut script, output),
    }
}

/// What the bundler has read, but for packages; and the list of those.
pub(super) fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let read = std::fs::read_to_string(request.work.join("inputs.txt")).unwrap_or_default();
    let packages = tools::nearest(request, "package.json");
    packages.into_iter().chain(read.lines().map(PathBuf::from)).collect()
}

/// The parts of package.json that matter here.
#[derive(Default, Deserialize)]
struct Manifest {
    module: Option<String>,
    main: Option<String>,
    #[serde(default)]
    dependencies: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    fn read(folder: &Path) -> Result<Manifest, BuildError> {
        let path = folder.join("package.json");
        if !path.is_file() {
            return Ok(Manifest::default());
        }
        let text = std::fs::read(&path).map_err(BuildError::file("read", &path))?;
        serde_json::from_slice(&text)
            .map_err(|error| BuildError::source(folder, format!("package.json: {error}")))
    }
}

fn entry(request: &BuildRequest, folder: &Path) -> Result<PathBuf, BuildError> {
    if request.source.is_file() {
        return Ok(request.source.clone());
    }
    let manifest = Manifest::read(folder)?;
    if let Some(named) = manifest.module.or(manifest.main) {
        return Ok(folder.join(named));
    }
    for place in [folder.to_owned(), folder.join("src")] {
        for name in ENTRIES {
            for extension in EXTENSIONS {
                let candidate = place.join(name).with_extension(extension);
                if candidate.is_file() {
                    return Ok(candidate);
                }
            }
        }
    }
    let names = tools::file_names(folder)?;
    let sources: Vec<&str> = names
        .with_extension(&EXTENSIONS)
        .filter(|name| {
            !name.contains(".test.") && !name.contains(".config.") && !name.ends_with(".d.ts")
        })
        .collect();
    match sources.as_slice() {
        [only] => Ok(folder.join(only)),
        _ => Err(BuildError::source(
            folder,
            "no file to start from; name it index.js or index.ts, or set \"main\" in package.json",
        )),
    }
}

/// The packages that package.json asks for, unless the user has them installed
/// already: into the work folder, again only when package.json has changed.
fn install_dependencies(
    request: &BuildRequest,
    folder: &Path,
    node: &Path,
    output: &mut dyn FnMut(&str),
) -> Result<Option<PathBuf>, BuildError> {
    let Some(manifest) = tools::nearest(request, "package.json") else { return Ok(None) };
    let folder = manifest.parent().unwrap_or(folder);
    if Manifest::read(folder)?.dependencies.is_empty() || folder.join("node_modules").is_dir() {
        return Ok(None);
    }
    let packages = request.work.join("packages");
    let modules = packages.join("node_modules");
    let installed = packages.join("installed.json");
    let wanted = std::fs::read(&manifest).map_err(BuildError::file("read", &manifest))?;
    if modules.is_dir() && std::fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Ok(Some(modules));
    }
    tools::write_if_changed(&packages.join("package.json"), &wanted)?;
    let lock = folder.join("package-lock.json");
    if lock.is_file() {
        std::fs::copy(&lock, packages.join("package-lock.json"))
            .map_err(BuildError::file("copy", &lock))?;
    }
    // npm lies beside the node of PyPI's wheel; elsewhere it is on PATH.
    let beside = node.with_file_name("npm");
    let npm = if beside.is_file() { beside } else { PathBuf::from("npm") };
    let mut command = Command::new(npm);
    command.current_dir(&packages).args([
        "install",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--loglevel=error",
    ]);
    clear(&mut command);
    tools::run("npm install", &mut command, output)?;
    tools::write_if_changed(&installed, &wanted)?;
    Ok(Some(modules))
}

/// The machine's Node.js where it is new enough, else the one that `install`
/// took from PyPI.
fn node(toolchains: &Toolchains) -> Option<PathBuf> {
    [PathBuf::from("node"), toolchains.python_program("node")].into_iter().find(|program| {
        let mut command = Command::new(program);
        command.arg("--version");
        clear(&mut command);
        tools::ask(&mut command)
            .and_then(|version| {
                let major = version.trim_start_matches('v').split('.').next()?;
                major.parse::<u32>().ok()
            })
            .is_some_and(|major| major >= NODE_MAJOR_MIN)
    })
}

/// The program to start; its name alone where it is missing, for the error.
pub(super) fn node_or_name(toolchains: &Toolchains) -> PathBuf {
    node(toolchains).unwrap_or_else(|| PathBuf::from("node"))
}

/// Whether an npm package is in `modules` in this version.
pub(super) fn has_package(modules: &Path, package: &str, wanted: &str) -> bool {
    #[derive(Deserialize)]
    struct Installed {
        version: String,
    }
    std::fs::read(modules.join(package).join("package.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<Installed>(&text).ok())
        .is_some_and(|installed| installed.version == wanted)
}

/// Keeps what steers the machine's Node.js away from a build.
pub(super) fn clear(command: &mut Command) {
    command.env_remove("NODE_OPTIONS").env_remove("NODE_PATH");
}
