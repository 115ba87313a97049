//! Connections that wait for the next request of the same function to the same
//! place. Each function has its own: none is ever sent over another's.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use wasmtime_wasi_http::WasiBody;

use super::egress::Destination;

/// Longest wait of a connection: shorter than the five seconds after which many
/// servers close theirs, so that few are closed under a request.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// Connections of one revision that wait.
const IDLE_MAX: usize = 16;
/// Connections of all functions that wait.
pub(super) const HOST_IDLE_MAX: usize = 512;

/// An open connection that carries one request at a time.
pub(super) struct Open {
    pub(super) sender: SendRequest<WasiBody>,
    pub(super) address: SocketAddr,
    /// Held so that it ends with this.
    pub(super) _task: Task,
}

/// The task that moves the bytes of a connection; ends with this.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The waiting connections of one revision.
pub(super) struct Pool {
    host: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The oldest first.
    connections: Vec<Idle>,
    /// Whether somebody closes those that have waited too long.
    is_watched: bool,
}

struct Idle {
    destination: Destination,
    open: Open,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < IDLE_TIME_MAX && !self.open.sender.is_closed()
    }
}

impl Pool {
    /// An empty one; `host` bounds the waiting connections of all functions.
    pub(super) fn new(host: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { host, waiting: Mutex::default() })
    }

    /// A connection to a destination at an address that is still good.
    pub(super) fn take(
        &self,
        destination: &Destination,
        is_good: impl Fn(SocketAddr) -> bool,
    ) -> Option<Open> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.connections.retain(Idle::is_usable);
        // The newest is the least likely to be closed under the request.
        let at = waiting
            .connections
            .iter()
            .rposition(|idle| idle.destination == *destination && idle.open.sender.is_ready())?;
        let idle = waiting.connections.remove(at);
        drop(waiting);
        is_good(idle.open.address).then_some(idle.open)
    }

    /// Keeps a connection whose response has been read. It is closed if there
    /// are enough of them.
    pub(super) fn put(self: &Arc<Self>, destination: Destination, open: Open) {
        if open.sender.is_closed() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.host).try_acquire_owned() else {
            return;
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.connections.retain(Idle::is_usable);
        if waiting.connections.len() >= IDLE_MAX {
            waiting.connections.remove(0);
        }
        let idle = Idle { destination, open, since: Instant::now(), _permit: permit };
        waiting.connections.push(idle);
        if !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Closes what has waited too long. Returns whether nothing is left.
    fn close_old(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.connections.retain(Idle::is_usable);
        waiting.is_watched = !waiting.connections.is_empty();
        !waiting.is_watched
    }
}

async fn watch(pool: Weak<Pool>) {
    loop {
        sleep(IDLE_TIME_MAX).await;
        if pool.upgrade().is_none_or(|pool| pool.close_old()) {
            return;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}
