//! Requests that are there together go in step.
//!
//! A request runs through 200 KB of code once, many times what a processor's first
//! cache holds, and its answer wakes its client. Where many are there at the same time,
//! each step is done for all of them before the next: its code is there for all but the
//! first, and a client that is woken finds several answers. The first few go straight
//! through, so that their clients have something to do meanwhile.
//!
//! Nobody waits for a guest that computes: on a thread that has seen one of late all
//! go straight through.

use std::cell::Cell;

use super::turns::later;
use crate::engine::epoch;

/// Requests that go straight through since the thread last had nothing to do. With as
/// many connections for each thread, going in step is slower.
const STRAIGHT: u32 = 4;
/// CPU time of a turn of a guest that may hold up answers, in nanoseconds.
const QUICK_NS: u64 = 100_000;
/// How long a thread remembers a longer one, in ticks.
const SLOW_TICKS: u32 = 10;

thread_local! {
    /// Requests since this thread last had nothing to do.
    static BEGUN: Cell<u32> = const { Cell::new(0) };
    /// The tick at which this thread's last turn that was not quick is forgotten.
    static SLOW_UNTIL_TICKS: Cell<u32> = const { Cell::new(0) };
}

/// Call when a thread has nothing to do.
pub fn rest() {
    BEGUN.set(0);
}

/// Notes the CPU time of a turn of a guest on this thread.
pub fn note_turn(cpu_ns: u64) {
    if cpu_ns >= QUICK_NS {
        SLOW_UNTIL_TICKS.set(epoch::ticks().wrapping_add(SLOW_TICKS));
    }
}

/// How one request goes.
#[derive(Debug)]
pub struct Pace {
    in_step: bool,
}

impl Pace {
    /// That of a request which begins on this thread.
    #[must_use]
    pub fn of_request() -> Self {
        let begun = BEGUN.get().saturating_add(1);
        BEGUN.set(begun);
        Self { in_step: begun > STRAIGHT }
    }

    /// Lets those that are there together, or come meanwhile, come as far as this one.
    pub async fn keep(&self) {
        let now = epoch::ticks();
        if self.in_step && later(SLOW_UNTIL_TICKS.get(), now) == now {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    /// The steps of so many requests that are there together, in their order.
    async fn steps(requests: u32) -> Vec<(u32, &'static str)> {
        let steps = Rc::new(RefCell::new(Vec::new()));
        let together = LocalSet::new();
        for request in 0..requests {
            let steps = Rc::clone(&steps);
            together.spawn_local(async move {
                let pace = Pace::of_request();
                steps.borrow_mut().push((request, "read"));
                pace.keep().await;
                steps.borrow_mut().push((request, "answered"));
            });
        }
        together.await;
        steps.take()
    }

    fn straight(requests: std::ops::Range<u32>) -> Vec<(u32, &'static str)> {
        requests.flat_map(|request| [(request, "read"), (request, "answered")]).collect()
    }

    #[tokio::test]
    async fn many_go_in_step_but_for_the_first() {
        for _ in 0..2 {
            rest();
            let seen = steps(STRAIGHT + 3).await;
            let (first, others) = seen.split_at(2 * STRAIGHT as usize);
            assert_eq!(first, straight(0..STRAIGHT));
            let (read, answered) = others.split_at(3);
            assert!(read.iter().all(|(_, step)| *step == "read"), "{seen:?}");
            assert!(answered.iter().all(|(_, step)| *step == "answered"), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_guest_that_computes() {
        rest();
        note_turn(QUICK_NS);
        assert_eq!(steps(20).await, straight(0..20));
        // Long ago.
        SLOW_UNTIL_TICKS.set(epoch::ticks());
        note_turn(QUICK_NS - 1);
        assert_ne!(steps(20).await, straight(0..20));
    }
}
