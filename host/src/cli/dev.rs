//! `whit dev`: a host for one folder, kept up to date with its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use super::client::{Client, DEV_DATA};
use super::deploy::deploy;
use super::output::{self, BOLD, DIM, GREEN, RED, YELLOW};
use super::project::{self, Origin, Problem, Project, Selection, Unit};
use super::suggest::{curl_lines, readme_line};
use super::{Global, builder, logs};
use crate::admin::types::{FunctionView, PublishedView};
use crate::dev::languages::Language;
use crate::dev::watch::{Watcher, fingerprint_of_all};
use crate::model::ids::FunctionName;

/// Longest wait for the host to start, and to end.
const HOST_START_MAX: Duration = Duration::from_secs(30);
const HOST_STOP_MAX: Duration = Duration::from_secs(15);
/// Builds at the same time. Most tools use one core for most of their time.
const BUILDS_MAX: usize = 2;
/// Pause before a log that broke off is followed again.
const LOG_RETRY: Duration = Duration::from_secs(1);

/// Arguments of `whit dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    #[command(flatten)]
    selection: Selection,
    /// Where functions answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where the admin API answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin_listen: String,
    /// Install missing language tools first
    #[arg(long)]
    install: bool,
}

/// The line that `whit serve --ready-json` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    data: String,
    admin: String,
}

pub(super) async fn run(args: DevArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let project = project::find(&args.selection)?;
    if args.install {
        tokio::select! {
            () = builder::install_missing(&project.units, global.json) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    let data = global.data_dir.clone().unwrap_or_else(|| project.root.join(DEV_DATA));
    let mut host = Host::start(&args, &data).await?;
    let worked = tokio::select! {
        worked = Session::work(&args, global, project, &host.ready, &data) => worked,
        ended = host.process.wait() => {
            let status = ended?;
            bail!("the host ended by itself ({status}); what it said stands above");
        }
        interrupted = stop_signal() => interrupted,
    };
    host.stop().await?;
    worked.map(|()| ExitCode::SUCCESS)
}

/// Ctrl-C, or a polite kill.
async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

/// The host, as a process of its own: the same one that runs in production.
struct Host {
    process: Child,
    /// Held apart: waiting for the process would close it.
    stdin: Option<ChildStdin>,
    ready: Ready,
}

impl Host {
    async fn start(args: &DevArgs, data: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
        let program = std::env::current_exe().context("find this program's file")?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let mut process = Command::new(program)
            .args(["serve", "--compile-threads", &threads.to_string()])
            .args(["--ready-json", "--until-stdin-ends"])
            .args(["--listen", &args.listen, "--admin-listen", &args.admin_listen])
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; we end the host when we have ended.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start the host")?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("read the host's first line")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(HOST_START_MAX, lines.next_line()).await;
        let first = first.context("the host did not become ready in time")??;
        let Some(first) = first else {
            let status = process.wait().await?;
            bail!("the host did not start ({status}); what it said stands above");
        };
        let ready = serde_json::from_str(&first)
            .with_context(|| format!("the host's first line was {first:?}"))?;
        // What else it prints is nobody's, but must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { process, stdin, ready })
    }

    /// Lets requests in flight finish.
    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        if tokio::time::timeout(HOST_STOP_MAX, self.process.wait()).await.is_err() {
            output::note("the host did not end in time; it is killed");
            self.process.kill().await?;
        }
        Ok(())
    }
}

/// What was built last of a unit, whether or not it worked.
struct Built {
    unit: Unit,
    /// What it is made of besides its own place.
    inputs: Vec<PathBuf>,
    source: Option<blake3::Hash>,
}

impl Built {
    /// The fingerprint of all that it is made of, as it is now.
    fn fingerprint(unit: &Unit, inputs: &[PathBuf]) -> Option<blake3::Hash> {
        // What a build command leaves may lie among its sources.
        let result = match &unit.origin {
            Origin::Command { component, .. } => Some(component.as_path()),
            _ => None,
        };
        let inputs = inputs.iter().map(PathBuf::as_path).filter(|path| path.exists());
        let places: Vec<&Path> = [unit.place()].into_iter().chain(inputs).collect();
        fingerprint_of_all(&places, result).ok()
    }
}

/// Building, deploying, watching, showing logs.
struct Session<'a> {
    args: &'a DevArgs,
    watcher: Watcher,
    json: bool,
    client: Client,
    built: BTreeMap<FunctionName, Built>,
    deployed: BTreeMap<FunctionName, FunctionView>,
    /// What was wrong with the folder when it was last looked at: said once.
    problems: Vec<Problem>,
    /// Whose logs are shown already.
    followed: BTreeSet<FunctionName>,
    logs: JoinSet<()>,
}

impl<'a> Session<'a> {
    /// Goes on until it is dropped.
    async fn work(
        args: &'a DevArgs,
        global: &Global,
        project: Project,
        ready: &Ready,
        data: &Path,
    ) -> anyhow::Result<()> {
        let token = std::fs::read_to_string(data.join("admin.token"))
            .with_context(|| format!("read the token in {}", data.display()))?;
        let client = Client::new(&ready.admin, Some(token.trim().to_owned()))?;
        // Before the first build, which may take minutes: what is saved
        // meanwhile is built next.
        let watcher = Watcher::new(&project.root)
            .with_context(|| format!("watch {}", project.root.display()))?;
        let mut session = Self {
            args,
            watcher,
            json: global.json,
            client,
            built: BTreeMap::new(),
            deployed: BTreeMap::new(),
            problems: Vec::new(),
            followed: BTreeSet::new(),
            logs: JoinSet::new(),
        };
        session.event("ready", ready, || format!("{BOLD}host{BOLD:#} {}", ready.data))?;
        session.remove_strangers(&project).await?;
        session.update(&project).await?;
        session.summary(&project)?;
        loop {
            session.watcher.changed().await;
            match project::find(&args.selection) {
                Ok(project) => session.update(&project).await?,
                // Half-written manifests are part of editing.
                Err(error) => session.failed(None, &error)?,
            }
        }
    }

    /// Builds and deploys what has changed.
    async fn update(&mut self, project: &Project) -> anyhow::Result<()> {
        if self.problems != project.problems {
            self.problems.clone_from(&project.problems);
            for Problem { name, error } in &project.problems {
                self.failed(name.parse().ok().as_ref(), &anyhow!("{name}: {error}"))?;
            }
        }
        self.remove_gone(project).await?;
        let missing: BTreeMap<Language, String> = builder::missing(&project.units)
            .into_iter()
            .map(|(language, tools)| {
                let tools: Vec<String> = tools.iter().map(ToString::to_string).collect();
                (language, tools.join("; "))
            })
            .collect();
        let is_known = |unit: &&Unit| self.built.get(&unit.name).is_some_and(|b| b.unit == **unit);
        let new: Vec<&Unit> = project.units.iter().filter(|unit| !is_known(unit)).collect();
        let mut learnt = self.learn(&new, project).await;
        let mut changed = Vec::new();
        for unit in &project.units {
            let built = self.built.get(&unit.name).filter(|built| built.unit == *unit);
            let (known, inputs) = match built {
                Some(built) => (built.source, built.inputs.clone()),
                None => (None, learnt.remove(&unit.name).unwrap_or_default()),
            };
            let source = Built::fingerprint(unit, &inputs);
            if built.is_some() && known == source {
                continue;
            }
            let built = Built { unit: unit.clone(), inputs, source };
            self.built.insert(unit.name.clone(), built);
            match unit.language().and_then(|language| missing.get(&language)) {
                Some(reason) => self.skipped(unit, reason)?,
                None => changed.push(unit),
            }
        }
        let (client, json) = (&self.client.clone(), self.json);
        let mut deploys = stream::iter(changed.clone())
            .map(|unit| async move { (unit, deploy(unit, project, client, true, json).await) })
            .buffer_unordered(BUILDS_MAX);
        while let Some((unit, deployed)) = deploys.next().await {
            match deployed {
                Ok(published) => self.deployed(published)?,
                Err(error) => self.failed(Some(&unit.name), &error)?,
            }
        }
        // A build may have found more to watch.
        for (name, inputs) in self.learn(&changed, project).await {
            let Some(built) = self.built.get_mut(&name) else { continue };
            // In this order: what changes before the second look still differs
            // from what was built, and is built next.
            let source = Built::fingerprint(&built.unit, &inputs);
            if Built::fingerprint(&built.unit, &built.inputs) == built.source {
                built.source = source;
            }
            built.inputs = inputs;
        }
        Ok(())
    }

    /// Finds out what units are made of besides their own places, and watches it.
    async fn learn(
        &mut self,
        units: &[&Unit],
        project: &Project,
    ) -> BTreeMap<FunctionName, Vec<PathBuf>> {
        let inputs = stream::iter(units.iter().copied())
            .map(|unit| async move { (unit.name.clone(), builder::inputs(unit, project).await) });
        let inputs: BTreeMap<_, _> = inputs.buffer_unordered(BUILDS_MAX).collect().await;
        for path in inputs.values().flatten().filter(|path| path.exists()) {
            if let Err(error) = self.watcher.follow(path) {
                output::note(format!("{} is not watched: {error}", path.display()));
            }
        }
        inputs
    }

    /// Takes back what an earlier session has left on this host, and is no
    /// longer in the folder.
    async fn remove_strangers(&mut self, project: &Project) -> anyhow::Result<()> {
        if !self.args.selection.only.is_empty() || !project.problems.is_empty() {
            return Ok(());
        }
        for function in self.client.functions().await? {
            if !project.units.iter().any(|unit| unit.name.as_str() == function.name) {
                self.client.delete(&function.name.parse()?).await?;
            }
        }
        Ok(())
    }

    /// Takes back the functions whose source is gone. Not while something is
    /// wrong with the folder: a function that can not be found then may be the
    /// one that is being edited.
    async fn remove_gone(&mut self, project: &Project) -> anyhow::Result<()> {
        if !project.problems.is_empty() {
            return Ok(());
        }
        let there = |name: &FunctionName| project.units.iter().any(|unit| unit.name == *name);
        let gone: Vec<FunctionName> =
            self.built.keys().filter(|name| !there(name)).cloned().collect();
        for name in gone {
            self.built.remove(&name);
            if self.deployed.remove(&name).is_some() {
                match self.client.delete(&name).await {
                    Ok(()) => self.event("removed", &json!({ "name": name }), || {
                        format!("{YELLOW}  removed{YELLOW:#} {name}")
                    })?,
                    Err(error) => self.failed(Some(&name), &error)?,
                }
            }
        }
        Ok(())
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

    fn deployed(&mut self, published: PublishedView) -> anyhow::Result<()> {
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

    fn skipped(&self, unit: &Unit, reason: &str) -> anyhow::Result<()> {
        let detail = json!({ "name": unit.name, "reason": reason });
        self.event("skipped", &detail, || {
            format!("{YELLOW}  skipped{YELLOW:#} {} {DIM}{reason}{DIM:#}", unit.name)
        })
    }

    fn failed(&self, name: Option<&FunctionName>, error: &anyhow::Error) -> anyhow::Result<()> {
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
    fn summary(&self, project: &Project) -> anyhow::Result<()> {
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
            let hint = if self.args.install { "" } else { ", or let --install get the tools" };
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
        let show = |line: crate::admin::types::LogLineView| {
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
