//! `whit dev`, for a folder.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command;
use crate::http::{Connection, Request};
use crate::wait::{eventually, eventually_within};

/// Longest wait for the first build of a function, on a busy machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(300);

/// A running `whit dev`, and the address of its host.
#[derive(Debug)]
pub struct Dev {
    process: Child,
    address: String,
    said: Arc<Mutex<String>>,
    /// Of it, what goes to standard output.
    printed: Arc<Mutex<String>>,
}

impl Dev {
    /// Starts it for a folder, which also gets its data.
    ///
    /// # Panics
    /// When its host does not start.
    #[must_use]
    pub fn start(binary: &str, folder: &Path) -> Self {
        Self::start_with_data(binary, folder, &folder.join(".whit/data"))
    }

    /// As [`Self::start`], with its data elsewhere.
    ///
    /// # Panics
    /// When its host does not start.
    #[must_use]
    pub fn start_with_data(binary: &str, folder: &Path, data: &Path) -> Self {
        let mut dev = command::command(binary, data);
        dev.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        dev.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = dev.spawn().expect("start");
        let (said, printed) = (Arc::default(), Arc::default());
        collect(
            process.stdout.take().expect("stdout"),
            vec![Arc::clone(&said), Arc::clone(&printed)],
        );
        collect(process.stderr.take().expect("stderr"), vec![Arc::clone(&said)]);
        let address = eventually("the host of dev", || {
            let addresses = fs::read(data.join("host.json")).ok()?;
            let addresses: Value = serde_json::from_slice(&addresses).ok()?;
            Some(addresses["data"].as_str()?.strip_prefix("http://")?.to_owned())
        });
        Self { process, address, said, printed }
    }

    /// Waits until `GET path` is answered so.
    ///
    /// # Panics
    /// When that does not come.
    #[track_caller]
    pub fn answers(&self, path: &str, status: u16, text: &str) {
        let is_so = || {
            let mut connection = Connection::try_open(&self.address).ok()?;
            let answer = connection.call(&Request::get(path));
            (answer.status() == status && answer.text().contains(text)).then_some(())
        };
        eventually(&format!("{path} answers {status} {text}"), is_so);
    }

    /// Waits until it has said this.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let has = || self.output().contains(text).then_some(());
        eventually(&format!("dev says {text:?}"), has);
    }

    /// Waits until it has built all that is there, and what it printed until then.
    ///
    /// # Panics
    /// When that takes longer than builds do.
    #[must_use]
    #[track_caller]
    pub fn is_ready(&self) -> String {
        eventually_within(BUILD_PATIENCE, "dev sums up", || {
            let printed = self.printed.lock().expect("what it printed");
            let (_, summary) = printed.split_once("Ctrl-C ends\n")?;
            summary.contains("curl ").then(|| printed.clone())
        })
    }

    /// Where its functions answer.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has said so far.
    ///
    /// # Panics
    /// When another thread has, while it read.
    #[must_use]
    pub fn output(&self) -> String {
        self.said.lock().expect("what it said").clone()
    }

    /// Ends it as Ctrl-C would.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn end(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("tell it to end");
        assert!(self.process.wait().expect("its end").success(), "{}", self.output());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- whit dev ---\n{}--- end of whit dev ---", self.output());
        }
    }
}

/// A pipe that a build command waits at, until a test lets it go on.
#[derive(Debug)]
pub struct Gate(tempfile::TempDir);

impl Gate {
    /// Makes one, closed.
    ///
    /// # Panics
    /// When it can not be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> Self {
        let gate = Self(tempfile::tempdir().expect("a folder"));
        gate.close();
        gate
    }

    /// Puts a pipe there that nobody stands at.
    fn close(&self) {
        let new = self.0.path().join("new");
        let made = Command::new("mkfifo").arg(&new).status();
        assert!(made.expect("mkfifo").success());
        fs::rename(new, self.path()).expect("rename it");
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("gate")
    }

    /// A manifest of one function, whose build waits at the gate and then takes
    /// `source.wasm`.
    #[must_use]
    pub fn manifest(&self, name: &str) -> String {
        let gate = self.path();
        let build = format!("cat {} && cp source.wasm built.wasm", gate.display());
        format!("[functions.{name}]\nbuild = \"{build}\"\ncomponent = \"built.wasm\"\n")
    }

    /// Waits until a build stands at the gate. It goes on when this is dropped.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    #[track_caller]
    pub fn reached(&self) -> fs::File {
        let mut options = fs::OpenOptions::new();
        // Without a reader this fails at once, instead of waiting without a limit.
        options.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let build = eventually("a build at the gate", || options.open(self.path()).ok());
        // The next one that is waited for is another one.
        self.close();
        build
    }
}

fn collect(output: impl Read + Send + 'static, into: Vec<Arc<Mutex<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            for said in &into {
                said.lock().expect("what it said").extend([&line, "\n"]);
            }
        }
    });
}

/// Writes a file whole or not at all, as editors save.
///
/// # Panics
/// When it can not be written.
pub fn save(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
    let saved = path.with_extension("saved~");
    fs::write(&saved, content).expect("write");
    fs::rename(saved, path).expect("rename");
}
