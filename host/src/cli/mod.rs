//! The command line: one file per command. Every command but `serve`, `new`,
//! `build`, `doctor` and `completions` talks to a host, and only through its admin API.

mod build;
mod builder;
mod client;
mod completions;
mod convention;
mod delete;
mod deploy;
mod describe;
mod dev;
mod doctor;
mod invoke;
mod list;
mod logs;
mod new;
mod output;
mod project;
mod revisions;
mod rollback;
mod serve;
mod suggest;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine::{compile, compile_child};

/// A WebAssembly function host: upload a module, call its URL.
#[derive(Debug, Parser)]
#[command(name = "whit", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Print JSON: one document, or one line per item where output goes on
    #[arg(long, global = true)]
    json: bool,
    /// Address of a host's admin API, such as http://10.0.0.5:8081
    #[arg(long, global = true, value_name = "URL", env = "WHIT_HOST", help_heading = "Host")]
    host: Option<String>,
    /// The host's admin token; better given as the environment variable
    #[arg(long, global = true, env = "WHIT_TOKEN", hide_env_values = true, help_heading = "Host")]
    token: Option<String>,
    /// Data folder of the host on this machine [default: ~/.local/share/whit/data]
    #[arg(long, global = true, value_name = "DIR", env = "WHIT_DATA_DIR", help_heading = "Host")]
    data_dir: Option<PathBuf>,
    /// Whether that was a flag, rather than the environment variable.
    #[arg(skip)]
    data_dir_is_flag: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host
    Serve(serve::ServeArgs),
    /// Begin a function in a language of your choice
    New(new::NewArgs),
    /// Run a host for a folder of functions; build, deploy, and redeploy on change
    Dev(dev::DevArgs),
    /// Build functions into components
    Build(build::BuildArgs),
    /// Build functions where needed, and deploy them
    Deploy(deploy::DeployArgs),
    /// Call a function
    Invoke(invoke::InvokeArgs),
    /// List the functions
    List,
    /// Show a function: its routes, limits and revisions
    Describe(describe::DescribeArgs),
    /// Show what a function has written
    Logs(logs::LogsArgs),
    /// List a function's revisions
    Revisions(revisions::RevisionsArgs),
    /// Go back to an earlier revision
    Rollback(rollback::RollbackArgs),
    /// Remove a function with all its revisions
    Delete(delete::DeleteArgs),
    /// Show which languages work on this machine, and get what they lack
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// A mistake in how the command was called: exit code 2, as clap's own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// The process's `main`: 0 for success, 1 for failure, 2 for wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    // With its feature `override` it is the process's `malloc`, once anything of it is
    // linked. By that name it is quicker than as Rust's allocator, whose every call
    // says how to align what any `malloc` aligns so.
    let _ = mimalloc::MiMalloc.version();
    // Before anything else: a compile child confines itself before it does more.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == compile::CHILD_COMMAND) {
        let text = |argument: OsString| argument.to_string_lossy().into_owned();
        return compile_child::main(&arguments.map(text).collect::<Vec<String>>());
    }
    let matches = Cli::command().get_matches();
    let mut cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    cli.global.data_dir_is_flag =
        matches.value_source("data_dir") == Some(ValueSource::CommandLine);
    let json = cli.global.json;
    match run(cli) {
        Ok(code) => code,
        // `whit list | head -1` is no failure.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error, json);
            let usage = error.chain().any(|cause| cause.is::<UsageError>());
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    // A host makes its own runtime, from its configuration.
    if let Command::Serve(args) = command {
        return serve::run(args, &global);
    }
    if let Command::Completions(args) = command {
        return completions::run(&args);
    }
    if let Command::New(args) = command {
        return new::run(&args, &global);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?;
    let result = runtime.block_on(dispatch(command, &global));
    // A build that was interrupted must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(args) => dev::run(args, global).await,
        Command::Build(args) => build::run(args, global).await,
        Command::Deploy(args) => deploy::run(args, global).await,
        Command::Invoke(args) => invoke::run(args, global).await,
        Command::List => list::run(global).await,
        Command::Describe(args) => describe::run(args, global).await,
        Command::Logs(args) => logs::run(args, global).await,
        Command::Revisions(args) => revisions::run(args, global).await,
        Command::Rollback(args) => rollback::run(args, global).await,
        Command::Delete(args) => delete::run(args, global).await,
        Command::Doctor(args) => doctor::run(args, global).await,
        // Handled before there is a runtime.
        Command::Serve(_) | Command::New(_) | Command::Completions(_) => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
