//! Turns on the processors.
//!
//! A guest that computes for long gives way at every tick, and would be one of
//! many that wait for a thread again. With many such guests that is many slices
//! of 10 ms, some instructions take longer, and everybody's request would wait
//! for all of them. So the guests of a function that has used much CPU time of
//! late wait for a turn. There are as many turns as processors, and functions
//! share them fairly ([`super::fair`]). Who has a turn is polled on a thread of its
//! own, so that requests have theirs to themselves; but not if the function has
//! been quick with each of its turns: going there and back takes longer than what
//! the others would wait. Unless two would have theirs on the same thread.
//!
//! Functions that use little, nearly all, only read one number here.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::fair::{Entered, FairQueue, Key, Place, Waiting};
use super::tasks::own_worker;
use crate::engine::epoch::{self, TICK};

/// A function may use a processor for one part in this many without turns.
const SHARE: u64 = 4;
/// How far ahead of its share a function may be, in ticks.
const AHEAD_TICKS_MAX: u32 = 8;
/// Most that a function can owe, in ticks: two seconds after it has stopped it
/// is like any other.
const DEBT_TICKS_MAX: u32 = 200;

/// CPU time of one turn from which on it is long, in nanoseconds: what every
/// request on the same thread may have to wait. Half a tick: who computes on and
/// on has a whole one, and an interpreter's request, of a millisecond, takes three
/// where the processor is shared.
const LONG_NS: u64 = 5_000_000;
/// How long a function is remembered for a long turn, in ticks.
const LONG_TICKS: u32 = 100;

/// The process's processors.
static TURNS: LazyLock<Arc<FairQueue>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Who waits has been admitted already: its number is bounded.
    FairQueue::over(processors, processors, usize::MAX)
});

/// What one function has used of the processors of late.
#[derive(Debug, Default)]
pub struct Share {
    /// The tick at which the function's share pays for what it has used.
    paid_ticks: AtomicU32,
    /// The tick at which its last long turn is forgotten.
    long_until_ticks: AtomicU32,
}

impl Share {
    /// Charges the function for the CPU time of a turn of one of its guests.
    pub fn charge_turn(&self, cpu_ns: u64) {
        if cpu_ns >= LONG_NS {
            let until = epoch::ticks().wrapping_add(LONG_TICKS);
            self.long_until_ticks.store(until, Ordering::Relaxed);
        }
        self.charge(cpu_ns);
    }

    /// Charges the function for CPU time that was used for one of its guests.
    pub fn charge(&self, cpu_ns: u64) {
        if cpu_ns == 0 {
            return;
        }
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        let cost = (cpu_ns.saturating_mul(SHARE) / tick_ns).max(1);
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

    /// Whether one of its guests has taken long of late.
    fn takes_long(&self) -> bool {
        let now = epoch::ticks();
        later(self.long_until_ticks.load(Ordering::Relaxed), now) != now
    }
}

/// The later of two ticks of a clock that wraps. What is further ahead than can
/// be is long ago.
pub(super) fn later(paid: u32, now: u32) -> u32 {
    if paid.wrapping_sub(now) <= u32::MAX / 2 { paid } else { now }
}

/// Where one guest is with its turn.
#[derive(Default)]
pub enum Turn<T> {
    /// It has not asked for one.
    #[default]
    None,
    /// It is in the line.
    Line(Waiting),
    /// It has got one, and runs on a thread of its own.
    Away(JoinHandle<T>),
}

/// What [`Turn::poll`] came to.
pub enum Turned<T> {
    /// Poll the guest here, and keep its place, if it needed one, until then.
    Here(Option<Place>),
    /// The guest was polled elsewhere, and this came of it. None if that thread
    /// was taken away, as happens when the process ends.
    Back(Option<T>),
}

impl<T: Send + 'static> Turn<T> {
    /// Waits for a turn, if one is needed, and then for `work` to be done in it, which
    /// gives the place back.
    pub fn poll<W>(
        &mut self,
        context: &mut Context<'_>,
        share: &Arc<Share>,
        work: impl FnOnce() -> Option<W>,
    ) -> Poll<Turned<T>>
    where
        W: FnOnce(Option<Place>) -> T + Send + 'static,
    {
        let mut place = match self {
            Self::None if !share.is_heavy() => return Poll::Ready(Turned::Here(None)),
            Self::None => match TURNS.enter(Arc::as_ptr(share) as Key, own_worker()) {
                Entered::Place(place) => Some(place),
                Entered::Line(mut waiting) => {
                    let waited = Pin::new(&mut waiting).poll(context);
                    *self = Self::Line(waiting);
                    ready!(waited)
                }
                Entered::Full => return Poll::Ready(Turned::Here(None)),
            },
            Self::Line(waiting) => ready!(Pin::new(waiting).poll(context)),
            Self::Away(_) => None,
        };
        if !matches!(self, Self::Away(_)) {
            let is_crowded = place.as_ref().is_some_and(Place::shares_its_worker);
            if !share.takes_long() && !is_crowded {
                *self = Self::None;
                return Poll::Ready(Turned::Here(place));
            }
            let Some(work) = work() else {
                return Poll::Ready(Turned::Back(None));
            };
            if let Some(place) = &mut place {
                place.leave_worker();
            }
            *self = Self::Away(tokio::task::spawn_blocking(move || work(place)));
        }
        let Self::Away(handle) = self else {
            return Poll::Ready(Turned::Here(None));
        };
        let back = ready!(Pin::new(handle).poll(context));
        *self = Self::None;
        Poll::Ready(Turned::Back(back.ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_comes_back() {
        let share = Share::default();
        share.charge(0);
        assert!(!share.is_heavy());
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
    fn a_long_turn_is_remembered_and_forgotten() {
        let share = Share::default();
        for _ in 0..1000 {
            share.charge_turn(LONG_NS - 1);
        }
        assert!(!share.takes_long());
        share.charge(LONG_NS);
        assert!(!share.takes_long(), "it was no turn");
        share.charge_turn(LONG_NS);
        assert!(share.takes_long());
        let long_ago = epoch::ticks().wrapping_sub(1);
        share.long_until_ticks.store(long_ago, Ordering::Relaxed);
        assert!(!share.takes_long());
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(later(5, 3), 5);
        assert_eq!(later(3, 5), 5);
        assert_eq!(later(u32::MAX - 1, 2), 2);
        assert_eq!(later(2, u32::MAX - 1), 2);
    }
}
