//! From a revision's digest to something that can be instantiated.
//!
//! Loading is lazy: a function costs memory only once it is called. It is
//! single-flight: a thousand first requests load once. What is loaded is
//! bounded, least recently used first out, because each loaded component holds
//! a few of the process's memory mappings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwapOption, Guard};
use wasmtime::component::{self, ComponentExportIndex, Linker};
use wasmtime::{Engine, InstancePre, Linker as ModuleLinker};
use wasmtime_wasi::p2::bindings::CommandPre as CommandPre02;
use wasmtime_wasi::p3::bindings::CommandPre as CommandPre03;

use super::artifact::{ArtifactError, Artifacts};
use super::compile::{CompileError, Compiler};
use super::resident::Resident;
use super::store::{CommandState, GuestState};
use super::{Engines, Track, epoch, linker};
use crate::model::function::GuestKind;
use crate::model::ids::Digest;
use crate::storage::StorageError;
use crate::storage::files::Files;

/// The versions are those of wasmtime's own interfaces: a component may have been
/// made for any that is compatible.
const HANDLER_02: &str = "wasi:http/incoming-handler@0.2.12";
const HANDLER_03: &str = "wasi:http/handler@0.3.0";

/// A component that answers requests, and where in it the function is that does.
/// The bindings that are generated for it have more than is called, which costs each
/// request a look-up.
pub struct Handler {
    /// The component, ready to be instantiated.
    pub pre: component::InstancePre<GuestState>,
    /// Its `handle`.
    pub handle: ComponentExportIndex,
    /// What of its memory is kept from one guest to the next, if that has to be seen to.
    pub resident: Option<Resident>,
}

impl Handler {
    fn new(pre: component::InstancePre<GuestState>, interface: &str) -> wasmtime::Result<Self> {
        let missing = || wasmtime::Error::msg(format!("the component has no {interface}"));
        let component = pre.component();
        let interface = component.get_export_index(None, interface).ok_or_else(missing)?;
        let handle = component.get_export_index(Some(&interface), "handle").ok_or_else(missing)?;
        Ok(Self { pre, handle, resident: None })
    }
}

/// A guest that is ready to be instantiated.
pub enum Guest {
    /// Answers `wasi:http/incoming-handler@0.2`.
    Http02(Handler),
    /// Answers `wasi:http/handler@0.3`.
    Http03(Handler),
    /// A core command that speaks CGI.
    Cgi01(InstancePre<CommandState>),
    /// A command that speaks CGI.
    Cgi02(CommandPre02<GuestState>),
    /// A 0.3 command that speaks CGI.
    Cgi03(CommandPre03<GuestState>),
}

impl Guest {
    /// Finds what is to be called in a component of this kind.
    ///
    /// # Errors
    /// When it is not there, or has another type.
    pub(super) fn of_component(
        kind: GuestKind,
        pre: component::InstancePre<GuestState>,
    ) -> wasmtime::Result<Self> {
        match kind {
            GuestKind::Http02 => Handler::new(pre, HANDLER_02).map(Self::Http02),
            GuestKind::Http03 => Handler::new(pre, HANDLER_03).map(Self::Http03),
            GuestKind::Cgi02 => CommandPre02::new(pre).map(Self::Cgi02),
            GuestKind::Cgi03 => CommandPre03::new(pre).map(Self::Cgi03),
            GuestKind::Cgi01 => Err(wasmtime::Error::msg("a core command is no component")),
        }
    }
}

/// Why a revision could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The artifact was missing or bad, and compiling it again failed.
    #[error("it could not be compiled again")]
    Compile(#[from] CompileError),
    /// The artifact is there and can not be used, and not for its contents.
    #[error("its artifact could not be loaded")]
    Artifact(#[from] ArtifactError),
    /// It does not link, although it did when it was published.
    #[error("it could not be linked")]
    Link(#[from] wasmtime::Error),
}

/// The place of one component in the loader. Revisions with the same component
/// share it.
pub struct Slot {
    digest: Digest,
    kind: GuestKind,
    guest: ArcSwapOption<Guest>,
    loading: tokio::sync::Mutex<()>,
    /// [`epoch::ticks`] of the last use.
    used_ticks: AtomicU32,
}

impl Slot {
    fn new(digest: Digest, kind: GuestKind) -> Self {
        Self {
            digest,
            kind,
            guest: ArcSwapOption::empty(),
            loading: tokio::sync::Mutex::default(),
            used_ticks: AtomicU32::new(epoch::ticks()),
        }
    }

    /// The loaded guest, if it is in memory. Costs no lock.
    pub fn get(&self) -> Option<Guard<Option<Arc<Guest>>>> {
        let guest = self.guest.load();
        guest.as_ref()?;
        let now = epoch::ticks();
        // Written only when it changes: requests on all cores share this line.
        if self.used_ticks.load(Ordering::Relaxed) != now {
            self.used_ticks.store(now, Ordering::Relaxed);
        }
        Some(guest)
    }
}

/// What guests of one engine can import.
struct Linkers {
    engine: Engine,
    components: Linker<GuestState>,
    modules: ModuleLinker<CommandState>,
}

impl Linkers {
    fn new((track, engine): (Track, &Engine)) -> wasmtime::Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            components: linker::linker(engine, track)?,
            modules: linker::module_linker(engine)?,
        })
    }
}

/// Loads guests and evicts them.
pub struct Loader {
    engines: Engines,
    linkers: Vec<Linkers>,
    artifacts: Arc<Artifacts>,
    compiler: Arc<Compiler>,
    files: Arc<Files>,
    slots: Mutex<HashMap<Digest, Weak<Slot>>>,
    loaded: Mutex<Vec<Arc<Slot>>>,
    loaded_max: usize,
}

impl Loader {
    /// A loader that keeps at most `loaded_max` components in memory.
    ///
    /// # Errors
    /// Only if the host's own interfaces collide, which would be a bug.
    pub fn new(
        engines: Engines,
        artifacts: Arc<Artifacts>,
        compiler: Arc<Compiler>,
        files: Arc<Files>,
        loaded_max: usize,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            linkers: engines.all().map(Linkers::new).collect::<wasmtime::Result<_>>()?,
            engines,
            artifacts,
            compiler,
            files,
            slots: Mutex::default(),
            loaded: Mutex::default(),
            loaded_max: loaded_max.max(1),
        })
    }

    /// The slot of a component. Loads nothing.
    #[must_use]
    pub fn slot(&self, digest: Digest, kind: GuestKind) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&digest).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot::new(digest, kind));
        slots.insert(digest, Arc::downgrade(&slot));
        slot
    }

    /// Brings a component into memory: the cold start.
    ///
    /// # Errors
    /// See [`LoadError`]. A bad artifact alone is none: it is set aside, and
    /// the component is compiled again.
    pub async fn load(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Guest>, LoadError> {
        let _loading = slot.loading.lock().await;
        if let Some(guest) = slot.guest.load_full() {
            return Ok(guest);
        }
        let guest = match self.load_blocking(slot).await {
            Err(LoadError::Artifact(error)) if !matches!(error, ArtifactError::Io(_)) => {
                if !matches!(error, ArtifactError::Missing) {
                    let digest = slot.digest;
                    tracing::warn!(%digest, %error, "artifact set aside; compiling it again");
                }
                let original = self.files.component_path(slot.digest);
                self.compiler.compile(&original, slot.digest).await?;
                self.load_blocking(slot).await?
            }
            loaded => loaded?,
        };
        slot.guest.store(Some(Arc::clone(&guest)));
        self.keep_within_bound(slot);
        Ok(guest)
    }

    /// Loads a component that was just compiled, and lets it go again: what the
    /// compiler takes may still be more than the pools have for one guest.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] says which bound it is over.
    pub async fn check(
        self: &Arc<Self>,
        digest: Digest,
        kind: GuestKind,
    ) -> Result<(), CompileError> {
        let slot = Arc::new(Slot::new(digest, kind));
        match self.load_blocking(&slot).await {
            Ok(_) => Ok(()),
            Err(LoadError::Compile(error)) => Err(error),
            Err(LoadError::Artifact(ArtifactError::Refused(error)) | LoadError::Link(error)) => {
                Err(CompileError::Invalid { why: error.root_cause().to_string() })
            }
            Err(LoadError::Artifact(ArtifactError::Io(error))) => {
                Err(StorageError::from_io("read the artifact", error).into())
            }
            Err(LoadError::Artifact(error)) => Err(CompileError::Failed { why: error.to_string() }),
        }
    }

    /// Frees a component that no function has any more.
    pub fn forget(&self, digest: Digest) {
        self.artifacts.forget(digest);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|slot| {
            let keep = slot.digest != digest;
            if !keep {
                slot.guest.store(None);
            }
            keep
        });
    }

    /// How many components are in memory.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Reading and mapping may wait for the disk: not on a request's thread.
    async fn load_blocking(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Guest>, LoadError> {
        let (loader, slot) = (Arc::clone(self), Arc::clone(slot));
        let task = tokio::task::spawn_blocking(move || loader.link(&slot));
        match task.await {
            Ok(loaded) => loaded,
            Err(error) => Err(LoadError::Link(wasmtime::Error::new(error))),
        }
    }

    fn link(&self, slot: &Slot) -> Result<Arc<Guest>, LoadError> {
        let mut guest = match slot.kind {
            GuestKind::Cgi01 => self.link_module(slot).map(Guest::Cgi01)?,
            kind => Guest::of_component(kind, self.link_component(slot)?)?,
        };
        if self.engines.clears_slowly(&guest)
            && let (Guest::Http02(handler), Some(map)) = (&mut guest, self.engines.page_map())
        {
            handler.resident = Resident::of(handler.pre.component(), slot.digest, map);
        }
        Ok(Arc::new(guest))
    }

    fn link_module(&self, slot: &Slot) -> Result<InstancePre<CommandState>, LoadError> {
        let fingerprint = self.engines.fingerprints().of(slot.kind);
        let module = self.artifacts.load_module(&self.engines, slot.digest, fingerprint)?;
        Ok(self.linkers(module.engine())?.modules.instantiate_pre(&module)?)
    }

    fn link_component(&self, slot: &Slot) -> Result<component::InstancePre<GuestState>, LoadError> {
        let track = Track::of(slot.kind);
        let fingerprint = self.engines.fingerprints().of(slot.kind);
        let component =
            self.artifacts.load_component(&self.engines, track, slot.digest, fingerprint)?;
        Ok(self.linkers(component.engine())?.components.instantiate_pre(&component)?)
    }

    fn linkers(&self, engine: &Engine) -> wasmtime::Result<&Linkers> {
        let linkers = self.linkers.iter().find(|linkers| Engine::same(&linkers.engine, engine));
        linkers.ok_or_else(|| wasmtime::Error::msg("an engine without linkers"))
    }

    /// Evicts a sixteenth of what is loaded, least recently used first, when
    /// the bound is met: one scan then serves many loads.
    fn keep_within_bound(&self, newest: &Arc<Slot>) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        newest.used_ticks.store(epoch::ticks(), Ordering::Relaxed);
        if loaded.len() >= self.loaded_max {
            let now = epoch::ticks();
            let idle = |slot: &Arc<Slot>| now.wrapping_sub(slot.used_ticks.load(Ordering::Relaxed));
            loaded.sort_by_cached_key(idle);
            let keep = loaded.len().min(self.loaded_max - self.loaded_max.div_ceil(16));
            for evicted in loaded.drain(keep..) {
                evicted.guest.store(None);
            }
        }
        loaded.push(Arc::clone(newest));
    }
}
