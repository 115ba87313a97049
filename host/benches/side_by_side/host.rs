//! Whit: the real binary, with a data folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::http::{self, Client};
use crate::servers::Server;

/// Everything else is as it comes. This bound only ends what is too slow.
const SETTINGS: &str = "compile_time_max = '10m'\n";

/// A running host.
pub(crate) struct Host {
    pub(crate) server: Server,
    pub(crate) folder: PathBuf,
    /// From its start until it said that it is ready.
    pub(crate) start_time: Duration,
    admin: SocketAddr,
    token: String,
}

impl Host {
    /// Starts a host on a data folder, with settings as a configuration file has
    /// them besides [`SETTINGS`].
    pub(crate) fn start(folder: &Path, settings: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = folder.with_extension("toml");
        std::fs::write(&file, format!("{SETTINGS}{settings}"))?;
        let mut command = Command::new(program());
        command
            .args(["serve", "--ready-json", "--until-stdin-ends"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder)
            .arg("--config")
            .arg(&file)
            .env("WHIT_LOG", "warn");
        let started = Instant::now();
        let server = Server::announced(&mut command, |line| address(line, "data"))?;
        let start_time = started.elapsed();
        let admin = address(&server.greeting, "admin").context("no admin address")?;
        let token = std::fs::read_to_string(folder.join("admin.token"))?.trim().to_owned();
        Ok(Self { server, folder: folder.to_owned(), start_time, admin, token })
    }

    /// A connection to the admin API.
    pub(crate) fn admin(&self) -> anyhow::Result<Client> {
        Client::connect(self.admin)
    }

    /// The request that uploads a component.
    pub(crate) fn upload(&self, name: &str, component: &[u8]) -> Vec<u8> {
        let headers = format!("{}Content-Type: application/wasm\r\n", self.authorization());
        http::request("PUT", &format!("/v1/functions/{name}"), &headers, component)
    }

    /// The request for its metrics.
    pub(crate) fn metrics(&self) -> Vec<u8> {
        http::request("GET", "/metrics", &self.authorization(), b"")
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// Deploys a component.
    pub(crate) fn deploy(&self, name: &str, component: &[u8]) -> anyhow::Result<()> {
        deployed(&mut self.admin()?, &self.upload(name, component))
    }
}

/// The host to measure: the one of `WHIT_BENCH_HOST`, else cargo's.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("WHIT_BENCH_HOST")
        .map_or_else(|| env!("CARGO_BIN_EXE_whit").into(), PathBuf::from)
}

/// Sends an upload, which has to be taken.
pub(crate) fn deployed(admin: &mut Client, upload: &[u8]) -> anyhow::Result<()> {
    let response = admin.call(upload)?;
    if response.status != 201 {
        let body = String::from_utf8_lossy(&response.body);
        bail!("a deploy failed with {}: {body}", response.status);
    }
    Ok(())
}

/// An address from the line that a host prints when it is ready.
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let ready: serde_json::Value = serde_json::from_str(line).ok()?;
    ready.get(name)?.as_str()?.strip_prefix("http://")?.parse().ok()
}
