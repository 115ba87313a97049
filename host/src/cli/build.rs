//! `whit build`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{self, RED};
use super::project::{self, Selection};
use super::{Global, UsageError, builder};

/// Arguments of `whit build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    selection: Selection,
    /// Where to put the component; a folder where several functions are built
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Install missing language tools first
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(args: BuildArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let project = project::find(&args.selection)?;
    if let Some(output) = &args.output
        && project.units.len() > 1
        && !output.is_dir()
    {
        let output = output.display();
        anyhow::bail!(UsageError(format!(
            "--output {output}: must be a folder that exists, for several functions"
        )));
    }
    if args.install {
        builder::install_missing(&project.units, global.json).await;
    }
    let (mut built, mut failed) = (Vec::new(), false);
    for unit in &project.units {
        match builder::build(unit, &project, global.json).await {
            Ok(component) => {
                let component = place(component, args.output.as_ref())?;
                if !global.json {
                    output::line(component.display().to_string())?;
                }
                built.push(json!({ "name": unit.name, "component": component }));
            }
            Err(error) => {
                failed = true;
                output::note(format!("{RED}failed{RED:#} {}: {error:#}", unit.name));
                let error = format!("{error:#}");
                built.push(json!({ "name": unit.name, "error": error }));
            }
        }
    }
    if global.json {
        output::document(&built)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Copies the component to where it is wanted.
fn place(component: PathBuf, output: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(output) = output else {
        return Ok(component);
    };
    let target = match component.file_name() {
        Some(name) if output.is_dir() => output.join(name),
        _ => output.clone(),
    };
    std::fs::copy(&component, &target).with_context(|| format!("write {}", target.display()))?;
    Ok(target)
}
