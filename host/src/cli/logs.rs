//! `whit logs`.

use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;

use super::Global;
use super::client::Client;
use super::output::{self, DIM, YELLOW};
use crate::admin::types::LogLineView;
use crate::model::ids::{FunctionName, InvocationId};

/// Arguments of `whit logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Name of the function
    name: FunctionName,
    /// Go on with new lines as they are written
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: u32,
    /// Only the lines of this request: its X-Request-Id
    #[arg(long, value_name = "ID")]
    request_id: Option<InvocationId>,
}

pub(super) async fn run(args: LogsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global)?;
    let json = global.json;
    let request_id = args.request_id.map(|id| id.to_string());
    let show = follow(&client, &args.name, args.lines, request_id, args.follow, |line| {
        if json { output::json_line(&line) } else { Ok(output::line(format_line(&line))?) }
    });
    tokio::select! {
        shown = show => shown?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands each line of a function's log to `show`.
pub(super) async fn follow(
    client: &Client,
    name: &FunctionName,
    lines: u32,
    request_id: Option<String>,
    follow: bool,
    mut show: impl FnMut(LogLineView) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut pieces = pin!(client.logs(name, lines, request_id.as_deref(), follow).await?);
    let mut splitter = Lines::default();
    while let Some(piece) = pieces.next().await {
        for line in splitter.push(&piece?) {
            show(serde_json::from_slice(&line)?)?;
        }
    }
    Ok(())
}

/// Puts the lines of an NDJSON stream together again.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let Some(last) = memchr::memrchr(b'\n', &self.0) else {
            return Vec::new();
        };
        let rest = self.0.split_off(last + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        whole
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }
}

/// A line for people: time, revision, the request's first digits, the text.
fn format_line(line: &LogLineView) -> String {
    let time = output::time_of_day(line.unix_ms);
    let revision = line.revision.map(|number| format!("r{number}")).unwrap_or_default();
    // The end of the id is random; its beginning is the time.
    let request = line.invocation.as_deref().unwrap_or_default();
    let request = request.get(request.len().saturating_sub(8)..).unwrap_or_default();
    format!("{DIM}{time} {revision} {request}{DIM:#} {}", text(line))
}

/// The text; the host's own words stand out.
pub(super) fn text(line: &LogLineView) -> String {
    match line.stream.as_str() {
        "host" => format!("{YELLOW}{}{YELLOW:#}", line.text),
        _ => line.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\n{\"b\":2}\n{"), [&b"{\"a\":1}"[..], b"{\"b\":2}"]);
        assert_eq!(lines.push(b"}\n"), [b"{}"]);
    }
}
