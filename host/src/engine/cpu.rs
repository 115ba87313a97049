//! The CPU time of invocations. To ask the kernel for it is a system call, and two
//! for each turn of a guest were a twentieth of a small request: it is asked only
//! where the wall clock, which can be read without it, can not tell.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use super::limits::Meter;

/// CPU time of one invocation that is worth counting for its function, in
/// nanoseconds. Most requests take less, and touch nothing that others do.
pub const DUE_NS: u64 = 500_000;
/// Slices below this are measured by the wall clock, in nanoseconds. A thread that
/// was held up in one bills this at most for it: whoever holds up a thread mostly
/// does so for longer.
const SHORT_NS: u64 = 50_000;
/// How old a reading of the thread's CPU time may be when a slice begins, in
/// nanoseconds. What the thread did between the two is billed at most, and only if
/// it was held up in a slice that is not short.
const FRESH_NS: u64 = 200_000;

fn now_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

/// The CPU time of a thread, and when it was read, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at_ns: u64,
    cpu_ns: u64,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

impl Reading {
    fn take() -> Self {
        // In this order: what is between the two is billed rather than given away.
        let cpu_ns = now_ns(ClockId::ThreadCPUTime);
        let reading = Self { at_ns: now_ns(ClockId::Monotonic), cpu_ns };
        LAST.set(Some(reading));
        reading
    }

    /// One that is good enough for a slice that begins now.
    fn recent(now_ns: u64) -> Self {
        let is_fresh = |last: &Self| now_ns.saturating_sub(last.at_ns) < FRESH_NS;
        LAST.get().filter(is_fresh).unwrap_or_else(Self::take)
    }
}

/// The CPU clock of one invocation. It runs while the guest's future is polled,
/// host calls included: a guest can not hide its use in them. It never shows less
/// than was used.
#[derive(Debug)]
pub struct CpuClock {
    meter: Arc<Meter>,
    /// When the running slice began, in nanoseconds of the wall clock.
    slice_start_ns: AtomicU64,
    /// The thread's CPU time then or a little before, in nanoseconds.
    thread_start_ns: AtomicU64,
    /// CPU time that [`Self::end_slice`] has not returned yet.
    due_ns: AtomicU64,
    limit_ns: u64,
}

impl CpuClock {
    /// A stopped clock.
    #[must_use]
    pub fn new(meter: Arc<Meter>, limit_ms: u64) -> Self {
        let limit_ns = limit_ms.saturating_mul(1_000_000);
        let [slice_start_ns, thread_start_ns, due_ns] = [0; 3].map(AtomicU64::new);
        Self { meter, slice_start_ns, thread_start_ns, due_ns, limit_ns }
    }

    /// Call on the thread that is about to poll the guest.
    pub fn start_slice(&self) {
        let now_ns = now_ns(ClockId::Monotonic);
        self.slice_start_ns.store(now_ns, Ordering::Relaxed);
        self.thread_start_ns.store(Reading::recent(now_ns).cpu_ns, Ordering::Relaxed);
    }

    /// Call on the same thread after the poll. Returns whether the limit is used
    /// up, and the CPU time that was not returned before, in nanoseconds: 0 until
    /// it is worth while to count it, [`DUE_NS`].
    pub fn end_slice(&self) -> (bool, u64) {
        let before = self.meter.cpu_ns.load(Ordering::Relaxed);
        let used = self.used_ns();
        // Only this invocation writes here, one thread at a time.
        self.meter.cpu_ns.store(used, Ordering::Relaxed);
        let due = self.due_ns.load(Ordering::Relaxed) + used.saturating_sub(before);
        let counted = if due < DUE_NS { 0 } else { due };
        self.due_ns.store(due - counted, Ordering::Relaxed);
        (used > self.limit_ns, counted)
    }

    /// Call in the slice in which the guest was instantiated.
    pub fn instantiated(&self) {
        self.meter.init_ns.store(self.slice_wall_ns().max(1), Ordering::Relaxed);
    }

    /// Whether the limit is used up, asked on the thread on which the guest runs.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.used_ns() > self.limit_ns
    }

    fn used_ns(&self) -> u64 {
        self.meter.cpu_ns.load(Ordering::Relaxed) + self.slice_ns()
    }

    /// What the running slice has used. No thread has more CPU time than time.
    fn slice_ns(&self) -> u64 {
        let wall_ns = self.slice_wall_ns();
        if wall_ns < SHORT_NS {
            return wall_ns;
        }
        let thread_start_ns = self.thread_start_ns.load(Ordering::Relaxed);
        wall_ns.min(Reading::take().cpu_ns.saturating_sub(thread_start_ns))
    }

    fn slice_wall_ns(&self) -> u64 {
        let start_ns = self.slice_start_ns.load(Ordering::Relaxed);
        now_ns(ClockId::Monotonic).saturating_sub(start_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn thread_cpu_ns() -> u64 {
        now_ns(ClockId::ThreadCPUTime)
    }

    fn spin(cpu_ns: u64) {
        let end_ns = thread_cpu_ns() + cpu_ns;
        while thread_cpu_ns() < end_ns {}
    }

    /// What was billed for a slice, and the CPU time that it really took.
    fn slice(clock: &CpuClock, work: impl FnOnce()) -> (u64, u64) {
        let before_ns = clock.meter.cpu_ns.load(Ordering::Relaxed);
        clock.start_slice();
        let start_ns = thread_cpu_ns();
        work();
        let cpu_ns = thread_cpu_ns() - start_ns;
        clock.end_slice();
        (clock.meter.cpu_ns.load(Ordering::Relaxed) - before_ns, cpu_ns)
    }

    #[test]
    fn no_slice_is_billed_less_than_it_used() {
        let clock = CpuClock::new(Arc::default(), 1000);
        for spun_ns in [0, 1_000, 10_000, 40_000, 60_000, 100_000, 3_000_000] {
            for _ in 0..50 {
                let (billed_ns, cpu_ns) = slice(&clock, || spin(spun_ns));
                // By so much at most the two clocks differ while one is being set.
                let set_ns = cpu_ns / 1000;
                assert!(billed_ns + set_ns >= cpu_ns, "{billed_ns} of {cpu_ns}");
                // What is done between slices, of which none may be billed.
                spin(spun_ns / 2);
            }
        }
    }

    #[test]
    fn a_slice_that_was_held_up_is_billed_what_it_used() {
        let clock = CpuClock::new(Arc::default(), 1000);
        // Used before, by somebody else.
        spin(FRESH_NS);
        for _ in 0..20 {
            spin(FRESH_NS / 4);
            let (release, held) = mpsc::channel();
            let (billed_ns, cpu_ns) = slice(&clock, || {
                std::thread::spawn(move || {
                    spin(20_000_000);
                    release.send(())
                });
                held.recv().expect("the other thread's word");
            });
            let more_ns = billed_ns.saturating_sub(cpu_ns);
            assert!(more_ns <= FRESH_NS + SHORT_NS, "{billed_ns} of {cpu_ns}");
        }
    }

    #[test]
    fn the_limit_is_noticed_in_the_middle_of_a_slice() {
        let clock = CpuClock::new(Arc::default(), 2);
        clock.start_slice();
        assert!(!clock.is_over());
        spin(2_100_000);
        assert!(clock.is_over());
        let (is_over, counted_ns) = clock.end_slice();
        assert!(is_over && counted_ns >= 2_100_000, "{counted_ns}");
    }
}
