//! Driving a guest: every poll of it goes through here, so that its CPU time is
//! measured, its deadlines hold, and a panic ends nothing but this invocation.
//!
//! The guest is driven by whoever wants its response, first the request's
//! handler, then the response's body. There is no task of its own to leak:
//! dropping the [`Driver`] ends the guest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::Permit;
use super::turns::{Share, Turn, Turned};
use crate::engine::limits::CpuClock;
use crate::engine::run::Failure;

/// A guest with its permit, which is given back when the guest is gone,
/// wherever that is: fields are dropped in their order.
struct Guest {
    run: Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>,
    _permit: Permit,
}

/// Drives one guest.
pub struct Driver {
    state: State,
    cpu: Arc<CpuClock>,
    deadline: Instant,
    failure: Option<Failure>,
}

enum State {
    Running {
        /// Away while it is polled elsewhere.
        guest: Option<Guest>,
        /// Made when the guest waits for the first time: most never do.
        timer: Option<Pin<Box<Sleep>>>,
        turn: Turn<(Sliced, Arc<Woken>)>,
        share: Arc<Share>,
    },
    Ended,
}

/// What came of one poll of a guest: the guest, if it goes on, or its end.
type Sliced = Result<Guest, Result<(), Failure>>;

/// The waker of a guest that is polled elsewhere. Its task may be polled, and
/// find nothing to do, before the guest is back: so it is remembered that the
/// guest is to be polled again.
struct Woken {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake_by_ref();
    }
}

/// Polls a guest once, on whatever thread.
fn slice(mut guest: Guest, cpu: &CpuClock, share: &Share, context: &mut Context<'_>) -> Sliced {
    cpu.start_slice();
    let polled = catch_unwind(AssertUnwindSafe(|| guest.run.as_mut().poll(context)));
    let (cpu_is_over, due_ns) = cpu.end_slice();
    share.charge(due_ns);
    match polled {
        Err(panic) => Err(Err(Failure::Host(panic_text(panic.as_ref())))),
        Ok(Poll::Ready(result)) => Err(result),
        Ok(Poll::Pending) if cpu_is_over => Err(Err(Failure::CpuLimit)),
        Ok(Poll::Pending) => Ok(guest),
    }
}

impl Driver {
    /// A guest that has not been polled yet. Its limits count from here.
    pub fn new(
        guest: impl Future<Output = Result<(), Failure>> + Send + 'static,
        permit: Permit,
        cpu: Arc<CpuClock>,
        deadline: Instant,
    ) -> Self {
        let share = Arc::clone(permit.share());
        let guest = Guest { run: Box::pin(guest), _permit: permit };
        let state = State::Running { guest: Some(guest), timer: None, turn: Turn::None, share };
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

    /// Whether the guest is being polled on another thread. Until it is back,
    /// what it wrote meanwhile must be let be: why a stream ended is only known
    /// then.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Running { turn: Turn::Away(_), .. })
    }

    /// Why the guest ended, if not by itself. Given out once.
    #[must_use]
    pub fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Lets the guest run until it waits or ends. Once it has ended, its permit
    /// and its memory are free, and [`Self::take_failure`] knows why.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let State::Running { guest, timer, turn, share } = &mut self.state else {
            return Poll::Ready(());
        };
        let away = |context: &mut Context<'_>| {
            let (guest, task) = (guest.take()?, context.waker().clone());
            let (cpu, share) = (Arc::clone(&self.cpu), Arc::clone(share));
            let woken = Arc::new(Woken { woken: AtomicBool::new(false), task });
            Some(move || {
                let waker = Waker::from(Arc::clone(&woken));
                (slice(guest, &cpu, &share, &mut Context::from_waker(&waker)), woken)
            })
        };
        let sliced = match turn.poll(context, share, away) {
            Poll::Pending => None,
            Poll::Ready(Turned::Back(None)) => {
                Some(Err(Err(Failure::Host("the guest's thread was taken away".to_owned()))))
            }
            Poll::Ready(Turned::Back(Some((sliced, woken)))) => {
                if woken.woken.load(Ordering::SeqCst) {
                    context.waker().wake_by_ref();
                }
                Some(sliced)
            }
            Poll::Ready(Turned::Here) => {
                guest.take().map(|guest| slice(guest, &self.cpu, share, context))
            }
        };
        let result = match sliced {
            Some(Err(result)) => result,
            waits => {
                if let Some(Ok(waiting)) = waits {
                    *guest = Some(waiting);
                }
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
