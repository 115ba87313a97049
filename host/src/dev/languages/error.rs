//! Why a build failed, in words that say what to do next.

use std::path::{Path, PathBuf};

use super::{Language, MissingTool};

/// Why a function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{language} cannot be built here: {}", list(missing))]
    ToolsMissing {
        language: Language,
        missing: Vec<MissingTool>,
    },

    /// The tool's own words are in `output`, and were passed on line by line
    /// while it ran; they are not repeated in the message.
    #[error("{tool} failed ({status})")]
    ToolFailed {
        tool: String,
        status: String,
        output: String,
    },

    #[error("cannot start {tool}: {source}")]
    ToolNotStarted {
        tool: String,
        #[source]
        source: std::io::Error,
    },

    #[error("the {language} build ended well but left no component at {}", expected.display())]
    NoComponent {
        language: Language,
        expected: PathBuf,
    },

    /// The source folder is not one that the language's recipe can build.
    #[error("{}: {problem}", folder.display())]
    Source { folder: PathBuf, problem: String },

    #[error("cannot {action} {}: {source}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl BuildError {
    /// For `map_err` on file operations: `BuildError::file("read", path)`.
    pub(super) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| BuildError::File {
            action,
            path,
            source,
        }
    }

    pub(super) fn source(folder: &Path, problem: impl Into<String>) -> Self {
        BuildError::Source {
            folder: folder.to_owned(),
            problem: problem.into(),
        }
    }
}

fn list(missing: &[MissingTool]) -> String {
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
