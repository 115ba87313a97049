//! The command line, run to its end.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Checks that it succeeded, and returns what it printed.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// Checks that it failed with this exit code, and returns what it complained.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.stderr
    }

    /// Checks that it succeeded, and reads what it printed as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.succeeded();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A `whit` command that finds its host through the data folder, as on the same
/// machine, and nothing through the tester's own environment.
#[must_use]
pub fn command(binary: &str, data: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHIT_")) {
        if name != "WHIT_TOOLCHAINS" {
            command.env_remove(name);
        }
    }
    command.env("WHIT_DATA_DIR", data).env("RUST_LIB_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
///
/// # Panics
/// When it can not be started.
pub fn run(command: &mut Command) -> Ran {
    command.output().expect("start whit").into()
}
