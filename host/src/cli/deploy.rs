//! `whit deploy`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::client::Client;
use super::output::{self, DIM, GREEN, Progress, RED};
use super::project::{self, Project, Selection, Unit};
use super::{Global, UsageError, builder};
use crate::admin::types::{FunctionView, PublishedView};
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
    let (mut results, mut failed) = (Vec::new(), None);
    let single = project.units.len() == 1;
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
                failed = Some(unit.name.clone());
            }
        }
    }
    if global.json {
        match results.as_slice() {
            [result] => output::json(result)?,
            results => output::json(&results)?,
        }
    }
    Ok(ExitCode::from(u8::from(failed.is_some())))
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
    client
        .publish(&unit.name, &component, unit.spec.as_ref(), activate)
        .await
}

/// What people read about a deployed function.
fn describe(published: &PublishedView) -> String {
    let PublishedView {
        created,
        revision,
        function,
    } = published;
    let what = match (created, revision.active) {
        (true, true) => "deployed",
        (true, false) => "published",
        (false, _) => "unchanged",
    };
    let url = if revision.active {
        &function.url
    } else {
        &revision.url
    };
    format!(
        "{GREEN}{what}{GREEN:#} {} {DIM}revision {}, {}, {}{DIM:#}\n  {}",
        function.name,
        revision.number,
        revision.kind,
        output::size(revision.component_bytes),
        curl(url),
    )
}

/// A line to try: the function's own URL.
pub(super) fn curl(url: &str) -> String {
    format!("curl {url}")
}

/// Lines to try for a function: its own URL, and each route that it declares.
pub(super) fn curl_lines(function: &FunctionView) -> Vec<String> {
    let mut lines = vec![curl(&function.url)];
    let Some(revision) = &function.revision else {
        return lines;
    };
    let origin = function
        .url
        .split('/')
        .take(3)
        .collect::<Vec<_>>()
        .join("/");
    for route in &revision.spec.routes {
        let method = match route.method.as_deref() {
            None | Some("GET") => String::new(),
            Some(method) => format!("-X {method} "),
        };
        let host = route
            .authority
            .as_deref()
            .map_or_else(String::new, |host| format!("-H 'Host: {host}' "));
        let path: String = route
            .segments
            .iter()
            .map(|segment| format!("/{}", example(segment)))
            .collect();
        lines.push(format!("curl {method}{host}{origin}{path}"));
    }
    lines
}

fn example(segment: &crate::model::route::Segment) -> String {
    use crate::model::route::Segment;
    match segment {
        Segment::Literal(text) => text.to_string(),
        Segment::Parameter(name) => name.to_uppercase(),
        Segment::Wildcard(name) if name.is_empty() => String::new(),
        Segment::Wildcard(name) => name.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_become_lines_to_try() {
        let spec = r#"{"routes":["/plain","POST /resize/{width}","api.example.com/*"]}"#;
        let spec = FunctionSpec::from_json(spec.as_bytes()).unwrap();
        let limits = spec.limits().into();
        let function = FunctionView {
            tenant: "default".into(),
            name: "a".into(),
            url: "http://127.0.0.1:8080/a/".into(),
            active: Some(1),
            previous: None,
            revisions: 1,
            revision: Some(crate::admin::types::RevisionView {
                number: 1,
                active: true,
                url: String::new(),
                kind: "http-0.2".into(),
                digest: String::new(),
                component_bytes: 0,
                created_unix_ms: 0,
                spec,
                limits,
            }),
        };
        assert_eq!(
            curl_lines(&function),
            [
                "curl http://127.0.0.1:8080/a/",
                "curl http://127.0.0.1:8080/plain",
                "curl -X POST http://127.0.0.1:8080/resize/WIDTH",
                "curl -H 'Host: api.example.com' http://127.0.0.1:8080/",
            ]
        );
    }
}
