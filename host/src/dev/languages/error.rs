//! Why a build failed, in words that say what to do next.

use std::path::{Path, PathBuf};

use super::{Language, MissingTool};

/// Why a function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Tools are missing; the text says how each is got.
    #[error("{language} cannot be built here: {}", list(missing))]
    ToolsMissing {
        /// What was to be built.
        language: Language,
        /// What is missing.
        missing: Vec<MissingTool>,
    },

    /// The tool's own words are in `output`, and were passed on line by line
    /// while it ran; they are not repeated in the message.
    #[error("{tool} failed ({status}); its words are above: correct what they name, and try again")]
    ToolFailed {
        /// The program.
        tool: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },

    /// The tool's own words say so, or the disk does.
    #[error(
        "{tool} failed because a disk is full; make room where the project and the temporary \
         files are, and try again"
    )]
    DiskFull {
        /// The program.
        tool: String,
    },

    /// The tool is there and can not be run.
    #[error("cannot start {tool}: {source}")]
    ToolNotStarted {
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// The tools were content, but the result is not there.
    #[error("the {language} build ended well but left no component at {}", expected.display())]
    NoComponent {
        /// What was built.
        language: Language,
        /// Where the result should be.
        expected: PathBuf,
    },

    /// The source folder is not one that the language's recipe can build.
    #[error("{}: {problem}", folder.display())]
    Source {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// In the form of "cannot {action}".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl BuildError {
    /// The reason behind a tool's failure, if it is a disk without room: tools say
    /// that in many ways, and some only abort.
    pub(super) fn or_full_disk(self, work: &Path) -> Self {
        // As the C library, zig and Node.js call it.
        const DISK_FULL: [&str; 3] = ["No space left on device", "NoSpaceLeft", "ENOSPC"];
        // No build succeeds with less.
        const FREE_BYTES_MIN: u64 = 1 << 20;
        let BuildError::ToolFailed { tool, output, .. } = &self else { return self };
        let free = rustix::fs::statvfs(work).map(|disk| disk.f_bavail * disk.f_frsize);
        let is_full = free.is_ok_and(|free| free < FREE_BYTES_MIN);
        match is_full || DISK_FULL.iter().any(|words| output.contains(words)) {
            true => BuildError::DiskFull { tool: tool.clone() },
            false => self,
        }
    }

    /// For `map_err` on file operations: `BuildError::file("read", path)`.
    pub(super) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| BuildError::File { action, path, source }
    }

    pub(super) fn source(folder: &Path, problem: impl Into<String>) -> Self {
        BuildError::Source { folder: folder.to_owned(), problem: problem.into() }
    }
}

fn list(missing: &[MissingTool]) -> String {
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
