//! HTTP/2: its limits, and what watches over each stream.
//!
//! Each stream is a task, as hyper has it. Within one connection a client can
//! stop taking one response and go on with the others; then nobody polls the
//! guest behind it, and it can not end itself. So its task keeps a clock.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::Client;
use super::stream::ClientStream;
use super::{HEAD_BYTES_MAX, handle};
use crate::invoke::response::{ResponseBody, WriteDeadline};
use crate::invoke::tasks::Tasks;

/// Requests of one connection at the same time.
const STREAMS_MAX: u32 = 100;
/// Streams that a client may reset before they were begun ("rapid reset").
const RESETS_PENDING_MAX: usize = 20;
/// Streams that a client may make this side reset ("made you reset").
const RESETS_PROVOKED_MAX: usize = 100;
/// Bytes of one request's body that are read ahead.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes of all bodies of one connection that are read ahead.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one response that wait for the client.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pause between two questions whether the client is there, and how long its
/// answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection to its end, or until the host stops and the end of its
/// streams.
///
/// # Errors
/// When the connection breaks, or the client breaks a rule.
pub(super) async fn serve<S>(
    mut client: Client<'_>,
    stream: S,
    ahead: BytesMut,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (plane, origin, patience) = (client.plane, client.origin, client.patience);
    let streams = Arc::new(Streams::default());
    let executor = Executor {
        tasks: plane.invoker.tasks().clone(),
        streams: Arc::clone(&streams),
        patience: patience.response,
    };
    let service = service_fn(|request| {
        let plane = Arc::clone(plane);
        async move {
            let response = handle(&plane, origin, request).await;
            Ok::<_, Infallible>(response.map(StreamBody::new))
        }
    });
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_PROVOKED_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    let stream = ClientStream::http2(stream, ahead, patience);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = client.told_to_stop() => {}
        () = streams.idle_for(patience.idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    // What was begun may end. What has ended, and is not taken, may not stay.
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = streams.idle_for(patience.response) => Ok(()),
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    begun: AtomicU64,
}

impl Streams {
    /// Waits until there has been no stream for this long, up to twice as long.
    async fn idle_for(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            sleep(time).await;
            let still = self.begun.load(Ordering::Relaxed) == begun;
            if still && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// One stream of a connection, counted as long as it is open.
struct Open(Arc<Streams>);

impl Open {
    fn new(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the task of each stream.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
    streams: Arc<Streams>,
    patience: Duration,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = Open::new(&self.streams);
        let turn = Turn::default();
        let watched = watched(stream, turn.clone(), self.patience);
        self.tasks.spawn(async move {
            let _open = open;
            TURN.scope(turn, watched).await;
        });
    }
}

tokio::task_local! {
    /// Of the stream that the current task serves: hyper makes the task, and the
    /// response inside of it.
    static TURN: Turn;
}

/// Drives a stream. Drops it, and with it the guest, once the client has taken
/// nothing for `patience` or until the guest's time is over.
async fn watched(stream: impl Future<Output = ()>, turn: Turn, patience: Duration) {
    let mut stream = pin!(stream);
    let mut timer = None;
    poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(until) = turn.clients_until(patience) else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(context)
    })
    .await;
}

/// Whose turn it is: the client's since it was handed something, or this side's.
#[derive(Debug, Clone, Default)]
struct Turn {
    clients_since: Arc<Mutex<Option<Instant>>>,
    guest: WriteDeadline,
}

impl Turn {
    fn set(&self, clients_since: Option<Instant>) {
        *self.clients_since.lock().unwrap_or_else(PoisonError::into_inner) = clients_since;
    }

    /// Until when the client may take its turn, if it is the client's.
    fn clients_until(&self, patience: Duration) -> Option<Instant> {
        let since = *self.clients_since.lock().unwrap_or_else(PoisonError::into_inner);
        let until = since? + patience;
        Some(self.guest.get().map_or(until, |guest| guest.min(until)))
    }
}

/// The body of a response that tells whose turn it is.
struct StreamBody {
    body: ResponseBody,
    turn: Turn,
}

impl StreamBody {
    fn new(mut body: ResponseBody) -> Self {
        // There is always one; without it only the clock would be missing.
        let turn = TURN.try_with(Turn::clone).unwrap_or_default();
        body.announce(&turn.guest);
        turn.set(Some(Instant::now()));
        Self { body, turn }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.turn.set(match polled {
            Poll::Ready(Some(Ok(_))) => Some(Instant::now()),
            _ => None,
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
