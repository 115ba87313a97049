//! One outgoing request and its response, over a connection of their own.
//!
//! The connection runs in a task whose handle is in the waiting future first and
//! in the response's body after that. Whoever drops them, the guest or the end
//! of its invocation, closes the connection, however much is still to be sent.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::connect::connect;
use super::egress::{Egress, EgressLimits, Grant};

/// Bytes that a connection holds in each direction, more or less.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Head of a response, and its trailers, in bytes: as for guests' own headers.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How the sending of a request ended.
pub(super) type Sending = oneshot::Receiver<Result<(), Error>>;

/// What a guest wants to wait, and no longer than it may.
struct Waits {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Waits {
    fn new(options: Option<RequestOptions>, limits: &EgressLimits) -> Self {
        let options = options.unwrap_or_default();
        let bounded = |wanted: Option<Duration>, max: Duration| wanted.map_or(max, |w| w.min(max));
        Self {
            connect: bounded(options.connect_timeout, limits.connect_time_max),
            first_byte: bounded(options.first_byte_timeout, limits.request_time_max),
            between_bytes: bounded(options.between_bytes_timeout, limits.request_time_max),
        }
    }
}

/// Sends a granted request and waits for the head of its response.
///
/// # Errors
/// Whatever keeps the head from arriving in time, as the guest is told it.
pub(super) async fn send(
    egress: &Egress,
    grant: &Grant,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<(Response<WasiBody>, Sending), Error> {
    let request = outgoing(request)?;
    let permit = egress.connection_permit()?;
    let limits = egress.limits;
    let waits = Waits::new(options, &limits);
    let start = Instant::now();
    let deadline = start + limits.request_time_max;

    let transport = connect(egress, grant, start + waits.connect).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(transport))
        .await
        .map_err(|error| head_error(error, deadline))?;
    let (ended, sending) = oneshot::channel();
    let connection = Connection(tokio::spawn(async move {
        let _permit = permit;
        let result = match timeout_at(deadline, connection).await {
            Ok(result) => result.map_err(|error| head_error(error, deadline)),
            Err(_) => Err(Error::HttpResponseTimeout),
        };
        // A guest of WASI 0.2 does not ask.
        let _ = ended.send(result);
    }));
    let first_byte_deadline = deadline.min(Instant::now() + waits.first_byte);
    let response = timeout_at(first_byte_deadline, sender.send_request(request)).await;
    let response = response.map_err(|_| {
        if first_byte_deadline < deadline {
            Error::ConnectionReadTimeout
        } else {
            Error::HttpResponseTimeout
        }
    })?;
    let response = response.map_err(|error| head_error(error, deadline))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::HttpUpgradeFailed);
    }
    let response = response.map(|incoming| {
        let body = ResponseBody {
            incoming: Some((incoming, connection)),
            bytes_left: limits.response_bytes_max,
            bytes_max: limits.response_bytes_max,
            between_bytes: waits.between_bytes,
            silence: Box::pin(sleep(waits.between_bytes)),
            deadline,
        };
        body.boxed_unsync()
    });
    Ok((response, sending))
}

/// A request as it goes over the wire: to a path, without claims of where it
/// came from.
fn outgoing(request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let (mut head, body) = request.into_parts();
    // An absolute URL is for proxies.
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = Uri::builder().path_and_query(path).build();
    head.uri = path.map_err(|_| Error::HttpRequestUriInvalid)?;
    remove_forwarding(&mut head.headers);
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            remove_forwarding(trailers);
        }
        frame
    });
    Ok(Request::from_parts(head, body.boxed_unsync()))
}

/// Upstream servers may trust this host to say for whom it asks, and a guest
/// that passes its own request's headers on would tell them anything.
fn remove_forwarding(headers: &mut http::HeaderMap) {
    let claims_origin =
        |name: &HeaderName| name == "forwarded" || name.as_str().starts_with("x-forwarded-");
    let found: Vec<HeaderName> = headers.keys().filter(|n| claims_origin(n)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The task that moves the bytes of a connection; ends with this.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a failed exchange is to the guest.
fn head_error(error: hyper::Error, deadline: Instant) -> Error {
    if error.source().is_some_and(|source| source.is::<Error>()) {
        // The guest's own body failed: the interface finds its error in here.
        return Error::Hyper(error);
    }
    if Instant::now() >= deadline {
        Error::HttpResponseTimeout
    } else if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else {
        Error::ConnectionTerminated
    }
}

/// The body of a response, bounded in size and time.
struct ResponseBody {
    /// None after the end or an error: the connection is closed then.
    incoming: Option<(Incoming, Connection)>,
    /// Until the limit, in bytes.
    bytes_left: u64,
    bytes_max: u64,
    between_bytes: Duration,
    silence: Pin<Box<Sleep>>,
    /// Of the whole request.
    deadline: Instant,
}

impl ResponseBody {
    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some((incoming, _)) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        // A declared length that is too much is not worth its beginning.
        if incoming.size_hint().lower() > self.bytes_left {
            return Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(self.bytes_max)))));
        }
        match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(bytes_left) = self.bytes_left.checked_sub(length) else {
                    let error = Error::HttpResponseBodySize(Some(self.bytes_max));
                    return Poll::Ready(Some(Err(error)));
                };
                self.bytes_left = bytes_left;
                let silence_ends = Instant::now() + self.between_bytes;
                self.silence.as_mut().reset(silence_ends);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                // The connection's task keeps to the deadline, and drops the body.
                let error = if Instant::now() >= self.deadline {
                    Error::HttpResponseTimeout
                } else {
                    Error::HttpResponseIncomplete
                };
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.silence.as_mut().poll(context));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(self.poll_incoming(context));
        if !matches!(frame, Some(Ok(_))) {
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(|| SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}

#[cfg(test)]
mod tests;
