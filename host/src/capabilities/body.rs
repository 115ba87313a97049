//! Bodies on their way into and out of a guest.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use wasmtime_wasi_http::Error as WasiHttpError;

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is over its limit, in bytes.
    #[error("the request body is over its limit of {0} bytes")]
    TooLarge(u64),
    /// The client left, stalled, or broke the framing.
    #[error("the client did not send the whole body")]
    Incomplete,
}

impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(bytes) => Self::HttpRequestBodySize(Some(bytes)),
            BodyError::Incomplete => Self::ConnectionTerminated,
        }
    }
}

/// The body of a guest's response, as the guest produces it.
pub struct GuestBody {
    body: UnsyncBoxBody<Bytes, WasiHttpError>,
    /// Dropped, and so sent, when the body was read to its end or is dropped.
    consumed: Option<oneshot::Sender<()>>,
}

impl GuestBody {
    pub(crate) fn new(body: UnsyncBoxBody<Bytes, WasiHttpError>) -> Self {
        Self { body, consumed: None }
    }

    pub(crate) fn with_signal(
        body: UnsyncBoxBody<Bytes, WasiHttpError>,
        consumed: oneshot::Sender<()>,
    ) -> Self {
        Self { body, consumed: Some(consumed) }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.consumed = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| error.to_string())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
