//! The languages that `whit build` knows: how a folder is recognised, what its
//! tools are, how it becomes a component, and how the tools are installed.
//!
//! Each language is one file with the same four functions: `recognises`,
//! `missing`, `build` and `inputs`. A build never writes into the source folder: what it
//! needs for itself goes into [`BuildRequest::work`], which may be kept between
//! builds to make the next one quicker.

mod assemblyscript;
mod c;
mod error;
mod go;
mod javascript;
mod python;
mod rust;
mod toolchains;
mod tools;
mod zig;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use error::BuildError;
pub use javascript::Engine;
pub use toolchains::{MissingTool, Toolchains, install};

/// A language with a built-in recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// A component (a library crate) or a CGI program (a binary crate).
    Rust,
    /// A CGI program.
    C,
    /// A CGI program.
    Cpp,
    /// A CGI program, by `net/http/cgi`.
    Go,
    /// A CGI program.
    Zig,
    /// A component: a `fetch` handler. TypeScript too.
    JavaScript,
    /// A component: `BaseHTTPRequestHandler`, WSGI or ASGI.
    Python,
    /// A CGI program.
    AssemblyScript,
}

impl Language {
    /// Every language.
    pub const ALL: [Language; 8] = [
        Language::Rust,
        Language::C,
        Language::Cpp,
        Language::Go,
        Language::Zig,
        Language::JavaScript,
        Language::Python,
        Language::AssemblyScript,
    ];

    /// The order in which a folder is tried: one with both a `Cargo.toml` and a
    /// `package.json` is Rust with a web page in it, and a C++ program may have
    /// parts in C.
    const DETECTED: [Language; 8] = [
        Language::Rust,
        Language::Go,
        Language::AssemblyScript,
        Language::JavaScript,
        Language::Python,
        Language::Zig,
        Language::Cpp,
        Language::C,
    ];

    /// The name in `whit.toml` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Go => "go",
            Language::Zig => "zig",
            Language::JavaScript => "javascript",
            Language::Python => "python",
            Language::AssemblyScript => "assemblyscript",
        }
    }

    /// The names of all languages, for messages.
    pub fn names() -> String {
        Language::ALL.map(Language::name).join(", ")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no language here.
#[derive(Debug, thiserror::Error)]
#[error("unknown language `{name}`; {}", known(.name, &Language::ALL.map(Language::name)))]
pub struct UnknownLanguage {
    /// What was given.
    pub name: String,
}

/// What to say of a name that is none of `names`: the nearest one, or all.
pub(in crate::dev) fn known(name: &str, names: &[&str]) -> String {
    let similar = |known: &&&str| strsim::jaro_winkler(name, known);
    let nearest = names.iter().max_by(|left, right| similar(left).total_cmp(&similar(right)));
    match nearest.filter(|nearest| similar(nearest) > 0.8) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", names.join(", ")),
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "rust" | "rs" => Ok(Language::Rust),
            "c" => Ok(Language::C),
            "cpp" | "c++" | "cxx" => Ok(Language::Cpp),
            "go" | "golang" => Ok(Language::Go),
            "zig" => Ok(Language::Zig),
            "javascript" | "js" | "typescript" | "ts" => Ok(Language::JavaScript),
            "python" | "py" => Ok(Language::Python),
            "assemblyscript" | "as" => Ok(Language::AssemblyScript),
            _ => Err(UnknownLanguage { name: name.to_owned() }),
        }
    }
}

/// One function to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Whose recipe to follow.
    pub language: Language,
    /// What runs it, if it is JavaScript.
    pub engine: Engine,
    /// The function's folder, or its one source file.
    pub source: PathBuf,
    /// The folder up to which a `package.json`, `requirements.txt`, `go.mod` or
    /// `Cargo.toml` is looked for, from the source upwards.
    pub root: PathBuf,
    /// A folder for intermediate results, this function's own. Keep it between
    /// builds to make the next one quicker, delete it at any time.
    pub work: PathBuf,
    /// The file to write: a component, or a core module that the host wraps.
    pub component: PathBuf,
    /// Where the tools are.
    pub toolchains: Toolchains,
}

/// The language of a source folder or file; `None` when it is none of ours.
///
/// Files that name a project (`Cargo.toml`, `go.mod`, `package.json`,
/// `requirements.txt`) count before mere sources, so that a helper script
/// beside them does not decide.
pub fn detect(source: &Path) -> Result<Option<Language>, BuildError> {
    // A Rust file is a function by itself only where it is meant: in a folder it
    // needs a Cargo.toml beside it.
    if source.is_file() && source.extension().is_some_and(|extension| extension == "rs") {
        return Ok(Some(Language::Rust));
    }
    let names = tools::file_names(source)?;
    let manifest = |language: &Language| match language {
        Language::Rust => names.has("Cargo.toml"),
        Language::Go => names.has("go.mod"),
        Language::AssemblyScript => assemblyscript::recognises(&names),
        Language::JavaScript => names.has("package.json"),
        Language::Python => names.has("requirements.txt"),
        Language::Zig => names.has("build.zig"),
        Language::Cpp | Language::C => false,
    };
    if let Some(language) = Language::DETECTED.into_iter().find(manifest) {
        return Ok(Some(language));
    }
    Ok(Language::DETECTED.into_iter().find(|language| match language {
        Language::Rust => rust::recognises(&names),
        Language::Go => go::recognises(&names),
        Language::AssemblyScript => assemblyscript::recognises(&names),
        Language::JavaScript => javascript::recognises(&names),
        Language::Python => python::recognises(&names),
        Language::Zig => zig::recognises(&names),
        Language::Cpp => c::recognises_cpp(&names),
        Language::C => c::recognises(&names),
    }))
}

/// Whether a file is source text, rather than one that names a project and its
/// dependencies.
#[must_use]
pub fn is_source(file: &Path) -> bool {
    const EXTENSIONS: [&str; 13] =
        ["rs", "c", "cpp", "cc", "cxx", "go", "zig", "js", "mjs", "ts", "mts", "tsx", "py"];
    let extension = file.extension().and_then(std::ffi::OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// The tools that a language needs and this machine lacks; empty means ready.
pub fn missing(language: Language, toolchains: &Toolchains) -> Vec<MissingTool> {
    match language {
        Language::Rust => rust::missing(toolchains),
        Language::C => c::missing(toolchains),
        Language::Cpp => c::missing_cpp(toolchains),
        Language::Go => go::missing(toolchains),
        Language::Zig => zig::missing(toolchains),
        Language::JavaScript => javascript::missing(toolchains),
        Language::Python => python::missing(toolchains),
        Language::AssemblyScript => assemblyscript::missing(toolchains),
    }
}

/// Builds one function, blocking. Each line the tools print goes to `output`
/// as it comes.
pub fn build(request: &BuildRequest, output: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let missing = missing(request.language, &request.toolchains);
    if !missing.is_empty() {
        return Err(BuildError::ToolsMissing { language: request.language, missing });
    }
    let request = tools::prepare(request)?;
    let built = match request.language {
        Language::Rust => rust::build(&request, output),
        Language::C => c::build(&request, output),
        Language::Cpp => c::build_cpp(&request, output),
        Language::Go => go::build(&request, output),
        Language::Zig => zig::build(&request, output),
        Language::JavaScript => javascript::build(&request, output),
        Language::Python => python::build(&request, output),
        Language::AssemblyScript => assemblyscript::build(&request, output),
    };
    built.map_err(|error| error.or_full_disk(&request.work))?;
    if !request.component.is_file() {
        return Err(BuildError::NoComponent {
            language: request.language,
            expected: request.component,
        });
    }
    Ok(())
}

/// The files and folders, besides the source itself, whose change means a new
/// build: shared modules, dependencies by path, lists of packages. As far as it
/// can be told; some languages know it only of what was built, well or not.
pub fn inputs(request: &BuildRequest) -> Vec<PathBuf> {
    let Ok(request) = tools::absolute_paths(request) else { return Vec::new() };
    let mut inputs = match request.language {
        Language::Rust => rust::inputs(&request),
        Language::C | Language::Cpp => c::inputs(&request),
        Language::Go => go::inputs(&request),
        Language::Zig => zig::inputs(&request),
        Language::JavaScript => javascript::inputs(&request),
        Language::Python => python::inputs(&request),
        Language::AssemblyScript => assemblyscript::inputs(&request),
    };
    inputs.retain(|path| !path.starts_with(&request.source) && !path.starts_with(&request.work));
    inputs.sort();
    inputs.dedup();
    inputs
}

#[cfg(test)]
mod tests;
