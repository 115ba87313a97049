//! Waiting for several things of the host at once.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};

thread_local! {
    /// Everything that a future waits for. What was dropped meanwhile is skipped.
    static WAITS: RefCell<Vec<Weak<Wait>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Wait {
    pollable: Pollable,
    /// Set as long as this is among the waits.
    waker: RefCell<Option<Waker>>,
}

/// Something of the host that becomes ready, as a future.
#[derive(Debug)]
pub(crate) struct Readiness(Rc<Wait>);

impl Readiness {
    pub(crate) fn new(pollable: Pollable) -> Self {
        Readiness(Rc::new(Wait {
            pollable,
            waker: RefCell::new(None),
        }))
    }

    pub(crate) fn after(duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Readiness::new(monotonic_clock::subscribe_duration(nanoseconds))
    }

    pub(crate) fn wake_when_ready(&self, waker: &Waker) {
        let before = self.0.waker.replace(Some(waker.clone()));
        if before.is_none() {
            WAITS.with_borrow_mut(|waits| waits.push(Rc::downgrade(&self.0)));
        }
    }
}

impl Future for Readiness {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.pollable.ready() {
            return Poll::Ready(());
        }
        self.wake_when_ready(context.waker());
        Poll::Pending
    }
}

/// How long [`wake`] may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Now,
    UntilOne,
}

/// Wakes the futures whose wait is over.
///
/// # Panics
/// When it was to wait and there is nothing to wait for: no one could end that wait.
pub(crate) fn wake(patience: Patience) {
    let waits: Vec<Rc<Wait>> = WAITS
        .take()
        .into_iter()
        .filter_map(|wait| wait.upgrade())
        .collect();
    if patience == Patience::UntilOne {
        assert!(
            !waits.is_empty(),
            "a future waits for something that is not of this crate, and that nothing here can wake"
        );
        poll(&waits.iter().map(|wait| &wait.pollable).collect::<Vec<_>>());
    }
    for wait in waits {
        if wait.pollable.ready() {
            wait.waker.take().inspect(Waker::wake_by_ref);
        } else {
            WAITS.with_borrow_mut(|waits| waits.push(Rc::downgrade(&wait)));
        }
    }
}
