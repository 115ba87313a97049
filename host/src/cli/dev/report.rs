//! What `whit dev` says: what became of each function, and what it logs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::host::Ready;
use crate::admin::types::{FunctionView, LogLineView, PublishedView};
use crate::cli::client::Client;
use crate::cli::logs;
use crate::cli::output::{self, BOLD, DIM, GREEN, RED, YELLOW};
use crate::cli::project::{Project, Unit};
use crate::cli::suggest::{curl_lines, readme_line};
use crate::model::ids::FunctionName;

/// Pause before a log that broke off is followed again.
const LOG_RETRY: Duration = Duration::from_secs(1);

/// Lines for people, or events in JSON.
pub(super) struct Report {
    json: bool,
    client: Client,
    /// What answers now.
    deployed: BTreeMap<FunctionName, FunctionView>,
    /// Whose logs are shown already.
    followed: BTreeSet<FunctionName>,
    logs: JoinSet<()>,
}

impl Report {
    pub(super) fn new(json: bool, client: Client) -> Self {
        let (deployed, followed, logs) = (BTreeMap::new(), BTreeSet::new(), JoinSet::new());
        Self { json, client, deployed, followed, logs }
    }

    fn event(
        &self,
        event: &str,
        detail: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            return output::json_line(&json!({ "event": event, event: detail }));
        }
        Ok(output::line(human())?)
    }

    pub(super) fn ready(&self, ready: &Ready) -> anyhow::Result<()> {
        self.event("ready", ready, || format!("{BOLD}host{BOLD:#} {}", ready.data))
    }

    /// Whether this session has deployed it.
    pub(super) fn has_deployed(&self, name: &FunctionName) -> bool {
        self.deployed.contains_key(name)
    }

    pub(super) fn deployed(&mut self, published: PublishedView) -> anyhow::Result<()> {
        let function = &published.function;
        self.event("deployed", &published, || {
            let what = if published.created { "deployed" } else { "unchanged" };
            let number = published.revision.number;
            format!(
                "{GREEN}{what:>9}{GREEN:#} {} {DIM}revision {number}{DIM:#} {}",
                function.name, function.url
            )
        })?;
        let name: FunctionName = function.name.parse()?;
        self.deployed.insert(name.clone(), published.function);
        if self.followed.insert(name.clone()) {
            self.logs.spawn(show_logs(self.client.clone(), name, self.json));
        }
        Ok(())
    }

    pub(super) fn removed(&mut self, name: &FunctionName) -> anyhow::Result<()> {
        self.deployed.remove(name);
        self.event("removed", &json!({ "name": name }), || {
            format!("{YELLOW}  removed{YELLOW:#} {name}")
        })
    }

    pub(super) fn skipped(&self, unit: &Unit, reason: &str) -> anyhow::Result<()> {
        let detail = json!({ "name": unit.name, "reason": reason });
        self.event("skipped", &detail, || {
            format!("{YELLOW}  skipped{YELLOW:#} {} {DIM}{reason}{DIM:#}", unit.name)
        })
    }

    pub(super) fn failed(
        &self,
        name: Option<&FunctionName>,
        error: &anyhow::Error,
    ) -> anyhow::Result<()> {
        let error = format!("{error:#}");
        let still = name.and_then(|name| self.deployed.get(name)).and_then(|held| held.active);
        let detail = json!({ "name": name, "error": error, "still_active": still });
        self.event("failed", &detail, || {
            let name = name.map(|name| format!(" {name}")).unwrap_or_default();
            let still = still
                .map(|number| format!("\n          revision {number} keeps answering"))
                .unwrap_or_default();
            format!("{RED}   failed{RED:#}{name} {error}{still}")
        })
    }

    /// What to do now: last on the terminal, until something happens.
    pub(super) fn summary(&self, project: &Project, may_install: bool) -> anyhow::Result<()> {
        if self.json {
            let names: Vec<&FunctionName> = self.deployed.keys().collect();
            return output::json_line(&json!({ "event": "watching", "watching": names }));
        }
        let root = project.root.display();
        output::line(format!("{DIM} watching {root}; Ctrl-C ends{DIM:#}"))?;
        let lines = |function: &FunctionView| {
            let built = project.units.iter().find(|unit| unit.name.as_str() == function.name);
            let line = built.and_then(|unit| readme_line(function, unit.place()));
            line.map_or_else(|| curl_lines(function), |line| vec![line])
        };
        let all: Vec<String> = self.deployed.values().flat_map(lines).collect();
        if all.is_empty() {
            let hint = if may_install { "" } else { ", or let --install get the tools" };
            return Ok(output::line(format!("nothing answers yet: mend what failed above{hint}"))?);
        }
        output::line("")?;
        output::line(all.join("\n"))?;
        Ok(())
    }
}

/// Shows what a function writes, for as long as the host runs.
async fn show_logs(client: Client, name: FunctionName, json: bool) {
    loop {
        let show = |line: LogLineView| {
            if json {
                return output::json_line(&json!({ "event": "log", "log": line }));
            }
            let text = logs::text(&line);
            Ok(output::line(format!("{DIM}{} |{DIM:#} {text}", line.function))?)
        };
        // A function that was deleted, or a host that stops: tried again until
        // the session ends.
        let _ = logs::follow(&client, &name, 0, None, true, show).await;
        tokio::time::sleep(LOG_RETRY).await;
    }
}
