//! `whit revisions`.

use std::process::ExitCode;

use clap::Args;

use super::Global;
use super::client::Client;
use super::output;
use crate::model::ids::FunctionName;

/// Arguments of `whit revisions`.
#[derive(Debug, Args)]
pub(super) struct RevisionsArgs {
    /// Name of the function
    name: FunctionName,
}

pub(super) async fn run(args: RevisionsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let revisions = Client::find(global)?.revisions(&args.name).await?;
    if global.json {
        output::document(&revisions)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = revisions
        .iter()
        .map(|revision| {
            vec![
                revision.number.to_string(),
                if revision.active { "active" } else { "" }.to_owned(),
                revision.kind.clone(),
                output::size(revision.component_bytes),
                output::time(revision.created_unix_ms),
                revision.digest.chars().take(19).collect(),
            ]
        })
        .collect();
    let heading = ["REVISION", "TRAFFIC", "KIND", "SIZE", "DEPLOYED (UTC)", "DIGEST"];
    output::line(output::table(&heading, &rows))?;
    Ok(ExitCode::SUCCESS)
}
