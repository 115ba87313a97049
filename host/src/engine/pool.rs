//! How the engines are configured: every knob that guards or speeds a guest.
//!
//! The compile child and the host must agree on everything that ends up in
//! machine code, so both start from [`compiler_config`]; the host adds what
//! only matters at run time.

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig,
    Strategy, WasmBacktraceDetails, WasmFeatures,
};

use super::Track;

/// Stamped into artifacts and their names. wasmtime's own stamp has only its
/// major version, so that an artifact of 48.0.1 would run in 48.0.8 and miss
/// that release's code generation fixes.
pub const ENGINE_VERSION: &str =
    concat!("wasmtime 48.0.8, whit ", env!("CARGO_PKG_VERSION"), ", artifact 5");

/// Wasm stack of one call, in bytes; overflow is a trap.
const WASM_STACK_BYTES: usize = 512 << 10;
/// Stack of one invocation, in bytes. What wasm does not use is for host
/// functions, which would abort the process if they ran out.
const FIBER_STACK_BYTES: usize = 2 << 20;
/// Part of a memory that is kept mapped between invocations and cleared by
/// writing instead of by unmapping, in bytes. What a typical guest touches fits.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same for tables, in bytes.
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Entries of one table. Interpreters compiled to wasm need some ten thousand.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Instances, memories and tables of one component. CPython, linked from
/// shared libraries, is the largest seen. The pools have as many for each
/// guest: else some guests that use all of theirs would leave others without.
pub const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 200;
/// See [`CORE_INSTANCES_PER_COMPONENT_MAX`]. Each reserves 4 GiB of addresses.
pub const MEMORIES_PER_COMPONENT_MAX: u32 = 4;
/// See [`CORE_INSTANCES_PER_COMPONENT_MAX`].
pub const TABLES_PER_COMPONENT_MAX: u32 = 32;
/// Tables of one core module.
pub const TABLES_PER_MODULE_MAX: u32 = 4;

/// Instances with code of one 0.3 component, middleware included. Each can have a
/// call that waits on a stack of its own: more would let a few guests take the
/// stacks of all.
pub const INSTANCES_WITH_CODE_MAX: u32 = 4;
/// Stacks of one 0.3 guest: one for each of those, and one that waits for work.
const CONCURRENT_STACKS: u32 = INSTANCES_WITH_CODE_MAX + 1;

/// Artifacts from this size on, in bytes, are taken for snapshots of a started
/// interpreter: what is large in them is the memory that they begin with. Those
/// of JavaScript and Python have 36 MB, most compiled programs less than 4.
pub const SNAPSHOT_ARTIFACT_BYTES_MIN: u64 = 12 << 20;
/// Part of a snapshot's memory that is kept mapped and written anew, in bytes:
/// all of StarlingMonkey's 8 MiB and Python's 14.
pub const SNAPSHOT_KEEP_RESIDENT_BYTES: usize = 16 << 20;
/// One in this many instances may be a snapshot: it bounds what their pool keeps
/// mapped when nothing runs, with the defaults to 4 GB.
const SNAPSHOT_INSTANCES_PART: u32 = 4;

/// Whose memories a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// Programs that begin with little. The pages that they write are few, one after
    /// the other.
    Ordinary,
    /// Interpreters that were started before: they write to pages all over a large
    /// memory ([`super::resident`]). Where the kernel does not tell which, the whole
    /// memory is written anew. Pages that are unmapped instead are faulted in again one
    /// at a time, and as they are copied on write, each of these faults interrupts every
    /// core that runs a thread of this process: two thirds of the time of a request to
    /// StarlingMonkey on two cores. Copying its 8 MiB takes less.
    Snapshots,
}

/// The size of the pools.
#[derive(Debug, Clone, Copy)]
pub struct PoolBounds {
    /// Most instances at the same time, on each engine.
    pub instances: u32,
    /// Largest memory that any function may ask for, in bytes.
    pub memory_bytes_max: u64,
    /// Memory of all guests together, in bytes.
    pub guest_memory_bytes_max: u64,
    /// Whether guests see clocks as fine as the machine has them.
    pub fine_clocks: bool,
}

/// What determines the machine code: shared by host and compile child.
///
/// # Errors
/// When wasmtime does not take the version stamp.
pub fn compiler_config(track: Track) -> wasmtime::Result<Config> {
    let concurrent = track == Track::Concurrent;
    let mut config = Config::new();
    config.module_version(ModuleVersionStrategy::Custom(ENGINE_VERSION.into()))?;
    config
        // Never Winch: strangers' code gets the compiler with the better record.
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // One job is one core: the other cores belong to requests.
        .parallel_compilation(false)
        // Guests' debug information is never parsed by the host; a trap's
        // function names come from the name section.
        .debug_info(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // With many modules, registering unwind information is quadratic.
        .native_unwind_info(false)
        .wasm_component_model(true)
        .wasm_component_model_async(concurrent)
        .concurrency_support(concurrent)
        // What no supported toolchain needs is not there to be attacked. Garbage
        // collection, exceptions and threads are not even compiled in.
        .wasm_memory64(false)
        .wasm_features(WasmFeatures::FUNCTION_REFERENCES | WasmFeatures::GC, false)
        .wasm_features(WasmFeatures::STACK_SWITCHING | WasmFeatures::CUSTOM_PAGE_SIZES, false)
        .wasm_features(WasmFeatures::WIDE_ARITHMETIC, false);
    Ok(config)
}

/// The configuration of an engine that runs guests: no compiler in it, and
/// instances from a pool.
///
/// # Errors
/// When a bound does not fit the machine's word.
pub fn host_config(track: Track, guests: Guests, bounds: &PoolBounds) -> wasmtime::Result<Config> {
    let mut config = compiler_config(track)?;
    config
        .enable_compiler(false)
        .async_stack_size(FIBER_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(track, guests, bounds)?));
    Ok(config)
}

/// Most memory mappings that the pools of all engines come to with so many
/// `instances`, whatever guests do.
#[must_use]
pub fn mappings_max(instances: u32) -> u32 {
    /// What lies before a memory's image, the image, what the guest may use behind
    /// it, what it may not.
    const PER_MEMORY: u32 = 4;
    /// Itself and its guard page.
    const PER_STACK: u32 = 2;
    let whole = instances.div_ceil(SNAPSHOT_INSTANCES_PART);
    let sequential = instances.saturating_add(whole);
    let memories = sequential.saturating_add(instances).saturating_mul(MEMORIES_PER_COMPONENT_MAX);
    let stacks = sequential.saturating_add(instances.saturating_mul(CONCURRENT_STACKS));
    memories.saturating_mul(PER_MEMORY).saturating_add(stacks.saturating_mul(PER_STACK))
}

fn pool(
    track: Track,
    guests: Guests,
    bounds: &PoolBounds,
) -> wasmtime::Result<PoolingAllocationConfig> {
    let mut pool = PoolingAllocationConfig::new();
    let instances = match guests {
        Guests::Ordinary => bounds.instances,
        Guests::Snapshots => bounds.instances.div_ceil(SNAPSHOT_INSTANCES_PART),
    };
    let stacks = match track {
        Track::Sequential => instances,
        Track::Concurrent => instances.saturating_mul(CONCURRENT_STACKS),
    };
    pool.total_component_instances(instances)
        .total_stacks(stacks)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT_MAX))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT_MAX))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_tables_per_module(TABLES_PER_MODULE_MAX)
        .max_memories_per_module(MEMORIES_PER_COMPONENT_MAX)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(usize::try_from(bounds.memory_bytes_max)?)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES);
    let is_told = PoolingAllocationConfig::is_pagemap_scan_available();
    if is_told {
        // The kernel tells which pages a guest wrote: only those are cleared,
        // and none is unmapped, which would interrupt every other core.
        pool.pagemap_scan(Enabled::Yes);
    }
    pool.linear_memory_keep_resident(match guests {
        Guests::Snapshots => SNAPSHOT_KEEP_RESIDENT_BYTES,
        Guests::Ordinary if is_told => MEMORY_KEEP_RESIDENT_BYTES,
        // What is kept must be cleared whole each time.
        Guests::Ordinary => 64 << 10,
    });
    Ok(pool)
}
