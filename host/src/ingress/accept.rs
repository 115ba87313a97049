//! Step 1: connections. Each is served in a task of its own, timeouts
//! included: nothing that a client does or leaves undone holds up the others.
//!
//! They are accepted here and belong to the thread that serves them from there on:
//! what comes in on them wakes that one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::DataPlane;
use super::connection::{self, ConnectionOptions};

/// First and longest pause after an accept that failed for want of descriptors
/// or memory; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Most descriptors that are kept from connections: for files, outgoing requests
/// and compile children.
const DESCRIPTORS_KEPT_MAX: u64 = 1024;

/// How long connections that clients began before the end may take to arrive: the
/// way there and back of a client on the same continent.
const LATECOMERS_TIME: Duration = Duration::from_millis(100);

/// How many connections this process can have open, of `connections_max`. Each
/// is a descriptor; the limit on those is raised to what the system allows.
#[must_use]
pub fn connections_possible(connections_max: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Fails only where the limit is as it was, which is asked next.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let Some(descriptors) = getrlimit(Resource::Nofile).current else {
        return connections_max;
    };
    let kept = (descriptors / 4).min(DESCRIPTORS_KEPT_MAX);
    let possible = usize::try_from(descriptors - kept).unwrap_or(usize::MAX);
    if possible < connections_max {
        tracing::warn!(
            descriptors,
            connections = possible,
            "fewer connections than connections_max: the limit on open files is too low"
        );
    }
    possible.min(connections_max)
}

/// Accepts connections until `shutdown` changes, then those that clients take for
/// open already, and lets all of them finish their requests. Returns when the last
/// is closed and no guest goes on after its response.
pub async fn serve(
    listener: TcpListener,
    plane: Arc<DataPlane>,
    options: ConnectionOptions,
    shutdown: watch::Receiver<bool>,
) {
    let options = Arc::new(options);
    let mut door =
        Door { listener, permits: Arc::new(Semaphore::new(options.connections_max)), pause: None };
    let serve = |(stream, peer, permit): Accepted| {
        let (served, options, shutdown) =
            (Arc::clone(&plane), Arc::clone(&options), shutdown.clone());
        plane.invoker.tasks().spawn(async move {
            let _permit = permit;
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(stream, peer, &served, &options, shutdown).await,
                Err(error) => tracing::warn!(%peer, %error, "a connection can not be served"),
            }
        });
    };
    let mut stopped = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            _ = stopped.changed() => break,
        };
        accepted.into_iter().for_each(serve);
    }
    door.let_nobody_begin();
    let last = Instant::now() + LATECOMERS_TIME;
    // One that is there is taken even after that.
    while let Ok(accepted) = timeout_at(last, door.accept()).await {
        accepted.into_iter().for_each(serve);
    }
    drop(door);
    plane.invoker.tasks().finished().await;
}

/// A connection, which is no thread's yet, who opened it, and its permit.
type Accepted = (std::net::TcpStream, SocketAddr, OwnedSemaphorePermit);

/// Where connections come in, as many as there are permits.
struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    /// After how long to try again; none while all is well.
    pause: Option<Duration>,
}

impl Door {
    async fn accept(&mut self) -> Option<Accepted> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        if let Some(pause) = self.pause {
            // Trying again at once would only burn a core until something is free.
            sleep(pause).await;
        }
        let accepted = self.listener.accept().await;
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                if self.pause.take().is_some() {
                    tracing::info!("connections are accepted again");
                }
                Some((stream, peer, permit))
            }
            Err(error) if is_clients_doing(&error) => None,
            Err(error) => {
                if self.pause.is_none() {
                    tracing::warn!(%error, "connections can not be accepted; trying again");
                }
                let doubled = self.pause.map_or(PAUSE_MIN, |pause| pause * 2);
                self.pause = Some(doubled.min(PAUSE_MAX));
                None
            }
        }
    }

    /// From now on the kernel drops what begins a connection, unanswered: who
    /// tries again, in a second, finds the door closed, or the next host. Closing
    /// it at once would cut off clients whose connection the kernel has completed
    /// and nobody accepted, and who have sent a request by now.
    fn let_nobody_begin(&self) {
        /// Of classic BPF: load a byte, and, compare, return.
        const LOAD: u16 = 0x30;
        const AND: u16 = 0x54;
        const IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        /// In the header of TCP.
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        let only_what_is_begun = [
            SockFilter::new(LOAD, 0, 0, FLAGS_AT),
            SockFilter::new(AND, 0, 0, SYN | ACK),
            SockFilter::new(IF_EQUAL, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(&self.listener).attach_filter(&only_what_is_begun) {
            tracing::debug!(%error, "connections that begin now may be cut off");
        }
    }
}

/// A client that has gone before it was accepted is nobody's worry.
fn is_clients_doing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}
