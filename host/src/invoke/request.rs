//! The body of a request on its way to a guest: counted and bounded.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::capabilities::body::BodyError;
use crate::engine::limits::Meter;

/// What the client's body has next. What is wrong with a broken one does not
/// matter to anybody behind it.
type Found = Option<Result<Frame<Bytes>, ()>>;

fn length(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

/// A request body that counts itself.
pub struct RequestBody<B> {
    body: B,
    meter: Arc<Meter>,
    bytes_max: u64,
    bytes: u64,
    /// What [`Self::welcome`] found.
    ahead: Option<Found>,
}

impl<B: Body<Data = Bytes> + Unpin> RequestBody<B> {
    /// Reads `body` up to `bytes_max`.
    #[must_use]
    pub fn new(body: B, meter: Arc<Meter>, bytes_max: u64) -> Self {
        Self { body, meter, bytes_max, bytes: 0, ahead: None }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Found> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map(|frame| frame.map(|frame| frame.map_err(drop)))
    }

    /// For a client that waits for `100 Continue`: it is sent when the body is
    /// first asked for, but not after the response has begun, and guests that
    /// stream begin theirs first. So the body is asked for here, and the
    /// connection gets a turn to say it.
    pub async fn welcome(&mut self) {
        std::future::poll_fn(|context| {
            if let Poll::Ready(found) = self.poll_next(context) {
                self.ahead = Some(found);
            }
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let found = match this.ahead.take() {
            Some(found) => found,
            None => std::task::ready!(this.poll_next(context)),
        };
        let frame = match found {
            None => return Poll::Ready(None),
            Some(Err(())) => {
                this.meter.request_broken.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::Incomplete)));
            }
            Some(Ok(frame)) => frame,
        };
        this.bytes += frame.data_ref().map_or(0, length);
        this.meter.request_bytes.store(this.bytes, Ordering::Relaxed);
        if this.bytes > this.bytes_max {
            this.meter.request_too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::TooLarge(this.bytes_max))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is ahead is not in the body's own hint any more.
        if self.ahead.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
