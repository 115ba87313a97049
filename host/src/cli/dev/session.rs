//! Builds and deploys each function of a folder as soon as it changes.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::DevArgs;
use super::host::Ready;
use super::report::Report;
use crate::admin::types::PublishedView;
use crate::cli::client::Client;
use crate::cli::deploy::deploy;
use crate::cli::project::{self, Origin, Problem, Project, Unit};
use crate::cli::{Global, builder, output};
use crate::dev::watch::{Watcher, fingerprint_of_all, has_changed_since};
use crate::model::ids::FunctionName;

/// Builds at the same time. Most tools use one core for most of their time.
const BUILDS_MAX: usize = 2;

/// What a function was made of when its latest build began, whether or not it
/// worked.
struct Built {
    /// Besides its own place.
    inputs: Vec<PathBuf>,
    source: Option<blake3::Hash>,
    began: SystemTime,
}

impl Built {
    /// Looks at the source, before it is built.
    fn begin(unit: &Unit, inputs: Vec<PathBuf>) -> Self {
        let began = SystemTime::now();
        Self { source: fingerprint(unit, &inputs), inputs, began }
    }

    fn is_current(&self, unit: &Unit) -> bool {
        fingerprint(unit, &self.inputs) == self.source
    }

    /// A build may have found more to watch.
    fn learn(&mut self, unit: &Unit, inputs: Vec<PathBuf>) {
        // The new look comes first: what changes before the others still differs
        // from what was built, and is built next.
        let source = fingerprint(unit, &inputs);
        let mut found = inputs.iter().filter(|path| !self.inputs.contains(path));
        if self.is_current(unit) && !found.any(|path| has_changed_since(path, self.began)) {
            self.source = source;
        }
        self.inputs = inputs;
    }
}

/// The fingerprint of all that a function is made of, as it is now.
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

/// A function of the folder.
struct Function {
    unit: Unit,
    /// Nothing while this unit has not been built.
    built: Option<Built>,
    is_building: bool,
}

/// How far the build of a unit is.
enum Step {
    Deployed {
        built: Built,
        result: Box<anyhow::Result<PublishedView>>,
    },
    /// The last one: what it is made of, as far as that is known after the build.
    Learnt(Vec<PathBuf>),
}

/// Building, deploying, watching.
pub(super) struct Session<'a> {
    args: &'a DevArgs,
    json: bool,
    client: Client,
    report: Report,
    watcher: Watcher,
    /// The folder as it was when it could last be read.
    project: Arc<Project>,
    functions: BTreeMap<FunctionName, Function>,
    /// Whose turn it is to be built.
    queue: VecDeque<FunctionName>,
    builds: FuturesUnordered<BoxFuture<'static, (Unit, Step)>>,
    is_summed_up: bool,
}

impl<'a> Session<'a> {
    /// Goes on until it is dropped.
    pub(super) async fn work(
        args: &'a DevArgs,
        global: &Global,
        project: Project,
        ready: &Ready,
        data: &Path,
    ) -> anyhow::Result<()> {
        let token = std::fs::read_to_string(data.join("admin.token"))
            .with_context(|| format!("read the token in {}", data.display()))?;
        let client = Client::new(&ready.admin, Some(token.trim().to_owned()))?;
        // Before the first look: what is saved after it is a change.
        let watcher = Watcher::new(&project.root)
            .with_context(|| format!("watch {}", project.root.display()))?;
        let mut session = Self {
            args,
            json: global.json,
            report: Report::new(global.json, client.clone()),
            client,
            watcher,
            // Its problems have not been said yet.
            project: Arc::new(Project { problems: Vec::new(), ..project }),
            functions: BTreeMap::new(),
            queue: VecDeque::new(),
            builds: FuturesUnordered::new(),
            is_summed_up: false,
        };
        session.report.ready(ready)?;
        session.look().await?;
        session.remove_strangers().await?;
        loop {
            session.begin_builds()?;
            tokio::select! {
                () = session.watcher.changed() => session.look().await?,
                Some((unit, step)) = session.builds.next() => session.go_on(unit, step).await?,
            }
        }
    }

    /// Finds out what is to be built, and what is gone.
    async fn look(&mut self) -> anyhow::Result<()> {
        let project = match project::find(&self.args.selection) {
            Ok(project) => project,
            // Half-written manifests are part of editing.
            Err(error) => return self.report.failed(None, &error),
        };
        let problems = &project.problems;
        // Said once.
        for Problem { name, error } in
            problems.iter().filter(|_| self.project.problems != *problems)
        {
            self.report.failed(name.parse().ok().as_ref(), &anyhow!("{name}: {error}"))?;
        }
        self.project = Arc::new(project);
        for unit in &self.project.units {
            match self.functions.get_mut(&unit.name) {
                Some(function) if function.unit == *unit => {}
                Some(function) => {
                    function.unit = unit.clone();
                    function.built = None;
                }
                None => {
                    let function = Function { unit: unit.clone(), built: None, is_building: false };
                    self.functions.insert(unit.name.clone(), function);
                }
            }
        }
        let names: Vec<FunctionName> = self.functions.keys().cloned().collect();
        for name in names {
            self.consider(&name).await?;
        }
        Ok(())
    }

    /// Puts a function into the queue if it has changed, and takes it back if it
    /// is gone. One that is being built is left alone until then.
    async fn consider(&mut self, name: &FunctionName) -> anyhow::Result<()> {
        let Some(function) = self.functions.get(name) else { return Ok(()) };
        if function.is_building {
            return Ok(());
        }
        if !self.project.units.iter().any(|unit| unit.name == *name) {
            return self.remove(name).await;
        }
        let is_current = |built: &Built| built.is_current(&function.unit);
        if !function.built.as_ref().is_some_and(is_current) && !self.queue.contains(name) {
            self.queue.push_back(name.clone());
        }
        Ok(())
    }

    /// Begins what there is room for.
    fn begin_builds(&mut self) -> anyhow::Result<()> {
        while self.builds.len() < BUILDS_MAX
            && let Some(name) = self.queue.pop_front()
        {
            let Some(function) = self.functions.get_mut(&name) else { continue };
            let unit = function.unit.clone();
            if let Some(reason) = missing(&unit) {
                function.built = Some(Built::begin(&unit, Vec::new()));
                self.report.skipped(&unit, &reason)?;
                continue;
            }
            function.is_building = true;
            let inputs = function.built.take().map(|built| built.inputs);
            let (project, client, json) = (self.project.clone(), self.client.clone(), self.json);
            self.builds.push(Box::pin(async move {
                let inputs = match inputs {
                    Some(inputs) => inputs,
                    None => builder::inputs(&unit, &project).await,
                };
                let built = Built::begin(&unit, inputs);
                let result = deploy(&unit, &project, &client, true, json).await;
                (unit, Step::Deployed { built, result: Box::new(result) })
            }));
        }
        if self.builds.is_empty() && !self.is_summed_up {
            self.is_summed_up = true;
            self.report.summary(&self.project, self.args.install)?;
        }
        Ok(())
    }

    /// Takes what a step has brought.
    async fn go_on(&mut self, unit: Unit, step: Step) -> anyhow::Result<()> {
        // Functions that are being built are not taken away.
        let Some(function) = self.functions.get_mut(&unit.name) else { return Ok(()) };
        match step {
            Step::Deployed { built, result } => {
                // Not if it is to be built in another way by now.
                function.built = Some(built).filter(|_| function.unit == unit);
                match *result {
                    Ok(published) => self.report.deployed(published)?,
                    Err(error) => self.report.failed(Some(&unit.name), &error)?,
                }
                let project = self.project.clone();
                self.builds.push(Box::pin(async move {
                    let inputs = builder::inputs(&unit, &project).await;
                    (unit, Step::Learnt(inputs))
                }));
                Ok(())
            }
            Step::Learnt(inputs) => {
                function.is_building = false;
                for path in inputs.iter().filter(|path| path.exists()) {
                    if let Err(error) = self.watcher.follow(path) {
                        output::note(format!("{} is not watched: {error}", path.display()));
                    }
                }
                if let Some(built) = &mut function.built {
                    built.learn(&unit, inputs);
                }
                self.consider(&unit.name).await
            }
        }
    }

    /// Takes a function back whose source is gone. Not while something is wrong
    /// with the folder: a function that can not be found then may be the one that
    /// is being edited.
    async fn remove(&mut self, name: &FunctionName) -> anyhow::Result<()> {
        self.queue.retain(|queued| queued != name);
        if !self.project.problems.is_empty() {
            return Ok(());
        }
        self.functions.remove(name);
        if !self.report.has_deployed(name) {
            return Ok(());
        }
        match self.client.delete(name).await {
            Ok(()) => self.report.removed(name),
            Err(error) => self.report.failed(Some(name), &error),
        }
    }

    /// Takes back what an earlier session has left on this host, and is no
    /// longer in the folder.
    async fn remove_strangers(&mut self) -> anyhow::Result<()> {
        if !self.args.selection.only.is_empty() || !self.project.problems.is_empty() {
            return Ok(());
        }
        for function in self.client.functions().await? {
            if !self.functions.keys().any(|name| name.as_str() == function.name) {
                self.client.delete(&function.name.parse()?).await?;
            }
        }
        Ok(())
    }
}

/// What is not there of the tools that build it.
fn missing(unit: &Unit) -> Option<String> {
    let (_, tools) = builder::missing(std::slice::from_ref(unit)).pop()?;
    let tools: Vec<String> = tools.iter().map(ToString::to_string).collect();
    Some(tools.join("; "))
}
