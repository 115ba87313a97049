//! The control plane's heart: publish, activate, roll back, delete.
//!
//! Every change follows one order: files durable, then the storage commit, then
//! the new snapshot, then the reply. The data plane only reads snapshots
//! ([`crate::router::Router`]) and never waits for anything here.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::capabilities::http::HostEgress;
use crate::engine::compile::{CompileError, Compiler};
use crate::engine::loader::Loader;
use crate::invoke::target::Target;
use crate::model::function::{Function, GuestKind, Revision};
use crate::model::ids::{Digest, FunctionId, RevisionNumber};
use crate::model::spec::FunctionSpec;
use crate::router::Router;
use crate::storage::files::{Files, Staged};
use crate::storage::{Expected, Storage, StorageError};

/// All functions at one moment, by id.
pub type Functions = BTreeMap<FunctionId, Arc<Function>>;

/// Why the control plane refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such function.
    #[error("no function {0}")]
    NoFunction(FunctionId),
    /// No such revision of the function.
    #[error("function {function} has no revision {revision}")]
    NoRevision {
        /// The function.
        function: FunctionId,
        /// The revision asked for.
        revision: RevisionNumber,
    },
    /// There is no earlier revision to go back to.
    #[error("function {0} has no earlier revision to roll back to")]
    NothingToRollBackTo(FunctionId),
    /// Another function holds the route.
    #[error("route \"{route}\" is taken by function {holder}")]
    RouteTaken {
        /// The route that was asked for.
        route: String,
        /// Who has it.
        holder: FunctionId,
    },
    /// The component was refused.
    #[error(transparent)]
    Component(#[from] CompileError),
    /// The records or files could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A revision to publish.
#[derive(Debug)]
pub struct Publish {
    /// The function, which may not exist yet.
    pub id: FunctionId,
    /// How it is to run; the active revision's spec where absent.
    pub spec: Option<FunctionSpec>,
    /// The uploaded component.
    pub component: Staged,
    /// Whether it gets the traffic at once.
    pub activate: bool,
    /// What the caller believes is there.
    pub expected: Expected,
}

/// What publishing led to.
#[derive(Debug, Clone)]
pub struct Published {
    /// The function as it is now.
    pub function: Arc<Function>,
    /// The revision that the upload is.
    pub revision: RevisionNumber,
    /// False where the same component and spec were already there.
    pub created: bool,
}

/// See the module.
pub struct Registry {
    storage: Arc<dyn Storage>,
    files: Arc<Files>,
    compiler: Arc<Compiler>,
    loader: Arc<Loader>,
    egress: Arc<HostEgress>,
    router: Arc<Router<Arc<Target>>>,
    functions: ArcSwap<Functions>,
    /// Held from the check of a change to its snapshot: changes are serial.
    writer: Mutex<()>,
}

impl Registry {
    /// Reads all functions from storage, removes files that no revision names,
    /// and publishes the first snapshot.
    ///
    /// # Errors
    /// When storage can not be read.
    pub async fn open(
        storage: Arc<dyn Storage>,
        files: Arc<Files>,
        compiler: Arc<Compiler>,
        loader: Arc<Loader>,
        egress: Arc<HostEgress>,
        router: Arc<Router<Arc<Target>>>,
    ) -> Result<Self, StorageError> {
        let functions: Functions = storage
            .functions()
            .await?
            .into_iter()
            .map(|function| (function.id.clone(), Arc::new(function)))
            .collect();
        let registry = Self {
            storage,
            files,
            compiler,
            loader,
            egress,
            router,
            functions: ArcSwap::from_pointee(Functions::new()),
            writer: Mutex::new(()),
        };
        registry.files.retain(&digests(&functions)).await?;
        registry.swap(functions);
        Ok(registry)
    }

    /// All functions as they are now.
    #[must_use]
    pub fn functions(&self) -> Arc<Functions> {
        self.functions.load_full()
    }

    /// One function as it is now.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn function(&self, id: &FunctionId) -> Result<Arc<Function>, RegistryError> {
        let functions = self.functions.load();
        functions.get(id).cloned().ok_or_else(|| RegistryError::NoFunction(id.clone()))
    }

    /// Where uploads are staged and components are read.
    #[must_use]
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// The original of a component, for download.
    #[must_use]
    pub fn component_path(&self, digest: Digest) -> PathBuf {
        self.files.component_path(digest)
    }

    /// Compiles and publishes an upload as a new revision. The same component
    /// with the same spec as the active revision is not published twice.
    ///
    /// # Errors
    /// When the component is refused, a route is taken, the function is not as
    /// `expected`, or storage fails. Nothing has changed then.
    pub async fn publish(&self, publish: Publish) -> Result<Published, RegistryError> {
        let Publish { id, spec, component, activate, expected } = publish;
        // Outside of the lock: a slow compile holds up nobody else's deploy.
        let compiled = self.compiler.compile(component.path(), component.digest()).await?;
        self.loader.check(component.digest(), compiled.kind).await?;
        let _writer = self.writer.lock().await;
        let current = self.functions.load().get(&id).cloned();
        let active = current.as_ref().and_then(|function| function.active_revision());
        let spec = spec.unwrap_or_else(|| active.map(|a| a.spec.clone()).unwrap_or_default());
        if let (Some(function), Some(active)) = (&current, active)
            && active.digest == component.digest()
            && active.spec == spec
            && expected_holds(expected, Some(active.number))
        {
            let function = Arc::clone(function);
            return Ok(Published { revision: active.number, function, created: false });
        }
        let (digest, component_bytes) = (component.digest(), component.bytes());
        self.files.keep(component).await?;
        let revision = revision(digest, component_bytes, compiled.kind, spec);
        self.commit_revision(&id, revision, activate, expected).await
    }

    /// Publishes a new revision with the active revision's component and
    /// another spec.
    ///
    /// # Errors
    /// As [`Self::publish`]; also when the function has no active revision.
    pub async fn publish_spec(
        &self,
        id: &FunctionId,
        change: impl FnOnce(&FunctionSpec) -> FunctionSpec,
        expected: Expected,
    ) -> Result<Published, RegistryError> {
        let _writer = self.writer.lock().await;
        let function = self.function(id)?;
        let Some(active) = function.active_revision() else {
            return Err(RegistryError::NoFunction(id.clone()));
        };
        let spec = change(&active.spec);
        if spec == active.spec && expected_holds(expected, Some(active.number)) {
            let revision = active.number;
            return Ok(Published { function, revision, created: false });
        }
        let revision = revision(active.digest, active.component_bytes, active.kind, spec);
        self.commit_revision(id, revision, true, expected).await
    }

    /// Gives the traffic to an existing revision.
    ///
    /// # Errors
    /// When it does not exist, one of its routes is taken by now, the function
    /// is not as `expected`, or storage fails.
    pub async fn activate(
        &self,
        id: &FunctionId,
        number: RevisionNumber,
        expected: Expected,
    ) -> Result<Arc<Function>, RegistryError> {
        let _writer = self.writer.lock().await;
        self.activate_locked(id, number, expected).await
    }

    /// Goes back to `to`, or to the revision that was active before, or to the
    /// one numbered below the active one.
    ///
    /// # Errors
    /// As [`Self::activate`]; also when there is nothing to go back to.
    pub async fn roll_back(
        &self,
        id: &FunctionId,
        to: Option<RevisionNumber>,
        expected: Expected,
    ) -> Result<Arc<Function>, RegistryError> {
        let _writer = self.writer.lock().await;
        let function = self.function(id)?;
        let below = function
            .revisions
            .iter()
            .rev()
            .map(|revision| revision.number)
            .find(|number| Some(*number) < function.active);
        let number = to
            .or(function.previous)
            .or(below)
            .ok_or_else(|| RegistryError::NothingToRollBackTo(id.clone()))?;
        self.activate_locked(id, number, expected).await
    }

    /// Removes a function, its revisions, and the files that only it used.
    /// Requests in flight finish.
    ///
    /// # Errors
    /// When it does not exist, is not as `expected`, or storage fails.
    pub async fn delete(&self, id: &FunctionId, expected: Expected) -> Result<(), RegistryError> {
        let _writer = self.writer.lock().await;
        let function = self.function(id)?;
        self.storage.delete(id, expected).await?;
        let mut functions = Functions::clone(&self.functions.load());
        functions.remove(id);
        let used = digests(&functions);
        self.swap(functions);
        for revision in &function.revisions {
            if !used.contains(&revision.digest) {
                self.loader.forget(revision.digest);
                self.files.remove(revision.digest).await;
            }
        }
        Ok(())
    }

    async fn activate_locked(
        &self,
        id: &FunctionId,
        number: RevisionNumber,
        expected: Expected,
    ) -> Result<Arc<Function>, RegistryError> {
        let function = self.function(id)?;
        let revision = function
            .revision(number)
            .ok_or_else(|| RegistryError::NoRevision { function: id.clone(), revision: number })?;
        self.check_routes(id, &revision.spec)?;
        let function = self.storage.activate(id, number, expected).await?;
        Ok(self.insert(function))
    }

    async fn commit_revision(
        &self,
        id: &FunctionId,
        revision: Revision,
        activate: bool,
        expected: Expected,
    ) -> Result<Published, RegistryError> {
        if activate {
            self.check_routes(id, &revision.spec)?;
        }
        let function = self.storage.add_revision(id, revision, activate, expected).await?;
        let number = function.revisions.last().map_or(RevisionNumber(1), |last| last.number);
        Ok(Published { function: self.insert(function), revision: number, created: true })
    }

    /// Two functions may not claim the same route.
    fn check_routes(&self, id: &FunctionId, spec: &FunctionSpec) -> Result<(), RegistryError> {
        let wanted: BTreeMap<String, String> =
            spec.routes.iter().map(|route| (route.key(), route.to_string())).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        for (holder, function) in self.functions.load().iter().filter(|(other, _)| *other != id) {
            let routes = function.active_revision().map(|active| active.spec.routes.as_slice());
            for held in routes.unwrap_or_default() {
                if let Some(route) = wanted.get(&held.key()) {
                    let (route, holder) = (route.clone(), holder.clone());
                    return Err(RegistryError::RouteTaken { route, holder });
                }
            }
        }
        Ok(())
    }

    fn insert(&self, function: Function) -> Arc<Function> {
        let function = Arc::new(function);
        let mut functions = Functions::clone(&self.functions.load());
        functions.insert(function.id.clone(), Arc::clone(&function));
        self.swap(functions);
        function
    }

    fn swap(&self, functions: Functions) {
        let table = snapshot::build(&functions, &self.router.load(), &self.loader, &self.egress);
        self.functions.store(Arc::new(functions));
        self.router.swap(table);
    }
}

fn revision(digest: Digest, component_bytes: u64, kind: GuestKind, spec: FunctionSpec) -> Revision {
    Revision {
        number: RevisionNumber(0),
        digest,
        component_bytes,
        kind,
        spec,
        created_unix_ms: crate::telemetry::clock::unix_ms(),
    }
}

fn expected_holds(expected: Expected, active: Option<RevisionNumber>) -> bool {
    match expected {
        Expected::Any => true,
        Expected::Absent => active.is_none(),
        Expected::Active(number) => active == Some(number),
    }
}

fn digests(functions: &Functions) -> BTreeSet<Digest> {
    functions
        .values()
        .flat_map(|function| function.revisions.iter().map(|revision| revision.digest))
        .collect()
}
