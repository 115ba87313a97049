//! Step 1: connections. Each is served in a task of its own, timeouts
//! included: nothing that a client does or leaves undone holds up the others.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{DataPlane, handle};
use crate::invoke::response::WriteDeadline;

/// Time for a request's head to arrive, from the connection's start or the end
/// of the request before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time in which a client takes none of what it is being sent.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most header fields of a request.
const HEADER_FIELDS_MAX: usize = 100;
/// Largest head of a request, in bytes; 431 beyond.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most of a request that is read ahead, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `shutdown` changes, then lets those that are open
/// finish their requests. Returns when the last is closed and no guest goes on
/// after its response.
pub async fn serve(
    listener: TcpListener,
    plane: Arc<DataPlane>,
    connections_max: usize,
    mut shutdown: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = shutdown.changed() => break,
        };
        let Some((stream, peer, permit)) = accepted else {
            continue;
        };
        let (served, shutdown) = (Arc::clone(&plane), shutdown.clone());
        plane.invoker.tasks().spawn(async move {
            let _permit = permit;
            connection(stream, peer, &served, shutdown).await;
        });
    }
    drop(listener);
    plane.invoker.tasks().finished().await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            let theirs = matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
            );
            if !theirs {
                // Out of descriptors or memory: trying again at once would only
                // burn a core until one is free.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    plane: &DataPlane,
    mut shutdown: watch::Receiver<bool>,
) {
    // Small responses must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let deadline = WriteDeadline::default();
    let io = TokioIo::new(WriteStall::new(stream, deadline.clone()));
    let service = service_fn(|request| async {
        let mut response = handle(plane, peer, request).await;
        response.body_mut().announce(&deadline);
        Ok::<_, Infallible>(response)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADER_FIELDS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .half_close(false);
    let mut connection = pin!(builder.serve_connection(io, service));
    let told_to_stop = async {
        // An error means that the host is gone: the same thing.
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that leave or stall are everyday; their receipts say so.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// A stream whose writes fail once the other side has taken nothing for too
/// long, or until its guest's time is over. hyper has no such timeout, and
/// behind a response that nobody reads there is a guest that holds memory and a
/// permit.
struct WriteStall {
    stream: TcpStream,
    deadline: WriteDeadline,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl WriteStall {
    fn new(stream: TcpStream, deadline: WriteDeadline) -> Self {
        Self { stream, deadline, stalled: None }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timer = self.stalled.get_or_insert_with(|| {
            let until = Instant::now() + WRITE_STALL_TIMEOUT;
            Box::pin(sleep_until(self.deadline.get().map_or(until, |deadline| deadline.min(until))))
        });
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for WriteStall {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteStall {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
