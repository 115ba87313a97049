//! Step 3: the right to run. A function's permits first, the host's second, so
//! that a busy function never holds the host's while it waits for its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::fair::{Entered, FairQueue, Key, Place};
use super::turns::Share;

/// Most requests that wait at one gate; the next one is refused at once.
const WAITING_MAX: usize = 1000;

/// Who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The function's own limit: the caller's quota.
    Function,
    /// The host's capacity.
    Host,
}

/// How long a request waits, from when it first has to. Most never do, and need not
/// look at a clock.
#[derive(Debug)]
struct Patience {
    wait_max: Duration,
    deadline: Option<Instant>,
}

impl Patience {
    async fn enter(&mut self, queue: &Arc<FairQueue>, line: Key) -> Option<Place> {
        match queue.enter(line, None) {
            Entered::Place(place) => Some(place),
            Entered::Line(waiting) => {
                let deadline = self.deadline.get_or_insert_with(|| Instant::now() + self.wait_max);
                timeout_at(*deadline, waiting).await.ok()?
            }
            Entered::Full => None,
        }
    }
}

/// A function's gate: a bounded number of permits with a bounded queue.
#[derive(Debug)]
pub struct Gate {
    queue: Arc<FairQueue>,
    permits_max: u32,
    share: Arc<Share>,
}

impl Gate {
    /// A gate for this many at once.
    #[must_use]
    pub fn new(permits_max: u32) -> Self {
        let queue = FairQueue::new(permits_max as usize, WAITING_MAX);
        Self { queue, permits_max, share: Arc::default() }
    }

    /// How many it lets in at once.
    #[must_use]
    pub fn permits_max(&self) -> u32 {
        self.permits_max
    }

    /// How many are inside.
    #[must_use]
    pub fn in_use(&self) -> usize {
        (self.permits_max as usize).saturating_sub(self.queue.free())
    }
}

/// The host's capacity, shared fairly by functions that wait for it.
#[derive(Debug)]
pub struct HostGate {
    queue: Arc<FairQueue>,
    permits_max: u32,
}

impl HostGate {
    /// A gate for this many at once.
    #[must_use]
    pub fn new(permits_max: u32) -> Self {
        Self { queue: FairQueue::new(permits_max as usize, WAITING_MAX), permits_max }
    }

    /// How many are inside.
    #[must_use]
    pub fn in_use(&self) -> usize {
        (self.permits_max as usize).saturating_sub(self.queue.free())
    }
}

/// The right to run, held to the end of the invocation.
#[derive(Debug)]
pub struct Permit {
    _function: Place,
    _host: Place,
    share: Arc<Share>,
    /// Whether it had to be waited for.
    pub waited: bool,
}

impl Permit {
    /// The function's share of the processors.
    #[must_use]
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }
}

/// Waits for both permits, `wait_max` at most.
///
/// # Errors
/// Says whose permits ran out.
pub async fn admit(
    function: &Gate,
    host: &HostGate,
    wait_max: Duration,
) -> Result<Permit, Refused> {
    let mut patience = Patience { wait_max, deadline: None };
    let share = Arc::clone(&function.share);
    let line = Arc::as_ptr(&share) as Key;
    let _function = patience.enter(&function.queue, line).await.ok_or(Refused::Function)?;
    let _host = patience.enter(&host.queue, line).await.ok_or(Refused::Host)?;
    Ok(Permit { _function, _host, share, waited: patience.deadline.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_refuses_is_told() {
        let (one, two) = (Gate::new(1), HostGate::new(2));
        let held = admit(&one, &two, Duration::ZERO).await.unwrap();
        assert_eq!(admit(&one, &two, Duration::ZERO).await.unwrap_err(), Refused::Function);
        let other = Gate::new(5);
        let also_held = admit(&other, &two, Duration::ZERO).await.unwrap();
        assert_eq!(admit(&other, &two, Duration::ZERO).await.unwrap_err(), Refused::Host);
        assert_eq!((one.in_use(), two.in_use(), other.in_use()), (1, 2, 1));
        drop((held, also_held));
        assert_eq!((one.in_use(), two.in_use(), other.in_use()), (0, 0, 0));
        assert!(admit(&one, &two, Duration::ZERO).await.is_ok(), "nobody waits any more");
    }

    #[tokio::test]
    async fn who_waits_for_the_host_waits_for_one_of_the_others() {
        let (busy, quiet, host) = (Gate::new(100), Gate::new(100), HostGate::new(1));
        let wait_max = Duration::from_secs(60);
        let held = admit(&busy, &host, wait_max).await.unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        let enter = async |gate: &Gate, name: &'static str| {
            let permit = admit(gate, &host, wait_max).await.unwrap();
            order.lock().unwrap().push(name);
            drop(permit);
        };
        let crowd = futures::future::join_all((0..50).map(|_| enter(&busy, "busy")));
        let release = async { drop(held) };
        tokio::join!(crowd, enter(&quiet, "quiet"), release);
        let order = order.into_inner().unwrap();
        assert_eq!((order.len(), order[1]), (51, "quiet"));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let (gate, host) = (Gate::new(1), HostGate::new(1));
        let long = Duration::from_secs(60);
        let held = admit(&gate, &host, long).await.unwrap();
        assert!(!held.waited);
        let wait = async || assert!(admit(&gate, &host, long).await.unwrap().waited);
        let crowd = futures::future::join_all((0..WAITING_MAX).map(|_| wait()));
        let one_more = async {
            let refused = admit(&gate, &host, long).await.unwrap_err();
            drop(held);
            refused
        };
        assert_eq!(tokio::join!(crowd, one_more).1, Refused::Function);
        assert_eq!((gate.in_use(), host.in_use()), (0, 0));
    }
}
