//! `whit dev`: a host for one folder, kept up to date with its source.

mod host;
mod report;
mod session;

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use self::host::Host;
use self::session::Session;
use super::client::DEV_DATA;
use super::project::{self, Selection};
use super::{Global, builder};

/// Arguments of `whit dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    #[command(flatten)]
    selection: Selection,
    /// Where functions answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where the admin API answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin_listen: String,
    /// Install missing language tools first
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(args: DevArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let project = project::find(&args.selection)?;
    if args.install {
        tokio::select! {
            () = builder::install_missing(&project.units, global.json) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    let data = global.data_dir.clone().unwrap_or_else(|| project.root.join(DEV_DATA));
    let mut host = Host::start(&args, &data).await?;
    let worked = tokio::select! {
        worked = Session::work(&args, global, project, &host.ready, &data) => worked,
        ended = host.process.wait() => {
            let status = ended?;
            bail!("the host ended by itself ({status}); what it said stands above");
        }
        interrupted = stop_signal() => interrupted,
    };
    host.stop().await?;
    worked.map(|()| ExitCode::SUCCESS)
}

/// Ctrl-C, or a polite kill.
async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}
