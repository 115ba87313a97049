//! The body of a request as it arrives: it has to keep arriving.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::request::remove_ours;

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
pub struct ClientBody {
    body: Incoming,
    patience: Duration,
    /// Made when the body does not come at once.
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ClientBody {
    /// `body`, with at most `patience` between its parts.
    #[must_use]
    pub fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, silence: None, waiting: false }
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
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.stalled(context).map(|()| Some(Err(ClientBodyError::Stalled)));
        };
        self.waiting = false;
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame.map_err(ClientBodyError::Broken)?;
            if let Some(trailers) = frame.trailers_mut() {
                remove_ours(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
