//! What one store may use: memory summed over all its memories, tables and
//! instances. CPU time is in [`super::cpu`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::pool::{
    CORE_INSTANCES_PER_COMPONENT_MAX, MEMORIES_PER_COMPONENT_MAX, TABLES_PER_COMPONENT_MAX,
};

/// Memory that every guest may have whatever the host's bound says, in bytes:
/// a few guests with much memory must not keep small ones from running. It is
/// bounded by the number of guests, and costs them no counting.
const MEMORY_FREE_BYTES: u64 = 2 << 20;
/// Memory beyond that is taken from the host's bound in pieces of this size, in
/// bytes: most guests grow in small steps.
const MEMORY_PIECE_BYTES: u64 = 1 << 20;
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
    /// Whether memory was refused because of what all guests have together.
    pub host_memory_refused: AtomicBool,
    /// Log bytes written, kept or not.
    pub log_bytes: AtomicU64,
    /// Request body bytes that were read.
    pub request_bytes: AtomicU64,
    /// Whether the request body went over its limit.
    pub request_too_large: AtomicBool,
    /// Whether the request body ended before its end, or was malformed.
    pub request_broken: AtomicBool,
    /// Time from the first poll to the end of instantiation, in nanoseconds.
    pub init_ns: AtomicU64,
}

/// The memory of all guests together, beyond what each may always have.
#[derive(Debug)]
pub struct HostMemory {
    used_bytes: AtomicU64,
    bytes_max: u64,
}

impl HostMemory {
    /// A bound of this many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { used_bytes: AtomicU64::new(0), bytes_max }
    }

    /// What is taken now, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
    host: Arc<HostMemory>,
    /// What this store has taken of `host`, in bytes.
    taken_bytes: u64,
}

impl StoreLimiter {
    /// A limiter that allows `memory_bytes_max` over all memories of the store,
    /// as far as `host` has it.
    #[must_use]
    pub fn new(meter: Arc<Meter>, memory_bytes_max: u64, host: Arc<HostMemory>) -> Self {
        let memory_bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        Self { meter, memory_bytes_max, memory_bytes: 0, table_elements: 0, host, taken_bytes: 0 }
    }

    /// Makes sure that `sum` bytes are taken of the host's memory.
    fn take(&mut self, sum: u64) -> bool {
        let counted = sum.saturating_sub(MEMORY_FREE_BYTES);
        if counted <= self.taken_bytes {
            return true;
        }
        let wanted = counted.div_ceil(MEMORY_PIECE_BYTES).saturating_mul(MEMORY_PIECE_BYTES);
        let taken = self.host.take(wanted - self.taken_bytes);
        if taken {
            self.taken_bytes = wanted;
        }
        taken
    }
}

impl Drop for StoreLimiter {
    /// Comes after the store has given its memories back to the pool.
    fn drop(&mut self) {
        if self.taken_bytes > 0 {
            self.host.give_back(self.taken_bytes);
        }
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
        if !self.take(sum as u64) {
            self.meter.host_memory_refused.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_bounds_what_all_guests_have_together() {
        let host = Arc::new(HostMemory::new(10 << 20));
        let (meters, mebibyte) = ([Arc::<Meter>::default(), Arc::default()], 1 << 20);
        let limiter =
            |meter: &Arc<Meter>| StoreLimiter::new(Arc::clone(meter), 64 << 20, Arc::clone(&host));
        let [mut first, mut second] = meters.each_ref().map(limiter);
        // What every guest may have is not counted.
        assert!(first.memory_growing(0, 2 * mebibyte, None).unwrap());
        assert_eq!(host.used_bytes(), 0);
        assert!(first.memory_growing(2 * mebibyte, 8 * mebibyte + 1, None).unwrap());
        assert_eq!(host.used_bytes(), 7 << 20);
        assert!(second.memory_growing(0, 5 * mebibyte, None).unwrap());
        assert!(!second.memory_growing(5 * mebibyte, 6 * mebibyte, None).unwrap());
        assert!(meters[1].host_memory_refused.load(Ordering::Relaxed));
        assert!(!meters[1].memory_refused.load(Ordering::Relaxed));
        drop(first);
        assert!(second.memory_growing(5 * mebibyte, 6 * mebibyte, None).unwrap());
        drop(second);
        assert_eq!(host.used_bytes(), 0);
    }
}
