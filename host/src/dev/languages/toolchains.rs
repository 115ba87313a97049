//! Where the tools are, which of them are missing, and how they are got.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::{self, Embedded};
use super::{BuildError, Language};

/// The install scripts, carried in the binary so that a machine with nothing
/// but `whit` can get the rest.
const SCRIPTS: [Embedded; 3] = [
    ("install", include_str!("../../../../guest-sdk/toolchains/install")),
    ("rust-from-debian", include_str!("../../../../guest-sdk/toolchains/rust-from-debian")),
    ("versions", VERSIONS),
];

const VERSIONS: &str = include_str!("../../../../guest-sdk/toolchains/versions");

/// The folder that holds the tools `install` put there: a virtual environment
/// in `python/`, a C compiler in `c/`, npm packages in `javascript/`, and in
/// `rust/` a toolchain where rustup could not download one.
#[derive(Clone, Debug)]
pub struct Toolchains {
    /// The folder.
    pub root: PathBuf,
}

impl Toolchains {
    /// A program of the virtual environment, there or not.
    pub(super) fn python_program(&self, name: &str) -> PathBuf {
        self.root.join("python/bin").join(name)
    }

    /// Whether a PyPI package is there in the pinned version.
    pub(super) fn has_python_package(&self, name: &str, version: &str) -> bool {
        let information = format!("site-packages/{name}-{version}.dist-info");
        fs::read_dir(self.root.join("python/lib"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().join(&information).is_dir())
    }

    /// The zig that compiles C and C++, if it is there in the pinned version.
    pub(super) fn c_compiler(&self) -> Option<PathBuf> {
        let folder = self.root.join("c");
        let information = format!("ziglang-{}.dist-info", version("ZIGLANG_FOR_C"));
        folder.join(information).is_dir().then(|| folder.join("ziglang/zig"))
    }

    /// The folder with `node_modules` in it.
    pub(super) fn javascript(&self) -> PathBuf {
        self.root.join("javascript")
    }

    /// A Rust toolchain that was made from the distribution's packages.
    pub(super) fn rust(&self) -> Option<PathBuf> {
        let folder = self.root.join("rust");
        folder.join("complete").is_file().then_some(folder)
    }
}

/// A pinned version, from the file that `install` reads too.
pub(super) fn version(name: &str) -> &'static str {
    VERSIONS
        .lines()
        .filter_map(|line| line.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
        .unwrap_or_default()
}

/// A tool that a language needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTool {
    /// Its name.
    pub tool: String,
    /// What it is needed for.
    pub why: &'static str,
    /// The command that gets it.
    pub fix: String,
}

impl MissingTool {
    pub(super) fn new(tool: impl Into<String>, why: &'static str, language: Language) -> Self {
        MissingTool { tool: tool.into(), why, fix: format!("whit doctor --install {language}") }
    }
}

impl fmt::Display for MissingTool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is missing ({}); get it by `{}`", self.tool, self.why, self.fix)
    }
}

/// Installs what these languages need. One that fails does not stop the
/// others; the script then ends with a list of what is ready and what is not.
pub fn install(
    languages: &[Language],
    toolchains: &Toolchains,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let scripts =
        tempfile::tempdir().map_err(BuildError::file("make", Path::new("a temporary folder")))?;
    tools::write_all(scripts.path(), &SCRIPTS)?;
    let mut command = Command::new("bash");
    command
        .arg(scripts.path().join("install"))
        .args(languages.iter().map(|language| language.name()))
        .env("WHIT_TOOLCHAINS", &toolchains.root);
    tools::run("the installation of toolchains", &mut command, output)
}
