//! What happens to the rest of a request that was answered early.
//!
//! An upload may be refused at its first byte: no token, a bad name, a
//! Content-Length over the limit. Most clients read the answer only once they
//! have sent everything; if the connection closed before, they would see a
//! reset and never learn why. So the rest is read and thrown away, within
//! bounds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

/// Most that is thrown away of one request.
const DRAIN_BYTES_MAX: u64 = 1 << 30;
/// Longest time spent on it.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Middleware: see the module.
pub(super) async fn unread_body(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(DrainedOnDrop { body, ended: false }))
}

/// A request body whose unread rest is drained when it is dropped.
struct DrainedOnDrop {
    body: Body,
    ended: bool,
}

impl http_body::Body for DrainedOnDrop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for DrainedOnDrop {
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.body);
        // Outside of a runtime the connection is gone too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Out of time or done: either way nobody needs to know.
                let _ = tokio::time::timeout(DRAIN_MAX, drain(body)).await;
            });
        }
    }
}

async fn drain(mut body: Body) {
    let mut bytes: u64 = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn the_rest_of_a_dropped_body_is_read() {
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let pieces = futures::stream::iter(0..10).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(b"piece"))
        });
        let request = Request::new(Body::from_stream(pieces));
        let mut request = unread_body(request).await;
        request.body_mut().frame().await.unwrap().unwrap();
        drop(request);
        while read.load(Ordering::Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
    }
}
