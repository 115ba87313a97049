//! Outgoing requests.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};

use crate::{Body, Result};

/// Sends a request and waits for the head of its response; the body streams in as it is read.
///
/// The URL must be absolute. Which servers can be reached is for the host to allow. A server that
/// cannot be reached is a 502, one that is too slow a 504, unless the handler does something
/// better with the error.
///
/// ```no_run
/// # fn example() -> whit_sdk::Result<String> {
/// use whit_sdk::http::Request;
///
/// let request = Request::get("https://www.example.com/").body(())?;
/// let response = whit_sdk::fetch(request)?;
/// let page = response.into_body().text(100_000)?;
/// # Ok(page) }
/// ```
///
/// For a timeout or several requests at once, see [`Fetch`].
pub fn fetch<B: Into<Body>>(request: Request<B>) -> Result<Response<Body>> {
    Fetch::new(request).send()
}

/// An outgoing request and how it is sent.
///
/// Requests that are started run at the same time, in a plain function too:
///
/// ```no_run
/// # fn example() -> whit_sdk::Result<()> {
/// use std::time::Duration;
/// use whit_sdk::{Fetch, http::Request};
///
/// let first = Fetch::new(Request::get("https://a.example.com/").body(())?)
///     .timeout(Duration::from_secs(2))
///     .start()?;
/// let second = Fetch::new(Request::get("https://b.example.com/").body(())?).start()?;
/// let (first, second) = (first.wait()?, second.wait()?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent before `send` or `start`"]
pub struct Fetch {
    request: Request<Body>,
    timeout: Option<Duration>,
}

impl Fetch {
    /// A request that is yet to be sent.
    pub fn new<B: Into<Body>>(request: Request<B>) -> Self {
        Fetch {
            request: request.map(Into::into),
            timeout: None,
        }
    }

    /// How long to wait for a connection, for the first byte of the response, and between any two
    /// bytes of it. Without this, the host decides.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and waits for the head of its response.
    pub fn send(self) -> Result<Response<Body>> {
        self.start()?.wait()
    }

    /// Sends the request without waiting for the response.
    ///
    /// Its body is sent to the end first, so a large one should not go to a server that answers
    /// while it reads and stops reading when its answer is not taken.
    pub fn start(self) -> Result<PendingResponse> {
        platform::start(self.request, self.timeout).map(PendingResponse)
    }
}

/// A response that is on its way. Await it, or [`wait`](PendingResponse::wait) for it.
#[derive(Debug)]
#[must_use = "dropping this gives up the request"]
pub struct PendingResponse(platform::Pending);

impl PendingResponse {
    /// Waits for the head of the response.
    pub fn wait(self) -> Result<Response<Body>> {
        crate::block_on(self)
    }
}

impl Future for PendingResponse {
    type Output = Result<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

#[cfg(target_arch = "wasm32")]
use crate::wasi::client as platform;

/// Off the wasm target there is no host to send a request.
#[cfg(not(target_arch = "wasm32"))]
mod platform {
    use super::*;

    #[derive(Debug)]
    pub(crate) enum Pending {}

    impl Pending {
        pub(crate) fn poll(&mut self, _: &mut Context<'_>) -> Poll<Result<Response<Body>>> {
            match *self {}
        }
    }

    pub(crate) fn start(request: Request<Body>, _: Option<Duration>) -> Result<Pending> {
        let reason = format!("{} was not sent: this is not wasm32-wasip2", request.uri());
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, reason).into())
    }
}
