//! The only user of wasmtime's `Engine`, `Config`, `Store` and `Linker`,
//! together with [`crate::capabilities`].
//!
//! There are two tracks. Support for concurrent guest tasks costs every call
//! about a fifth of its speed, and only 0.3 guests need it: 0.2 and CGI guests
//! run on an engine without it. An artifact belongs to one of the two.
//!
//! The sequential track has two engines, which differ in how their pools clear
//! memory after use ([`pool::Guests`]), not in the code that they run.

pub mod artifact;
pub mod classify;
pub mod compile;
pub mod compile_cache;
pub mod compile_child;
pub mod cpu;
pub mod epoch;
pub mod instances;
pub mod limits;
pub mod linker;
pub mod loader;
pub mod merge;
pub mod pool;
pub mod resident;
pub mod run;
pub mod snapshot;
pub mod store;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use wasmtime::{Engine, PoolingAllocationConfig, PoolingAllocatorMetrics};

use crate::capabilities::clocks::Clocks;
use crate::model::function::GuestKind;
use limits::HostMemory;
use loader::Guest;
use pool::{Guests, PoolBounds};
use resident::PageMap;

/// What a guest needs of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Track {
    /// 0.2 http guests and commands: no concurrent tasks inside a guest.
    Sequential,
    /// 0.3 guests.
    Concurrent,
}

impl Track {
    /// The track of a kind of guest.
    #[must_use]
    pub fn of(kind: GuestKind) -> Self {
        match kind {
            GuestKind::Http02 | GuestKind::Cgi01 | GuestKind::Cgi02 => Self::Sequential,
            GuestKind::Http03 | GuestKind::Cgi03 => Self::Concurrent,
        }
    }
}

/// The process's engines.
#[derive(Clone)]
pub struct Engines {
    sequential: Engine,
    /// Sequential too, for snapshots of interpreters.
    snapshots: Engine,
    concurrent: Engine,
    fingerprints: Arc<Fingerprints>,
    memory: Arc<HostMemory>,
    clocks: Clocks,
    page_map: Option<Arc<PageMap>>,
}

/// What artifacts must have been compiled with, as file names: engine version,
/// build, flags and CPU features, and whether they are modules or components.
#[derive(Debug, Clone)]
pub struct Fingerprints {
    module: String,
    component: String,
    concurrent_component: String,
}

impl Fingerprints {
    fn new() -> wasmtime::Result<Self> {
        let sequential = fingerprint(Track::Sequential)?;
        Ok(Self {
            module: format!("{sequential}-module"),
            component: sequential,
            concurrent_component: fingerprint(Track::Concurrent)?,
        })
    }

    /// The fingerprint of a kind of guest.
    #[must_use]
    pub fn of(&self, kind: GuestKind) -> &str {
        match kind {
            GuestKind::Cgi01 => &self.module,
            GuestKind::Http02 | GuestKind::Cgi02 => &self.component,
            GuestKind::Http03 | GuestKind::Cgi03 => &self.concurrent_component,
        }
    }
}

impl Engines {
    /// Makes the engines with their pools and starts the epoch ticker.
    ///
    /// # Errors
    /// When the machine refuses the address space that the pools reserve, or
    /// the ticker's thread.
    pub fn new(bounds: &PoolBounds) -> wasmtime::Result<Self> {
        let engine = |track, guests| Engine::new(&pool::host_config(track, guests, bounds)?);
        let sequential = engine(Track::Sequential, Guests::Ordinary)?;
        let snapshots = engine(Track::Sequential, Guests::Snapshots)?;
        let concurrent = engine(Track::Concurrent, Guests::Ordinary)?;
        epoch::start_ticker(vec![sequential.weak(), snapshots.weak(), concurrent.weak()])?;
        let fingerprints = Arc::new(Fingerprints::new()?);
        let memory = Arc::new(HostMemory::new(bounds.guest_memory_bytes_max));
        let clocks = Clocks { fine: bounds.fine_clocks };
        // Where the kernel does not tell which pages were written, it is not needed.
        let is_needed = PoolingAllocationConfig::is_pagemap_scan_available();
        let page_map = is_needed.then(PageMap::open).transpose();
        let page_map = page_map.map_err(|error| wasmtime::format_err!("page map: {error}"))?;
        let page_map = page_map.map(Arc::new);
        Ok(Self { sequential, snapshots, concurrent, fingerprints, memory, clocks, page_map })
    }

    /// The engine for core modules. Commands start from nothing each time: none is
    /// a snapshot of an interpreter, however much code it has.
    #[must_use]
    pub fn for_modules(&self) -> &Engine {
        &self.sequential
    }

    /// The engine for a component whose artifact has this size.
    #[must_use]
    pub fn for_component(&self, track: Track, artifact_bytes: u64) -> &Engine {
        match track {
            Track::Sequential if artifact_bytes >= pool::SNAPSHOT_ARTIFACT_BYTES_MIN => {
                &self.snapshots
            }
            Track::Sequential => &self.sequential,
            Track::Concurrent => &self.concurrent,
        }
    }

    /// Whether to make this guest's memory new takes as long as a request.
    #[must_use]
    pub fn clears_slowly(&self, guest: &Guest) -> bool {
        matches!(guest, Guest::Http02(it) if Engine::same(it.pre.engine(), &self.snapshots))
    }

    /// The page map of this process, if its pools use it.
    #[must_use]
    pub fn page_map(&self) -> Option<&Arc<PageMap>> {
        self.page_map.as_ref()
    }

    /// All of them, each with its track.
    pub fn all(&self) -> impl Iterator<Item = (Track, &Engine)> {
        [
            (Track::Sequential, &self.sequential),
            (Track::Sequential, &self.snapshots),
            (Track::Concurrent, &self.concurrent),
        ]
        .into_iter()
    }

    /// What artifacts must have been compiled with.
    #[must_use]
    pub fn fingerprints(&self) -> &Arc<Fingerprints> {
        &self.fingerprints
    }

    /// Slots of the pools in use: instances, memories, tables and stacks.
    #[must_use]
    pub fn pool_slots_in_use(&self) -> u64 {
        let in_use = |metrics: PoolingAllocatorMetrics| {
            metrics.component_instances()
                + metrics.core_instances()
                + metrics.memories() as u64
                + metrics.tables() as u64
                + metrics.stacks() as u64
        };
        self.all().filter_map(|(_, engine)| engine.pooling_allocator_metrics()).map(in_use).sum()
    }

    /// The memory of all guests together.
    #[must_use]
    pub fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Which clocks guests see.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }
}

/// Feeds what wasmtime hashes about an engine into a strong hash: its own
/// `Hash` is meant for hash maps.
struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        0
    }
}

fn fingerprint(track: Track) -> wasmtime::Result<String> {
    // The engines that run guests have no compiler, and only an engine with one
    // knows its compatibility hash.
    let engine = Engine::new(&pool::compiler_config(track)?)?;
    let mut hasher = Fingerprint(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.write(pool::ENGINE_VERSION.as_bytes());
    Ok(hex::encode(hasher.0.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16])))
}
