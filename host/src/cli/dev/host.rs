//! The host that `whit dev` starts, and ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::DevArgs;
use crate::cli::output;

/// Longest wait for the host to start, and to end.
const HOST_START_MAX: Duration = Duration::from_secs(30);
const HOST_STOP_MAX: Duration = Duration::from_secs(15);

/// The line that `whit serve --ready-json` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) data: String,
    pub(super) admin: String,
}

/// The host, as a process of its own: the same one that runs in production.
pub(super) struct Host {
    pub(super) process: Child,
    /// Held apart: waiting for the process would close it.
    stdin: Option<ChildStdin>,
    pub(super) ready: Ready,
}

impl Host {
    pub(super) async fn start(args: &DevArgs, data: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
        let program = std::env::current_exe().context("find this program's file")?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let mut process = Command::new(program)
            .args(["serve", "--compile-threads", &threads.to_string()])
            .args(["--ready-json", "--until-stdin-ends"])
            .args(["--listen", &args.listen, "--admin-listen", &args.admin_listen])
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; we end the host when we have ended.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start the host")?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("read the host's first line")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(HOST_START_MAX, lines.next_line()).await;
        let first = first.context("the host did not become ready in time")??;
        let Some(first) = first else {
            let status = process.wait().await?;
            bail!("the host did not start ({status}); what it said stands above");
        };
        let ready = serde_json::from_str(&first)
            .with_context(|| format!("the host's first line was {first:?}"))?;
        // What else it prints is nobody's, but must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { process, stdin, ready })
    }

    /// Lets requests in flight finish.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        if tokio::time::timeout(HOST_STOP_MAX, self.process.wait()).await.is_err() {
            output::note("the host did not end in time; it is killed");
            self.process.kill().await?;
        }
        Ok(())
    }
}
