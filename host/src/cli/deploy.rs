//! `whit deploy`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::client::Client;
use super::output::{self, DIM, GREEN, Progress, RED};
use super::project::{self, Project, Selection, Unit};
use super::{Global, UsageError, builder, suggest};
use crate::admin::types::PublishedView;
use crate::model::ids::FunctionName;
use crate::model::spec::FunctionSpec;

/// Arguments of `whit deploy`.
#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    #[command(flatten)]
    selection: Selection,
    /// Name of the function; where absent, from the whit.toml, file or folder
    #[arg(long)]
    name: Option<FunctionName>,
    /// A JSON file with the function's spec, instead of the one in a whit.toml
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Publish the revision, but leave the traffic where it is
    #[arg(long)]
    no_activate: bool,
    /// Install missing language tools first
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(args: DeployArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut project = project::find(&args.selection)?;
    override_unit(&mut project, &args)?;
    // Before a long build: is there somebody to deploy to?
    let client = Client::find(global)?;
    if args.install {
        builder::install_missing(&project.units, global.json).await;
    }
    let (mut results, mut failed) = (Vec::new(), false);
    let single = project.units.len() == 1 && project.problems.is_empty();
    for unit in &project.units {
        match deploy(unit, &project, &client, !args.no_activate, global.json).await {
            Ok(published) => {
                if !global.json {
                    output::line(describe(&published))?;
                }
                results.push(serde_json::to_value(&published)?);
            }
            // One function is the whole command: its error is the command's.
            Err(error) if single => return Err(error),
            Err(error) => {
                if !global.json {
                    output::note(format!("{RED}failed{RED:#} {}: {error:#}", unit.name));
                }
                results.push(json!({ "name": unit.name, "error": format!("{error:#}") }));
                failed = true;
            }
        }
    }
    for problem in &project.problems {
        failed = true;
        if !global.json {
            output::note(format!("{RED}failed{RED:#} {}: {}", problem.name, problem.error));
        }
        results.push(serde_json::to_value(problem)?);
    }
    if global.json {
        match results.as_slice() {
            [result] => output::document(result)?,
            results => output::document(&results)?,
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn override_unit(project: &mut Project, args: &DeployArgs) -> anyhow::Result<()> {
    if args.name.is_none() && args.spec.is_none() {
        return Ok(());
    }
    let [unit] = project.units.as_mut_slice() else {
        bail!(UsageError(
            "--name and --spec are for one function; choose it with --only NAME".into()
        ));
    };
    if let Some(name) = &args.name {
        unit.name = name.clone();
    }
    if let Some(path) = &args.spec {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let spec = FunctionSpec::from_json(&text).with_context(|| path.display().to_string())?;
        unit.spec = Some(spec);
    }
    Ok(())
}

/// Builds and uploads one function.
pub(super) async fn deploy(
    unit: &Unit,
    project: &Project,
    client: &Client,
    activate: bool,
    quiet: bool,
) -> anyhow::Result<PublishedView> {
    let component = builder::build(unit, project, quiet).await?;
    let _progress = Progress::start(format!("deploying {}", unit.name), quiet);
    client.publish(&unit.name, &component, unit.spec.as_ref(), activate).await
}

/// What people read about a deployed function.
fn describe(published: &PublishedView) -> String {
    let PublishedView { created, revision, function } = published;
    let what = match (created, revision.active) {
        (true, true) => "deployed",
        (true, false) => "published",
        (false, _) => "unchanged",
    };
    let url = if revision.active { &function.url } else { &revision.url };
    format!(
        "{GREEN}{what}{GREEN:#} {} {DIM}revision {}, {}, {}{DIM:#}\n  {}",
        function.name,
        revision.number,
        revision.kind,
        output::size(revision.component_bytes),
        suggest::curl(url),
    )
}
