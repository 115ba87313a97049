//! The body of a request as it arrives: it has to keep arriving.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::request::remove_ours;

/// Of a body that nobody reads, as much is taken in as this, in bytes and in time:
/// the client can send its next request then. As in Go's `net/http`.
const UNREAD_BYTES_MAX: u64 = 256 << 10;
const UNREAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// It broke off, or its framing is broken.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// Nothing more came for too long.
    #[error("the client stopped sending")]
    Stalled,
}

/// A request's body that ends in an error if nothing of it comes for too long
/// while somebody waits for it.
///
/// In HTTP/1 what is left of it when it is dropped is taken in, up to a bound: hyper
/// closes the connection otherwise, and the client, which was not told, may just
/// have sent its next request.
pub struct ClientBody {
    /// None once it has ended.
    body: Option<Incoming>,
    /// Whether what is left is taken in.
    takes_the_rest: bool,
    patience: Duration,
    /// Made when the body does not come at once.
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ClientBody {
    /// The body of a request with this head, with at most `patience` between its
    /// parts.
    #[must_use]
    pub fn new(head: &Parts, body: Incoming, patience: Duration) -> Self {
        let takes_the_rest = may_stay_unread(head.version, &head.headers, &body);
        Self { body: Some(body), takes_the_rest, patience, silence: None, waiting: false }
    }

    /// When the next wait for the client begins, its time does.
    fn stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waiting {
            silence.as_mut().reset(Instant::now() + patience);
            self.waiting = true;
        }
        silence.as_mut().poll(context)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            return self.stalled(context).map(|()| Some(Err(ClientBodyError::Stalled)));
        };
        self.waiting = false;
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame.map_err(ClientBodyError::Broken)?;
            if let Some(trailers) = frame.trailers_mut() {
                remove_ours(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        if self.takes_the_rest
            && let Ok(runtime) = Handle::try_current()
        {
            // One for each connection at most: its next request comes behind the body.
            runtime.spawn(timeout(UNREAD_TIME_MAX, take_in(body)));
        }
    }
}

/// Whether the connection goes on if nobody reads this request's body. Who waits
/// for leave to send it never gets that, and can not be told to send nothing.
#[must_use]
pub fn may_stay_unread(version: Version, headers: &HeaderMap, body: &Incoming) -> bool {
    body.is_end_stream()
        || version < Version::HTTP_2
            && !headers.contains_key(EXPECT)
            && body.size_hint().lower() <= UNREAD_BYTES_MAX
}

/// Reads a body to its end, or until it is too much.
async fn take_in(mut body: Incoming) {
    let mut taken = 0;
    while taken <= UNREAD_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        taken += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}
