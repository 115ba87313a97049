//! `whit serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;

use anyhow::Context as _;
use clap::Args;
use tokio::io::AsyncReadExt as _;
use tracing_subscriber::EnvFilter;

use super::{Global, UsageError, output};
use crate::config::{self, Config, Flags};
use crate::server::{self, Addresses};
use crate::shutdown;

/// Arguments of `whit serve`. What is absent comes from the environment, the
/// configuration file, or a default: see [`crate::config`].
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    /// Where functions answer [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// Where the admin API answers [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub(super) admin_listen: Option<String>,
    /// Certificate of the data plane, in PEM; with it and its key, HTTPS is spoken
    #[arg(long, value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// What the process gives up of its own rights: auto, on or off [default: auto]
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "on")]
    pub(super) sandbox: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the line that says where the host answers as JSON
    #[arg(long)]
    pub(super) ready_json: bool,
    /// Check the configuration, print it and where each value comes from, and end
    #[arg(long)]
    pub(super) check: bool,
    /// Processors that one compile may use: `whit dev` has nobody else to leave
    /// them to
    #[arg(long, hide = true)]
    pub(super) compile_threads: Option<String>,
    /// End when standard input does: `whit dev` holds the other end, and takes
    /// its host with it however it ends itself
    #[arg(long, hide = true)]
    pub(super) until_stdin_ends: bool,
}

pub(super) fn run(args: ServeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let config =
        Config::load(&flags(&args, global)).map_err(|error| UsageError(error.to_string()))?;
    if args.check {
        output::line(config.explain().trim_end())?;
        output::line(&server::explain_sandbox(&config)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if config::library_backtraces_are_on() {
        return Err(start_again_without_backtraces());
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(log_filter()).context("read WHIT_LOG")?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Before there are threads: each has its own rights, and those that it
    // starts have them from it.
    let _sandbox = server::confine(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?;
    let ready = |addresses: &Addresses| announce(addresses, args.ready_json || global.json);
    let served = runtime.block_on(async {
        let signalled = shutdown::signalled().context("install the signal handlers")?;
        let stop = async {
            if args.until_stdin_ends {
                tokio::select! {
                    () = signalled => {}
                    () = stdin_ends() => {}
                }
            } else {
                signalled.await;
            }
        };
        server::run(config, ready, stop).await?;
        Ok(ExitCode::SUCCESS)
    });
    // What is left at most waits for standard input, which may never end.
    runtime.shutdown_background();
    served
}

/// What the log shows: of what these crates warn of, clients decide, and none of
/// it is an operator's to mend. Whoever wants it can name them.
fn log_filter() -> String {
    format!("h2=error,hyper=error,rustls=error,{}", config::log_filter())
}

/// With `RUST_BACKTRACE` set, every error that is made and handled on the way
/// of a request would capture a backtrace, which costs 7 % of the throughput.
/// The variable is read once by the standard library and can not be changed
/// safely in a running process: so the process replaces itself. Panics keep
/// their backtraces. Returns only if that failed.
fn start_again_without_backtraces() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "whit".into());
    let error = std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env("RUST_LIB_BACKTRACE", "0")
        .exec();
    anyhow::Error::new(error).context("start again without library backtraces")
}

fn flags(args: &ServeArgs, global: &Global) -> Flags {
    // One from the environment is read there, and `--check` says so.
    let data_dir = global
        .data_dir
        .as_ref()
        .filter(|_| global.data_dir_is_flag)
        .map(|folder| folder.display().to_string());
    let path = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
    let given = [
        ("tls_cert", path(&args.tls_cert)),
        ("tls_key", path(&args.tls_key)),
        ("listen", args.listen.clone()),
        ("admin_listen", args.admin_listen.clone()),
        ("sandbox", args.sandbox.clone()),
        ("data_dir", data_dir),
        ("compile_threads", args.compile_threads.clone()),
    ];
    let settings = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Flags { config: args.config.clone(), settings }
}

/// The one line on standard output: for people, or for programs.
fn announce(addresses: &Addresses, json: bool) {
    let line = if json {
        serde_json::json!({ "data": addresses.data, "admin": addresses.admin }).to_string()
    } else {
        format!("ready: functions at {}, admin API at {}", addresses.data, addresses.admin)
    };
    // Nobody reads it: the host runs all the same.
    let _ = output::line(&line);
}

async fn stdin_ends() {
    let mut byte = [0; 64];
    let mut stdin = tokio::io::stdin();
    while !matches!(stdin.read(&mut byte).await, Ok(0) | Err(_)) {}
}
