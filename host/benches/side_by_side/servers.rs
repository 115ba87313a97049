//! The servers that are compared, each in a process of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// For a server to answer its first connection: some compile first.
const START_MAX: Duration = Duration::from_secs(60);
/// For a server to end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running server; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The first line of its output.
    pub(crate) greeting: String,
    /// Those of ours end when this does, however the benchmark ends.
    _stdin: Option<ChildStdin>,
    /// Kept open: a server must not fail for its output.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a program that prints where it answers, in its first line.
    pub(crate) fn announced(
        command: &mut Command,
        address: impl FnOnce(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut child = quiet(command).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("its output")?);
        let mut greeting = String::new();
        let read = stdout.read_line(&mut greeting);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child, address: unknown, greeting, _stdin: stdin, _stdout: Some(stdout) };
        read?;
        server.address = address(server.greeting.trim())
            .with_context(|| format!("{:?} did not start", command.get_program()))?;
        Ok(server)
    }

    /// Starts a program that is told where to answer.
    fn told(command: &mut Command, address: SocketAddr) -> anyhow::Result<Self> {
        let mut child = quiet(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let stdin = child.stdin.take();
        let greeting = String::new();
        let mut server = Self { child, address, greeting, _stdin: stdin, _stdout: None };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{:?} ended: {status}", command.get_program());
            }
            if started.elapsed() > START_MAX {
                bail!("{:?} did not start", command.get_program());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_MAX {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Nobody's environment decides about a figure.
fn quiet(command: &mut Command) -> &mut Command {
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE").env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped())
}

/// Settings of some other host. Ours are given by flags and a file.
fn is_setting(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("WHIT_") && name != "WHIT_LOG")
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where a program is, if it is on the PATH.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("{program} is not on the PATH"))
}

/// This program as the native server: see `native.rs`.
pub(crate) fn native() -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    Server::announced(command.arg(crate::native::ARGUMENT), |line| line.parse().ok())
}

const NODE: &str = r#"
const server = require("node:http").createServer((request, response) => {
  if (request.url === "/json") {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(JSON.parse(Buffer.concat(chunks))));
    });
  } else {
    response.setHeader("content-type", "text/plain");
    response.end("node-http\n");
  }
});
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
"#;

/// `node:http`, warm, without a sandbox.
pub(crate) fn node() -> anyhow::Result<Server> {
    let mut command = Command::new(find("node")?);
    Server::announced(command.args(["-e", NODE]), |line| line.parse().ok())
}

/// What `wasmtime serve` is best told on a kernel with the pagemap ioctl.
pub(crate) const WASMTIME_TUNED: [&str; 4] =
    ["-O", "pooling-pagemap-scan=y", "-O", "pooling-memory-keep-resident=1048576"];

/// `wasmtime serve`, with flags.
pub(crate) fn wasmtime(component: &Path, flags: &[&str]) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(find("wasmtime")?);
    command.arg("serve").args(["-S", "cli=y", "--addr", &address.to_string()]);
    Server::told(command.args(flags).arg(component), address)
}

/// workerd with one worker: one isolate, shared by all requests.
pub(crate) fn workerd(folder: &Path) -> anyhow::Result<Server> {
    let program = find("workerd")?;
    let address = free_address()?;
    let config = folder.join("workerd.capnp");
    let text = format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "hello", worker = .hello)],
  sockets = [(name = "http", address = "{address}", http = (), service = "hello")],
);
const hello :Workerd.Worker = (
  modules = [(name = "hello.js",
    esModule = "export default {{ fetch() {{ return new Response('workerd\\n'); }} }}")],
  compatibilityDate = "2025-01-01",
);
"#
    );
    std::fs::write(&config, text)?;
    Server::told(Command::new(program).arg("serve").arg(config), address)
}
