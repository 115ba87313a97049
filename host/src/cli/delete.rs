//! `whit delete`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Global;
use super::client::Client;
use super::output::{self, GREEN};
use crate::model::ids::FunctionName;

/// Arguments of `whit delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Name of the function
    name: FunctionName,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: DeleteArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global)?;
    if !args.yes && !global.json && io::stdin().is_terminal() {
        let function = client.function(&args.name).await?;
        let question =
            format!("Delete {} with its {} revisions? [y/N] ", args.name, function.revisions);
        if !confirmed(&question)? {
            output::note("nothing was deleted");
            return Ok(ExitCode::FAILURE);
        }
    }
    client.delete(&args.name).await?;
    if global.json {
        output::document(&json!({ "deleted": args.name }))?;
    } else {
        output::line(format!("{GREEN}deleted{GREEN:#} {}", args.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed(question: &str) -> io::Result<bool> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
