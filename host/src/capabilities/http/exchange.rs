//! One outgoing request and its response, over a connection of their own.
//!
//! The connection runs in a task whose handle is in the waiting future first and
//! in the response's body after that. Whoever drops them, the guest or the end
//! of its invocation, closes the connection, however much is still to be sent.
//! Only a connection whose response was read to its end is kept, for the next
//! request of the same function.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::connect::connect;
use super::egress::{Destination, Egress, EgressLimits, Grant};
use super::pool::{Open, Pool, Task};

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
            between_bytes: bounded(options.between_bytes_timeout, limits.silence_time_max),
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
    let (request, sending) = outgoing(request)?;
    let limits = egress.limits;
    let waits = Waits::new(options, &limits);
    let start = Instant::now();
    let deadline = start + limits.request_time_max;

    let is_good = |address| egress.may_reach(grant, address);
    let mut unsent = request;
    if let Some(open) = egress.pool.take(&grant.destination, is_good) {
        match over(open, unsent, &waits, deadline).await? {
            Answered::Yes(incoming, open) => {
                return Ok((response(egress, grant, incoming, open, &waits)?, sending));
            }
            // The server had closed it.
            Answered::NotEvenSent(request) => unsent = request,
        }
    }
    let open = open(egress, grant, start + waits.connect).await?;
    match over(open, unsent, &waits, deadline).await? {
        Answered::Yes(incoming, open) => {
            Ok((response(egress, grant, incoming, open, &waits)?, sending))
        }
        Answered::NotEvenSent(_) => Err(Error::ConnectionTerminated),
    }
}

/// Opens a connection of a function's own.
async fn open(egress: &Egress, grant: &Grant, deadline: Instant) -> Result<Open, Error> {
    let permit = egress.connection_permit()?;
    let (transport, address) = connect(egress, grant, deadline).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(transport))
        .await
        .map_err(head_error)?;
    let task = Task(tokio::spawn(async move {
        let _permit = permit;
        // What goes wrong is told to who waits for the response.
        let _ = connection.await;
    }));
    Ok(Open { sender, address, _task: task })
}

/// What came of a request over one connection.
enum Answered {
    Yes(Response<Incoming>, Open),
    /// The connection was closed before; the request is as it was.
    NotEvenSent(Request<WasiBody>),
}

async fn over(
    mut open: Open,
    request: Request<WasiBody>,
    waits: &Waits,
    deadline: Instant,
) -> Result<Answered, Error> {
    // A request without a body that changes nothing may be sent twice.
    let (method, body) = (request.method(), request.body());
    let copy = (method.is_idempotent() && body.is_end_stream()).then(|| {
        let mut copy = Request::new(());
        *copy.method_mut() = method.clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy.map(|()| Empty::new().map_err(|never| match never {}).boxed_unsync())
    });
    let first_byte_deadline = deadline.min(Instant::now() + waits.first_byte);
    let response = timeout_at(first_byte_deadline, open.sender.try_send_request(request)).await;
    let response = response.map_err(|_| {
        if first_byte_deadline < deadline {
            Error::ConnectionReadTimeout
        } else {
            Error::HttpResponseTimeout
        }
    })?;
    match response {
        Ok(response) => Ok(Answered::Yes(response, open)),
        Err(mut error) => match error.take_message() {
            Some(request) => Ok(Answered::NotEvenSent(request)),
            None => match (error.into_error(), copy) {
                (error, Some(copy)) if was_closed(&error) => Ok(Answered::NotEvenSent(copy)),
                (error, _) => Err(head_error(error)),
            },
        },
    }
}

fn response(
    egress: &Egress,
    grant: &Grant,
    response: Response<Incoming>,
    open: Open,
    waits: &Waits,
) -> Result<Response<WasiBody>, Error> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::HttpUpgradeFailed);
    }
    let bytes_max = egress.limits.response_bytes_max;
    Ok(response.map(|incoming| {
        let body = ResponseBody {
            incoming: Some((incoming, open)),
            pool: Arc::clone(&egress.pool),
            destination: grant.destination.clone(),
            bytes_left: bytes_max,
            bytes_max,
            between_bytes: waits.between_bytes,
            silence: Box::pin(sleep(waits.between_bytes)),
        };
        body.boxed_unsync()
    }))
}

/// A request as it goes over the wire: to a path, without claims of where it
/// came from.
fn outgoing(request: Request<WasiBody>) -> Result<(Request<WasiBody>, Sending), Error> {
    let (mut head, body) = request.into_parts();
    // An absolute URL is for proxies.
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = Uri::builder().path_and_query(path).build();
    head.uri = path.map_err(|_| Error::HttpRequestUriInvalid)?;
    remove_forwarding(&mut head.headers);
    let (sent, sending) = oneshot::channel();
    let body = RequestBody { body, sent: Some(sent) };
    Ok((Request::from_parts(head, body.boxed_unsync()), sending))
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

/// The body of a request, which tells when all of it has been sent, or that it
/// failed. A server may answer without reading it all: then nothing is told, and
/// the response says what there is to say.
struct RequestBody {
    body: WasiBody,
    sent: Option<oneshot::Sender<Result<(), Error>>>,
}

impl RequestBody {
    fn tell(&mut self, result: Result<(), Error>) {
        if let Some(sent) = self.sent.take() {
            // A guest of WASI 0.2 does not ask.
            let _ = sent.send(result);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &mut frame {
            None => self.tell(Ok(())),
            // It is the guest's own; the interface knows it better.
            Some(Err(_)) => self.tell(Err(Error::HttpProtocolError)),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    remove_forwarding(trailers);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether the server closed the connection instead of answering: politely, or
/// with a reset, which is what comes back when both sides act at the same moment.
fn was_closed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let was_reset = |error: &io::Error| {
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
    };
    error.is_incomplete_message() || system.is_some_and(was_reset)
}

/// What a failed exchange is to the guest.
fn head_error(error: hyper::Error) -> Error {
    if error.source().is_some_and(|source| source.is::<Error>()) {
        // The guest's own body failed: the interface finds its error in here.
        return Error::Hyper(error);
    }
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else {
        Error::ConnectionTerminated
    }
}

/// The body of a response, bounded in size and time.
struct ResponseBody {
    /// None after the end or an error.
    incoming: Option<(Incoming, Open)>,
    /// Where the connection goes after the end.
    pool: Arc<Pool>,
    destination: Destination,
    /// Until the limit, in bytes.
    bytes_left: u64,
    bytes_max: u64,
    between_bytes: Duration,
    silence: Pin<Box<Sleep>>,
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
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.silence.as_mut().poll(context));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }
}

impl ResponseBody {
    /// The response is read to its end.
    fn keep_connection(&mut self) {
        if let Some((_, open)) = self.incoming.take() {
            self.pool.put(self.destination.clone(), open);
        }
    }
}

impl Drop for ResponseBody {
    /// Nobody asks for the end of a body whose end is known.
    fn drop(&mut self) {
        if self.incoming.as_ref().is_some_and(|(incoming, _)| incoming.is_end_stream()) {
            self.keep_connection();
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
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.incoming = None,
            None => self.keep_connection(),
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
