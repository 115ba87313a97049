//! One connection, in a task of its own: TLS, what the client speaks, and its
//! requests, each step with its timeout.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::may_stay_unread;
use super::stream::{ClientStream, Spoken, first_bytes};
use super::timer::ConnectionTimer;
use super::tls::Tls;
use super::{DataPlane, HEAD_BYTES_MAX, Origin, handle, http2};
use crate::invoke::response::{ResponseBody, WriteDeadline};

/// Most header fields of a request.
const HEADER_FIELDS_MAX: usize = 100;
/// Most of a request that is read ahead, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long a connection without a request is kept when the host stops. Its client
/// may just be sending one: that is answered, and the answer says that the
/// connection closes.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// How connections are served.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// How many at the same time.
    pub connections_max: usize,
    /// How long they may keep this side waiting.
    pub patience: Patience,
    /// None: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// How long a client may keep this side waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For TLS and the first byte, and then for the rest of each head.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// For a client that takes nothing of a response.
    pub response: Duration,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    plane: &Arc<DataPlane>,
    options: &ConnectionOptions,
    shutdown: watch::Receiver<bool>,
) {
    // Small responses must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let origin = Origin { peer, secure: options.tls.is_some() };
    let client = Client { plane, origin, patience: options.patience, shutdown };
    let served = match &options.tls {
        None => client.speak(stream).await,
        // Of its own: else every connection would have room for it.
        Some(tls) => Box::pin(client.secure(stream, tls)).await,
    };
    if let Err(error) = served {
        // Clients that leave or stall are everyday; their receipts say so.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Whether a refusal is the last answer on its connection: there may be no finding
/// out where the next request begins.
fn is_last(response: &Response<ResponseBody>, goes_on: bool) -> bool {
    matches!(response.body(), ResponseBody::Text(Some(_)))
        && (!goes_on || response.status() == StatusCode::BAD_REQUEST)
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A client, and what serves it.
pub(super) struct Client<'a> {
    pub(super) plane: &'a Arc<DataPlane>,
    pub(super) origin: Origin,
    pub(super) patience: Patience,
    shutdown: watch::Receiver<bool>,
}

impl Client<'_> {
    async fn secure(mut self, stream: TcpStream, tls: &Arc<Tls>) -> Ended {
        let deadline = Instant::now() + self.patience.head;
        let handshake = async { tls.acceptor().await.accept(stream).await };
        let stream = tokio::select! {
            biased;
            stream = timeout_at(deadline, handshake) => stream??,
            () = self.too_late() => return Ok(()),
        };
        self.speak(stream).await
    }

    /// Finds out what the client speaks, and speaks it.
    async fn speak<S>(mut self, mut stream: S) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = Instant::now() + self.patience.head;
        let first = tokio::select! {
            biased;
            first = timeout_at(deadline, first_bytes(&mut stream)) => first??,
            () = self.too_late() => return Ok(()),
        };
        match first {
            None => {}
            Some((Spoken::Http1, ahead)) => self.http1(stream, ahead).await?,
            Some((Spoken::Http2, ahead)) => Box::pin(http2::serve(self, stream, ahead)).await?,
        }
        Ok(())
    }

    async fn http1<S>(mut self, stream: S, ahead: BytesMut) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (plane, origin) = (self.plane, self.origin);
        let deadline = WriteDeadline::default();
        let stream = ClientStream::http1(stream, ahead, self.patience, deadline.clone());
        // Of this task alone: read and written without a cost.
        let (running, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| async {
            running.store(true, Ordering::Relaxed);
            let goes_on = may_stay_unread(request.version(), request.headers(), request.body());
            let mut response = handle(plane, origin, request).await;
            response.body_mut().announce(&deadline);
            running.store(false, Ordering::Relaxed);
            if stopping.load(Ordering::Relaxed) || is_last(&response, goes_on) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(ConnectionTimer::default())
            // It runs between requests. Within a head the stream has its own.
            .header_read_timeout(self.patience.idle)
            .max_headers(HEADER_FIELDS_MAX)
            .max_header_size(HEAD_BYTES_MAX as usize)
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .half_close(false);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // First: who sends a request after the stop is told.
            biased;
            () = self.told_to_stop() => stopping.store(true, Ordering::Relaxed),
            ended = connection.as_mut() => return ended,
        }
        let is_busy = || running.load(Ordering::Relaxed) || deadline.get().is_some();
        let idle = async {
            // A response that began before the stop did not say that it is the last.
            let mut was_busy = true;
            while was_busy || is_busy() {
                was_busy = is_busy();
                sleep(LAST_REQUEST_TIME).await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = idle => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// Waits until it is too late for a first request.
    async fn too_late(&mut self) {
        self.told_to_stop().await;
        sleep(LAST_REQUEST_TIME).await;
    }

    pub(super) async fn told_to_stop(&mut self) {
        // An error means that the host is gone: the same thing.
        let _ = self.shutdown.wait_for(|stop| *stop).await;
    }
}
