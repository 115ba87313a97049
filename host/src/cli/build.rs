//! `whit build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::output::{self, DIM, RED};
use super::project::{self, Selection};
use super::{Global, UsageError, builder};
use crate::engine::classify::{self, Form};
use crate::model::function::GuestKind;

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
                let summary = Summary::read(&component)?;
                if !global.json {
                    // The path alone on stdout, for scripts.
                    output::line(shown(&component).display().to_string())?;
                    output::note(summary.text());
                }
                built.push(json!({ "name": unit.name, "component": component, "is": summary }));
            }
            Err(error) => {
                failed = true;
                output::note(format!("{RED}failed{RED:#} {}: {error:#}", unit.name));
                let error = format!("{error:#}");
                built.push(json!({ "name": unit.name, "error": error }));
            }
        }
    }
    for problem in &project.problems {
        failed = true;
        output::note(format!("{RED}failed{RED:#} {}: {}", problem.name, problem.error));
        built.push(serde_json::to_value(problem)?);
    }
    if global.json {
        output::document(&built)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// What a component is and wants, for its author.
#[derive(Serialize)]
struct Summary {
    bytes: u64,
    kind: &'static str,
    imports: Vec<String>,
    needs: Vec<&'static str>,
}

/// Interfaces that do nothing unless a spec grants them something, with what
/// that is.
const GRANTED: [(&str, &str); 2] =
    [("wasi:http/outgoing-handler@", "allow_hosts"), ("wasi:http/client@", "allow_hosts")];

impl Summary {
    fn read(component: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(component).with_context(|| format!("read {}", component.display()))?;
        // What is no guest is told by the host that it is deployed to, which
        // knows more of it; here it is only not described.
        let kind = classify::form(&bytes).and_then(|form| match form {
            Form::Component => classify::kind(&bytes),
            Form::CoreHttp => Ok(GuestKind::Http02),
            Form::CoreCommand => Ok(GuestKind::Cgi01),
        });
        let kind = kind.map_or("no function", GuestKind::as_str);
        let imports = classify::imports(&bytes).unwrap_or_default();
        let imported = |(prefix, _): &&(&str, &'static str)| {
            imports.iter().any(|import| import.starts_with(prefix))
        };
        let needs = GRANTED.iter().find(imported).map(|(_, setting)| *setting);
        let needs = needs.into_iter().collect();
        Ok(Self { bytes: bytes.len() as u64, kind, imports, needs })
    }

    fn text(&self) -> String {
        let needs = match self.needs.as_slice() {
            [] => "needs nothing that has to be granted".to_owned(),
            settings => format!("{} has to name whatever it is to reach", settings.join(", ")),
        };
        let imports = self.imports.join(", ");
        let size = output::size(self.bytes);
        format!("  {DIM}{size}, {}\n  imports {imports}\n  {needs}{DIM:#}", self.kind)
    }
}

/// A path as it is shorter from here.
fn shown(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
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
