//! Turns on the processors.
//!
//! A guest that computes for long gives way at every tick, and would be behind
//! all that wait for a processor. With many such guests that is many slices of
//! 10 ms: everybody's request would wait for all of them. So a function that
//! has used much CPU time of late runs only in its turn. There are as many turns
//! as processors, functions share them fairly ([`super::fair`]), and who waits
//! for one is in no run queue: a request of anybody else waits for the slices
//! that run now, and for no other.
//!
//! Functions that use little, nearly all, only read one number here.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use super::fair::{Entered, FairQueue, Place, Waiting};
use crate::engine::epoch::{self, TICK};

/// A poll of a guest that took less is not charged: what is short can not hold
/// up others for long, and most requests are.
const SLICE_FREE_NS: u64 = 500_000;
/// A function may use a processor for one part in this many without turns.
const SHARE: u64 = 4;
/// How far ahead of its share a function may be, in ticks.
const AHEAD_TICKS_MAX: u32 = 8;
/// Most that a function can owe, in ticks: two seconds after it has stopped it
/// is like any other.
const DEBT_TICKS_MAX: u32 = 200;

/// The process's processors. As many turns as worker threads.
static TURNS: LazyLock<Arc<FairQueue>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Who waits has been admitted already: its number is bounded.
    FairQueue::new(processors, usize::MAX)
});

/// What one function has used of the processors of late.
#[derive(Debug, Default)]
pub struct Share {
    /// The tick at which the function's share pays for what it has used.
    paid_ticks: AtomicU32,
}

impl Share {
    /// Charges the function for a poll of one of its guests.
    pub fn charge(&self, slice_ns: u64) {
        if slice_ns < SLICE_FREE_NS {
            return;
        }
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        let cost = (slice_ns.saturating_mul(SHARE) / tick_ns).max(1);
        let cost = u32::try_from(cost).unwrap_or(DEBT_TICKS_MAX);
        let now = epoch::ticks();
        let pay = |paid: u32| {
            let owed = later(paid, now).wrapping_sub(now);
            Some(now.wrapping_add(owed.saturating_add(cost).min(DEBT_TICKS_MAX)))
        };
        // Always Ok: the closure is never None.
        let _ = self.paid_ticks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Whether its guests need a turn.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        let (paid, now) = (self.paid_ticks.load(Ordering::Relaxed), epoch::ticks());
        later(paid, now).wrapping_sub(now) > AHEAD_TICKS_MAX
    }
}

/// The later of two ticks of a clock that wraps. What is further ahead than can
/// be is long ago.
fn later(paid: u32, now: u32) -> u32 {
    if paid.wrapping_sub(now) <= u32::MAX / 2 { paid } else { now }
}

/// Where one guest is with its turn.
#[derive(Default)]
pub enum Turn {
    /// It has none and has not asked for one.
    #[default]
    None,
    /// It is in the line.
    Line(Waiting),
    /// It has got one, and lets the worker look first for what came in
    /// meanwhile: else one slice would follow the other. Also where a turn was
    /// free: while it is held here, others that are ready get in line, out of
    /// the run queue.
    Granted(Option<Place>, Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It may run, until [`Turn::end`].
    Running(Option<Place>),
}

impl Turn {
    /// Ready when the guest may be polled.
    pub fn poll(&mut self, context: &mut Context<'_>, share: &Arc<Share>) -> Poll<()> {
        loop {
            *self = match self {
                Self::None if !share.is_heavy() => return Poll::Ready(()),
                Self::None => match TURNS.enter(Arc::as_ptr(share) as usize) {
                    Entered::Place(place) => Self::granted(Some(place)),
                    Entered::Line(waiting) => Self::Line(waiting),
                    Entered::Full => return Poll::Ready(()),
                },
                Self::Line(waiting) => {
                    let place = ready!(Pin::new(waiting).poll(context));
                    Self::granted(place)
                }
                Self::Granted(place, pause) => {
                    ready!(pause.as_mut().poll(context));
                    Self::Running(place.take())
                }
                Self::Running(_) => return Poll::Ready(()),
            };
        }
    }

    fn granted(place: Option<Place>) -> Self {
        Self::Granted(place, Box::pin(tokio::task::yield_now()))
    }

    /// The guest was polled: its turn is somebody else's.
    pub fn end(&mut self) {
        if !matches!(self, Self::None) {
            *self = Self::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_comes_back() {
        let share = Share::default();
        for _ in 0..1000 {
            share.charge(SLICE_FREE_NS - 1);
        }
        assert!(!share.is_heavy(), "short polls are free");
        for _ in 0..10 {
            share.charge(10_000_000);
        }
        assert!(share.is_heavy());
        let paid = share.paid_ticks.load(Ordering::Relaxed);
        assert!(paid.wrapping_sub(epoch::ticks()) <= 40);
        for _ in 0..10_000 {
            share.charge(u64::MAX);
        }
        let paid = share.paid_ticks.load(Ordering::Relaxed);
        assert!(paid.wrapping_sub(epoch::ticks()) <= DEBT_TICKS_MAX, "a debt has an end");
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(later(5, 3), 5);
        assert_eq!(later(3, 5), 5);
        assert_eq!(later(u32::MAX - 1, 2), 2);
        assert_eq!(later(2, u32::MAX - 1), 2);
    }
}
