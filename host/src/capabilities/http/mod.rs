//! Outgoing HTTP requests of a guest. Nothing is allowed by default; a
//! function's `allow_hosts` opens what it names.
//!
//! In the order of a request: [`HttpHooks`] counts it and asks [`egress`] for a
//! grant, `connect` finds an address that [`address`] does not forbid, `tls`
//! secures the connection, `exchange` sends and receives.

pub mod address;
mod connect;
pub mod egress;
mod exchange;
mod hops;
mod pool;
mod tls;

use std::sync::Arc;

use http::{HeaderName, Method};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks, p2, p3,
};

use self::egress::{Destination, Grant};
pub use self::egress::{Egress, HostEgress, OwnListeners};
use self::hops::HOPS;
pub use self::hops::{HOPS_MAX, HopKey};
use super::log::GuestLog;
use crate::engine::Track;

/// Bytes that the host copies out of a guest in one write to a body.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The hooks of one store: what its invocation has sent, and may send.
pub struct HttpHooks {
    egress: Arc<Egress>,
    log: Arc<GuestLog>,
    track: Track,
    /// Requests so far, refused ones included.
    requests: u32,
    /// How many functions have called each other to get here.
    hops: u8,
}

impl HttpHooks {
    /// Hooks that allow what `egress` allows, and tell `log` what was refused.
    #[must_use]
    pub fn new(egress: Arc<Egress>, log: Arc<GuestLog>, track: Track, hops: u8) -> Self {
        Self { egress, log, track, requests: 0, hops }
    }

    /// # Errors
    /// When the request is one too many, no request, or goes where it may not.
    fn admit(&mut self, request: &http::Request<WasiBody>) -> Result<Grant, Error> {
        let requests_max = self.egress.limits.requests_max;
        self.requests = self.requests.saturating_add(1);
        // One line for all that follow: the log is not the guest's to fill.
        if self.requests == requests_max.saturating_add(1) {
            self.log.host_line(&format!(
                "outgoing request refused: the limit is {requests_max} for one invocation"
            ));
        }
        if self.requests > requests_max {
            return Err(Error::HttpRequestDenied);
        }
        // A tunnel would hide where it leads.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let destination = Destination::of(request.uri())?;
        self.egress.grant(&destination).ok_or_else(|| {
            self.log.host_line(&format!(
                "outgoing request to {destination} refused: add \"{destination}\" to allow_hosts"
            ));
            Error::HttpRequestDenied
        })
    }
}

type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sending = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Sent), Error>> + Send>;

/// Guests may neither set nor see these. The filter is for both directions, and
/// the host tells guests their prefix in `x-forwarded-prefix`: the forwarding
/// headers are removed from what goes out, and only there.
fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || name == HOPS
}

impl WasiHttpHooks for HttpHooks {
    // Both: asked for each field, the first would make the second's filter each time.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        // What becomes of the response is the guest's business.
        _received: Sent,
    ) -> Sending {
        let grant = match self.admit(&request) {
            Ok(grant) => grant,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        let (egress, log) = (Arc::clone(&self.egress), Arc::clone(&self.log));
        request.headers_mut().insert(HOPS, egress.host.hops.next(self.hops));
        let track = self.track;
        Box::new(async move {
            let answer = exchange::send(&egress, &grant, request, options).await;
            if let Err(Error::DestinationIpProhibited) = answer {
                let destination = &grant.destination;
                log.host_line(&format!(
                    "outgoing request to {destination} refused: it leads to an address that is private, reserved, or this host's own"
                ));
            }
            let (response, sending) = answer?;
            let sent: Sent = match track {
                // Nobody can be told, and the interface would warn about it in
                // the host's log.
                Track::Sequential => Box::new(std::future::ready(Ok(()))),
                // A guest that gives the response up has given up the rest too.
                Track::Concurrent => Box::new(async { sending.await.unwrap_or(Ok(())) }),
            };
            Ok((response, sent))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    // The two are reached by bodies of the guest's that failed, and by default
    // write to the host's log.
    fn p2_error_from_hyper(
        &mut self,
        _error: &hyper::Error,
    ) -> p2::bindings::http::types::ErrorCode {
        p2::bindings::http::types::ErrorCode::HttpProtocolError
    }

    fn p3_error_from_hyper(
        &mut self,
        _error: &hyper::Error,
    ) -> p3::bindings::http::types::ErrorCode {
        p3::bindings::http::types::ErrorCode::HttpProtocolError
    }
}

#[cfg(test)]
mod tests;
