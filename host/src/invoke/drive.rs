//! Driving a guest: every poll of it goes through here, so that its CPU time is
//! measured, its deadlines hold, and a panic ends nothing but this invocation.
//!
//! The guest is driven by whoever wants its response, first the request's
//! handler, then the response's body. There is no task of its own to leak:
//! dropping the [`Driver`] ends the guest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::Permit;
use super::fair::Place;
use super::pace;
use super::turns::{Share, Turn, Turned};
use crate::engine::cpu::CpuClock;
use crate::engine::run::{Ended, Failure, Remains, Run};

/// Polls of a guest in a row, while it wakes itself. A 0.3 request takes three or
/// four; what goes on for longer is to let others pass.
const ROUNDS_MAX: u32 = 8;

/// A guest with its permit, which is given back when the guest is gone,
/// wherever that is: fields are dropped in their order.
struct Guest {
    run: Run,
    permit: Permit,
}

/// What is left of a guest, with its turn, if it needed one, and its permit.
struct Left {
    remains: Remains,
    place: Option<Place>,
    permit: Permit,
}

impl Left {
    /// Makes the guest's memory new on a thread for what takes long: nobody's answer
    /// waits for it. The function is charged for it, nobody is billed.
    fn clear_soon(mut self, share: Arc<Share>) {
        if let Some(place) = &mut self.place {
            place.leave_worker();
        }
        tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            Handle::current().block_on(self.remains);
            share.charge(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
            drop((self.place, self.permit));
        });
    }
}

/// Drives one guest.
pub struct Driver {
    state: State,
    cpu: Arc<CpuClock>,
    deadline: Instant,
    failure: Option<Failure>,
    /// The guest is to be polled again, and its task does not know yet.
    woken: bool,
}

enum State {
    Running {
        /// Away while it is polled elsewhere.
        guest: Option<Guest>,
        /// Made when the guest waits for the first time: most never do.
        timer: Option<Pin<Box<Sleep>>>,
        turn: Turn<Sliced>,
        share: Arc<Share>,
        /// Made anew when another task drives the guest.
        waker: Option<Arc<GuestWaker>>,
    },
    Ended,
}

/// What came of one poll of a guest: the guest, if it goes on, or its end.
type Sliced = Result<Guest, (Result<(), Failure>, Option<Left>)>;

/// The waker of a guest. What wakes it while it is being polled is noted, not
/// passed on: whoever polls it looks afterwards. A 0.3 guest's tasks wake each
/// other many times in one request; and while a guest is polled elsewhere, the
/// task that waits for it could do nothing with the news.
struct GuestWaker {
    state: AtomicU8,
    task: Waker,
}

/// Nobody polls the guest.
const RESTING: u8 = 0;
/// Somebody does.
const POLLED: u8 = 1;
/// Somebody does, and the guest is to be polled again.
const WOKEN: u8 = 2;

impl GuestWaker {
    /// Call before a poll. What has woken the guest before leads to this poll.
    fn poll_begins(&self) {
        self.state.store(POLLED, Ordering::SeqCst);
    }

    /// Whether the guest has been woken since its poll began.
    fn is_woken(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WOKEN
    }

    /// Call when the guest is back from its polls: what wakes it from here on
    /// wakes its task. Returns whether it is to be polled again at once.
    fn rests(&self) -> bool {
        self.state.swap(RESTING, Ordering::SeqCst) == WOKEN
    }
}

impl Wake for GuestWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = |state| (state == POLLED).then_some(WOKEN);
        let noted = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, woken);
        if noted == Err(RESTING) {
            self.task.wake_by_ref();
        }
    }
}

/// Polls a guest, on whatever thread, until it waits for something that is not
/// there; but `rounds` times at most. Its place is free again after that, or when
/// what is left of it is cleared.
fn slice(
    mut guest: Guest,
    cpu: &CpuClock,
    share: &Share,
    waker: &Arc<GuestWaker>,
    rounds: u32,
    place: Option<Place>,
) -> Sliced {
    let as_waker = Waker::from(Arc::clone(waker));
    let mut context = Context::from_waker(&as_waker);
    let mut round = 0;
    cpu.start_slice();
    let polled = catch_unwind(AssertUnwindSafe(|| {
        loop {
            waker.poll_begins();
            let polled = guest.run.as_mut().poll(&mut context);
            round += 1;
            if polled.is_ready() || round >= rounds || !waker.is_woken() {
                return polled;
            }
        }
    }));
    let (cpu_is_over, due_ns) = cpu.end_slice();
    share.charge_turn(due_ns);
    pace::note_turn(due_ns);
    match polled {
        Err(panic) => Err((Err(Failure::Host(panic_text(panic.as_ref()))), None)),
        Ok(Poll::Ready(Ended { result, remains })) => {
            let permit = guest.permit;
            Err((result, remains.map(|remains| Left { remains, place, permit })))
        }
        Ok(Poll::Pending) if cpu_is_over => Err((Err(Failure::CpuLimit), None)),
        Ok(Poll::Pending) => Ok(guest),
    }
}

impl Driver {
    /// A guest that has not been polled yet. Its limits count from here.
    pub fn new(run: Run, permit: Permit, cpu: Arc<CpuClock>, deadline: Instant) -> Self {
        let share = Arc::clone(permit.share());
        let guest = Guest { run, permit };
        let state = State::Running {
            guest: Some(guest),
            timer: None,
            turn: Turn::None,
            share,
            waker: None,
        };
        Self { state, cpu, deadline, failure: None, woken: false }
    }

    /// Hands the guest to another driver; this one has nothing left to drive.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let (cpu, deadline) = (Arc::clone(&self.cpu), self.deadline);
        Self { state, cpu, deadline, failure: None, woken: false }
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

    /// Lets the guest run until it waits or ends, or its wall time is over. Once it
    /// has ended, its permit and its memory are free, or soon will be, and
    /// [`Self::take_failure`] knows why.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.poll_guest(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_deadline(context),
        }
    }

    /// The same without a timer: for who can go on with what the guest has made. Who
    /// can not has to call [`Self::poll_deadline`] before it waits, or nobody wakes
    /// the guest, nor ends it.
    pub fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.woken = false;
        let State::Running { guest, turn, share, waker, .. } = &mut self.state else {
            return Poll::Ready(());
        };
        // The waker of a guest that is away is with it.
        let is_away = matches!(turn, Turn::Away(_));
        let waker = match waker {
            Some(waker) if is_away || waker.task.will_wake(context.waker()) => waker,
            other => other.insert(Arc::new(GuestWaker {
                state: AtomicU8::new(RESTING),
                task: context.waker().clone(),
            })),
        };
        let away = || {
            let (guest, waker) = (guest.take()?, Arc::clone(waker));
            let (cpu, share) = (Arc::clone(&self.cpu), Arc::clone(share));
            // Once: what a guest gives way with on such a thread wakes it at once.
            Some(move |place| slice(guest, &cpu, &share, &waker, 1, place))
        };
        let sliced = match turn.poll(context, share, away) {
            Poll::Pending => None,
            Poll::Ready(Turned::Back(None)) => {
                let failure = Failure::Host("the guest's thread was taken away".to_owned());
                Some(Err((Err(failure), None)))
            }
            Poll::Ready(Turned::Back(sliced)) => sliced,
            Poll::Ready(Turned::Here(place)) => {
                guest.take().map(|guest| slice(guest, &self.cpu, share, waker, ROUNDS_MAX, place))
            }
        };
        match sliced {
            Some(Err((result, left))) => {
                if let Some(left) = left {
                    left.clear_soon(Arc::clone(share));
                }
                self.end(result);
                return Poll::Ready(());
            }
            Some(Ok(waiting)) => {
                *guest = Some(waiting);
                // It may have been handed to another task while it was away.
                self.woken = waker.rests() || !waker.task.will_wake(context.waker());
            }
            None => {}
        }
        // A guest that always has more for its client is never waited for.
        if Instant::now() >= self.deadline {
            self.end(Err(Failure::Timeout));
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ends the guest if its wall time is over, and has the task woken when it is:
    /// at once if the guest is to be polled again.
    pub fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let State::Running { timer, .. } = &mut self.state else {
            return Poll::Pending;
        };
        if std::mem::take(&mut self.woken) {
            // Who comes back at once needs no timer, which wakes a thread to be set.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let deadline = self.deadline;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        std::task::ready!(timer.as_mut().poll(context));
        self.end(Err(Failure::Timeout));
        Poll::Ready(())
    }

    /// Does what may wake the guest, without waking its task: who calls this polls
    /// the guest, or its deadline, afterwards.
    pub fn noting_wakes<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let State::Running { guest: Some(_), waker: Some(waker), .. } = &self.state else {
            return work();
        };
        waker.poll_begins();
        let done = work();
        self.woken |= waker.rests();
        done
    }

    fn end(&mut self, result: Result<(), Failure>) {
        self.state = State::Ended;
        self.failure = result.err();
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("of unknown kind"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::super::admission::{Gate, HostGate, admit};
    use super::*;

    /// Drives a guest that does this at each poll.
    async fn driver<P>(mut poll: P) -> Driver
    where
        P: FnMut(&mut Context<'_>) -> Poll<Result<(), Failure>> + Send + 'static,
    {
        let permit = admit(&Gate::new(1), &HostGate::new(1), Duration::ZERO).await.unwrap();
        let cpu = Arc::new(CpuClock::new(Arc::default(), 10_000));
        let guest = Box::pin(poll_fn(move |context| poll(context).map(Ended::from)));
        Driver::new(guest, permit, cpu, Instant::now() + Duration::from_secs(60))
    }

    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_guest_that_wakes_itself_goes_on_but_lets_others_pass() {
        let polls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&polls);
        let mut driver = driver(move |context| {
            context.waker().wake_by_ref();
            if counted.fetch_add(1, Ordering::SeqCst) < ROUNDS_MAX + 2 {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            }
        })
        .await;
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        assert!(driver.poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), ROUNDS_MAX);
        assert_eq!(task.0.load(Ordering::SeqCst), 1, "it comes back");
        assert!(driver.poll(&mut Context::from_waker(&waker)).is_ready());
        assert!(driver.ended() && driver.take_failure().is_none());
    }

    /// What takes long to clear: until it is told that it is done.
    struct Slow(std::sync::mpsc::Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_cleared_slowly_is_cleared_after_the_answer() {
        for is_away in [false, true] {
            let (done, is_done) = std::sync::mpsc::channel();
            let slow = Slow(is_done);
            let remains: Remains = Box::pin(async move { drop(slow) });
            let mut ended = Some(Ended { result: Ok(()), remains: Some(remains) });
            let guest = Box::pin(poll_fn(move |_| Poll::Ready(ended.take().unwrap())));
            let (gate, host_gate) = (Gate::new(1), HostGate::new(1));
            let permit = admit(&gate, &host_gate, Duration::ZERO).await.unwrap();
            if is_away {
                permit.share().charge_turn(10_000_000_000);
            }
            let cpu = Arc::new(CpuClock::new(Arc::default(), 10_000));
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut driver = Driver::new(guest, permit, cpu, deadline);
            poll_fn(|context| driver.poll(context)).await;
            assert!(driver.ended() && driver.take_failure().is_none(), "who answers goes on");
            assert_eq!(gate.in_use(), 1, "its slot is not free yet");
            done.send(()).unwrap();
            assert!(admit(&gate, &host_gate, Duration::from_secs(10)).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_guest_that_is_never_waited_for_ends_at_its_wall_time() {
        let mut driver = driver(|_| Poll::Pending).await;
        driver.deadline = Instant::now();
        assert!(driver.poll_guest(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(matches!(driver.take_failure(), Some(Failure::Timeout)));
    }

    #[tokio::test]
    async fn what_wakes_a_guest_wakes_the_task_that_drives_it_now() {
        let guests_waker = Arc::new(std::sync::Mutex::new(None));
        let kept = Arc::clone(&guests_waker);
        let mut driver = driver(move |context| {
            *kept.lock().unwrap() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        let tasks = [Arc::new(Task::default()), Arc::new(Task::default())];
        let wakes = || tasks.each_ref().map(|task| task.0.load(Ordering::SeqCst));
        for (task, after) in tasks.iter().zip([[1, 0], [1, 1]]) {
            let waker = Waker::from(Arc::clone(task));
            assert!(driver.poll(&mut Context::from_waker(&waker)).is_pending());
            let woken = guests_waker.lock().unwrap().take().unwrap();
            woken.wake_by_ref();
            assert_eq!(wakes(), after);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_guest_that_was_handed_over_while_it_was_away_is_not_forgotten() {
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let mut waker = None;
        let mut driver = driver(move |context| match waker.replace(context.waker().clone()) {
            // Away: it comes back after it was handed over, and is woken by
            // somebody else only after that.
            None => {
                started.send(()).unwrap();
                may_go_on.recv().unwrap();
                Poll::Pending
            }
            Some(_) => Poll::Ready(Ok(())),
        })
        .await;
        if let State::Running { share, .. } = &driver.state {
            share.charge_turn(10_000_000_000);
        }
        poll_fn(|context| Poll::Ready(driver.poll(context).is_pending())).await;
        starts.recv().await.unwrap();
        assert!(driver.is_away());
        let mut other = driver.take();
        let ended = tokio::spawn(async move {
            poll_fn(|context| {
                let polled = other.poll(context);
                let _ = go_on.send(());
                polled
            })
            .await;
            other.ended()
        });
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.unwrap().unwrap());
    }
}
