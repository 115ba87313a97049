//! Step 3: the right to run. A function's permits first, the host's second, so
//! that a busy function never holds the host's while it waits for its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// A function's gate: a bounded number of permits with a bounded queue.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    permits_max: u32,
    share: Arc<Share>,
    waiting: AtomicUsize,
}

impl Gate {
    /// A gate for this many at once.
    #[must_use]
    pub fn new(permits_max: u32) -> Self {
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        Self { permits, permits_max, share: Arc::default(), waiting: AtomicUsize::new(0) }
    }

    /// How many it lets in at once.
    #[must_use]
    pub fn permits_max(&self) -> u32 {
        self.permits_max
    }

    /// How many are inside.
    #[must_use]
    pub fn in_use(&self) -> usize {
        (self.permits_max as usize).saturating_sub(self.permits.available_permits())
    }

    async fn enter(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.waiting)?;
        timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await.ok()?.ok()
    }
}

/// A place in the queue, given back however the wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

    async fn enter(&self, key: Key, deadline: Instant) -> Option<Place> {
        match self.queue.enter(key, None) {
            Entered::Place(place) => Some(place),
            Entered::Line(waiting) => timeout_at(deadline, waiting).await.ok()?,
            Entered::Full => None,
        }
    }
}

/// The right to run, held to the end of the invocation.
#[derive(Debug)]
pub struct Permit {
    _function: OwnedSemaphorePermit,
    _host: Place,
    share: Arc<Share>,
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
    let deadline = Instant::now() + wait_max;
    let share = Arc::clone(&function.share);
    let _function = function.enter(deadline).await.ok_or(Refused::Function)?;
    let _host = host.enter(Arc::as_ptr(&share) as Key, deadline).await.ok_or(Refused::Host)?;
    Ok(Permit { _function, _host, share })
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
        assert_eq!(one.waiting.load(Ordering::Relaxed), 0);
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
        let gate = Gate::new(0);
        let waits: Vec<_> = (0..WAITING_MAX).filter_map(|_| Waiting::new(&gate.waiting)).collect();
        assert_eq!(waits.len(), WAITING_MAX);
        let started = Instant::now();
        assert!(gate.enter(started + Duration::from_secs(60)).await.is_none());
        drop(waits);
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
