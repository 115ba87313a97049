//! What one store may use: memory summed over all its memories, tables,
//! instances, and CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::pool::{
    CORE_INSTANCES_PER_COMPONENT_MAX, MEMORIES_PER_COMPONENT_MAX, TABLES_PER_COMPONENT_MAX,
};

/// Table elements of one store, summed.
const TABLE_ELEMENTS_SUM_MAX: usize = 400_000;

/// What an invocation has used so far; shared by the store, which fills it in,
/// and the receipt, which is written from it however the invocation ends.
#[derive(Debug, Default)]
pub struct Meter {
    /// CPU time in nanoseconds, up to the last poll of the guest.
    pub cpu_ns: AtomicU64,
    /// Highest summed linear memory, in bytes.
    pub memory_peak_bytes: AtomicU64,
    /// Whether memory was refused: a guest that fails after that, failed for that.
    pub memory_refused: AtomicBool,
    /// Log bytes written, kept or not.
    pub log_bytes: AtomicU64,
    /// Request body bytes that were read.
    pub request_bytes: AtomicU64,
    /// Whether the request body went over its limit.
    pub request_too_large: AtomicBool,
    /// Whether the request body ended before its end, or was malformed.
    pub request_broken: AtomicBool,
    /// Time from the start of the store to the end of instantiation, in nanoseconds.
    pub init_ns: AtomicU64,
}

/// CPU time of this thread, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

/// The CPU clock of one invocation. It runs while the guest's future is polled,
/// host calls included: a guest can not hide its use in them.
#[derive(Debug)]
pub struct CpuClock {
    meter: Arc<Meter>,
    /// Thread CPU time at which the running poll began, in nanoseconds.
    slice_start_ns: AtomicU64,
    limit_ns: u64,
}

impl CpuClock {
    /// A stopped clock.
    #[must_use]
    pub fn new(meter: Arc<Meter>, limit_ms: u64) -> Self {
        let limit_ns = limit_ms.saturating_mul(1_000_000);
        Self { meter, slice_start_ns: AtomicU64::new(0), limit_ns }
    }

    /// Call on the thread that is about to poll the guest.
    pub fn start_slice(&self) {
        self.slice_start_ns.store(thread_cpu_ns(), Ordering::Relaxed);
    }

    /// Call on the same thread after the poll. Returns whether the limit is used up.
    pub fn end_slice(&self) -> bool {
        let used = self.used_ns();
        // Only this invocation writes here, one thread at a time.
        self.meter.cpu_ns.store(used, Ordering::Relaxed);
        used > self.limit_ns
    }

    /// Whether the limit is used up, asked while the guest runs.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.used_ns() > self.limit_ns
    }

    fn used_ns(&self) -> u64 {
        let slice = thread_cpu_ns().saturating_sub(self.slice_start_ns.load(Ordering::Relaxed));
        self.meter.cpu_ns.load(Ordering::Relaxed) + slice
    }
}

/// wasmtime's own limits are for each memory; a component can have many. This
/// one sums.
#[derive(Debug)]
pub struct StoreLimiter {
    meter: Arc<Meter>,
    memory_bytes_max: usize,
    memory_bytes: usize,
    table_elements: usize,
}

impl StoreLimiter {
    /// A limiter that allows `memory_bytes_max` over all memories of the store.
    #[must_use]
    pub fn new(meter: Arc<Meter>, memory_bytes_max: u64) -> Self {
        let memory_bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        Self { meter, memory_bytes_max, memory_bytes: 0, table_elements: 0 }
    }
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let sum = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if sum > self.memory_bytes_max {
            self.meter.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            // wasmtime refuses this growth after we allow it: it must not be counted.
            return Ok(false);
        }
        self.memory_bytes = sum;
        self.meter.memory_peak_bytes.store(sum as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The size that was asked for stays counted, so that the sum errs on
        // the safe side; a growth that fails below us is rare.
        self.meter.memory_refused.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(desired.saturating_sub(current));
        if sum > TABLE_ELEMENTS_SUM_MAX {
            self.meter.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_COMPONENT_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_COMPONENT_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_COMPONENT_MAX as usize
    }
}
