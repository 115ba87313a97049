//! Driving a guest: every poll of it goes through here, so that its CPU time is
//! measured, its deadlines hold, and a panic ends nothing but this invocation.
//!
//! The guest is driven by whoever wants its response, first the request's
//! handler, then the response's body. There is no task of its own to leak:
//! dropping the [`Driver`] ends the guest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::Permit;
use super::turns::Turn;
use crate::engine::limits::CpuClock;
use crate::engine::run::Failure;

type Guest = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A running guest with its permit.
pub struct Driver {
    state: State,
    cpu: Arc<CpuClock>,
    deadline: Instant,
    failure: Option<Failure>,
}

enum State {
    Running {
        guest: Guest,
        /// Made when the guest waits for the first time: most never do.
        timer: Option<Pin<Box<Sleep>>>,
        turn: Turn,
        permit: Permit,
    },
    Ended,
}

impl Driver {
    /// A guest that has not been polled yet. Its limits count from here.
    pub fn new(
        guest: impl Future<Output = Result<(), Failure>> + Send + 'static,
        permit: Permit,
        cpu: Arc<CpuClock>,
        deadline: Instant,
    ) -> Self {
        let (timer, turn) = (None, Turn::None);
        let state = State::Running { guest: Box::pin(guest), timer, turn, permit };
        Self { state, cpu, deadline, failure: None }
    }

    /// Hands the guest to another driver; this one has nothing left to drive.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let state = std::mem::replace(&mut self.state, State::Ended);
        Self { state, cpu: Arc::clone(&self.cpu), deadline: self.deadline, failure: None }
    }

    /// When the guest's wall time is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the guest has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Why the guest ended, if not by itself. Given out once.
    #[must_use]
    pub fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Lets the guest run until it waits or ends. Once it has ended, its permit
    /// and its memory are free, and [`Self::take_failure`] knows why.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let State::Running { guest, timer, turn, permit } = &mut self.state else {
            return Poll::Ready(());
        };
        let result = if turn.poll(context, permit.share()).is_pending() {
            None
        } else {
            self.cpu.start_slice();
            let polled = catch_unwind(AssertUnwindSafe(|| guest.as_mut().poll(context)));
            let (cpu_is_over, slice_ns) = self.cpu.end_slice();
            turn.end();
            permit.share().charge(slice_ns);
            match polled {
                Err(panic) => Some(Err(Failure::Host(panic_text(panic.as_ref())))),
                Ok(Poll::Ready(result)) => Some(result),
                Ok(Poll::Pending) => cpu_is_over.then_some(Err(Failure::CpuLimit)),
            }
        };
        let result = match result {
            Some(result) => result,
            None => {
                let deadline = self.deadline;
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                std::task::ready!(timer.as_mut().poll(context));
                Err(Failure::Timeout)
            }
        };
        self.state = State::Ended;
        self.failure = result.err();
        Poll::Ready(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("of unknown kind"))
}
