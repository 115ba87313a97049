//! `whit describe`.

use std::process::ExitCode;

use clap::Args;

use super::Global;
use super::client::Client;
use super::output::{self, BOLD, DIM};
use super::suggest::curl_lines;
use crate::admin::types::{FunctionView, RevisionView};
use crate::model::ids::FunctionName;
use crate::model::quantity::{ByteSize, Millis};

/// Arguments of `whit describe`.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// Name of the function
    name: FunctionName,
}

pub(super) async fn run(args: DescribeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let function = Client::find(global)?.function(&args.name).await?;
    if global.json {
        output::document(&function)?;
    } else {
        output::line(describe(&function))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(function: &FunctionView) -> String {
    let mut lines = vec![format!("{BOLD}{}{BOLD:#}  {}", function.name, function.url)];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<14} {value}"));
    let number = |number: Option<u32>| number.map_or_else(|| "none".into(), |n| n.to_string());
    let previous = function.previous.map(|n| format!(", before it {n}")).unwrap_or_default();
    row("active", format!("{} of {}{previous}", number(function.active), function.revisions));
    if let Some(revision) = &function.revision {
        describe_revision(revision, &mut row);
    }
    for line in curl_lines(function) {
        lines.push(format!("  {DIM}{line}{DIM:#}"));
    }
    lines.join("\n")
}

fn describe_revision(revision: &RevisionView, row: &mut impl FnMut(&str, String)) {
    row("kind", revision.kind.clone());
    row("component", format!("{} ({})", output::size(revision.component_bytes), revision.digest));
    row("deployed", format!("{} UTC", output::time(revision.created_unix_ms)));
    for route in &revision.spec.routes {
        row("route", route.to_string());
    }
    let limits = &revision.limits;
    row("timeout", Millis(limits.timeout_ms).to_string());
    row("cpu", Millis(limits.cpu_ms).to_string());
    row("memory", ByteSize(limits.memory_bytes_max).to_string());
    row("request body", ByteSize(limits.request_body_bytes_max).to_string());
    row("response body", ByteSize(limits.response_body_bytes_max).to_string());
    row("logs", ByteSize(limits.log_bytes_max).to_string());
    row("concurrency", limits.concurrency.to_string());
    for (name, value) in &revision.spec.env {
        row("env", format!("{name}={value}"));
    }
    for host in &revision.spec.allow_hosts {
        row("may call", host.to_string());
    }
}
