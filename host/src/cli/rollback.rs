//! `whit rollback`.

use std::process::ExitCode;

use clap::Args;

use super::Global;
use super::client::Client;
use super::output::{self, GREEN};
use crate::model::ids::{FunctionName, RevisionNumber};

/// Arguments of `whit rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Name of the function
    name: FunctionName,
    /// The revision to go back to [default: the one that was active before]
    revision: Option<RevisionNumber>,
}

pub(super) async fn run(args: RollbackArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let revision = args.revision.map(|number| number.0);
    let function = Client::find(global)?.roll_back(&args.name, revision).await?;
    if global.json {
        output::document(&function)?;
    } else {
        let now = function.active.map_or_else(|| "none".to_owned(), |number| number.to_string());
        let text =
            format!("{GREEN}rolled back{GREEN:#} {}: revision {now} is active", function.name);
        output::line(text)?;
    }
    Ok(ExitCode::SUCCESS)
}
