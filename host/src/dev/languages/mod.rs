//! The languages that `whit build` knows: how a folder is recognised, what its
//! tools are, how it becomes a component, and how the tools are installed.
//!
//! Each language is one file with the same three functions: `recognises`,
//! `missing` and `build`. A build never writes into the source folder: what it
//! needs for itself goes into [`BuildRequest::work`], which may be kept between
//! builds to make the next one quicker.

mod c;
mod error;
mod go;
mod javascript;
mod python;
mod rust;
mod toolchains;
mod tools;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use error::BuildError;
pub use toolchains::{MissingTool, Toolchains, install};

/// A language with a built-in recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// A component (a library crate) or a CGI program (a binary crate).
    Rust,
    /// A CGI program.
    C,
    /// A CGI program, by `net/http/cgi`.
    Go,
    /// A component: `BaseHTTPRequestHandler` or WSGI.
    Python,
    /// A component: a `fetch` handler. TypeScript too.
    JavaScript,
}

impl Language {
    /// Every language. Also the order in which a folder is tried: one with
    /// both a `Cargo.toml` and a `package.json` is Rust with a web page in it.
    pub const ALL: [Language; 5] =
        [Language::Rust, Language::Go, Language::JavaScript, Language::Python, Language::C];

    /// The name in `whit.toml` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::Go => "go",
            Language::Python => "python",
            Language::JavaScript => "javascript",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no language here.
#[derive(Debug, thiserror::Error)]
#[error("unknown language `{name}`; known are rust, c, go, python and javascript")]
pub struct UnknownLanguage {
    /// What was given.
    pub name: String,
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "rust" | "rs" => Ok(Language::Rust),
            "c" => Ok(Language::C),
            "go" | "golang" => Ok(Language::Go),
            "python" | "py" => Ok(Language::Python),
            "javascript" | "js" | "typescript" | "ts" => Ok(Language::JavaScript),
            _ => Err(UnknownLanguage { name: name.to_owned() }),
        }
    }
}

/// One function to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Whose recipe to follow.
    pub language: Language,
    /// The function's folder, or its one source file.
    pub source: PathBuf,
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
    let names = tools::file_names(source)?;
    let manifest = |language: &Language| match language {
        Language::Rust => names.has("Cargo.toml"),
        Language::Go => names.has("go.mod"),
        Language::JavaScript => names.has("package.json"),
        Language::Python => names.has("requirements.txt"),
        Language::C => false,
    };
    if let Some(language) = Language::ALL.into_iter().find(manifest) {
        return Ok(Some(language));
    }
    Ok(Language::ALL.into_iter().find(|language| match language {
        Language::Rust => rust::recognises(&names),
        Language::Go => go::recognises(&names),
        Language::JavaScript => javascript::recognises(&names),
        Language::Python => python::recognises(&names),
        Language::C => c::recognises(&names),
    }))
}

/// The tools that a language needs and this machine lacks; empty means ready.
pub fn missing(language: Language, toolchains: &Toolchains) -> Vec<MissingTool> {
    match language {
        Language::Rust => rust::missing(toolchains),
        Language::C => c::missing(toolchains),
        Language::Go => go::missing(toolchains),
        Language::Python => python::missing(toolchains),
        Language::JavaScript => javascript::missing(toolchains),
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
    match request.language {
        Language::Rust => rust::build(&request, output)?,
        Language::C => c::build(&request, output)?,
        Language::Go => go::build(&request, output)?,
        Language::Python => python::build(&request, output)?,
        Language::JavaScript => javascript::build(&request, output)?,
    }
    if !request.component.is_file() {
        return Err(BuildError::NoComponent {
            language: request.language,
            expected: request.component,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
