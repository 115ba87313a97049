//! The data plane's HTTP: steps 1, 2 and 6 of a request.
//!
//! [`accept`] takes connections in, [`connection`] serves one, [`handle`] is what
//! happens to one request, and [`respond`] turns what came of it into HTTP.

pub mod accept;
pub mod body;
pub mod connection;
mod flood;
pub mod framing;
mod http2;
pub mod parameters;
pub mod request;
pub mod respond;
mod stream;
mod timer;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming as HyperBody};
use hyper::{Request, Response};

use self::body::ClientBody;
use crate::capabilities::http::HopKey;
use crate::invoke::pace::Pace;
use crate::invoke::record::Record;
use crate::invoke::response::ResponseBody;
use crate::invoke::target::Target;
use crate::invoke::{Incoming, Invoker};
use crate::model::ids::InvocationId;
use crate::model::invocation::Outcome;
use crate::router::Router;
use crate::telemetry::Telemetry;
use crate::telemetry::clock::unix_ms;

/// Largest head of a request, in bytes; 431 beyond.
const HEAD_BYTES_MAX: u32 = 32 << 10;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// What every request needs.
pub struct DataPlane {
    /// The current routes.
    pub router: Arc<Router<Arc<Target>>>,
    /// Runs what they lead to.
    pub invoker: Invoker,
    /// Takes the receipts.
    pub telemetry: Arc<Telemetry>,
    /// Tells which requests come from functions of this host.
    pub hops: Arc<HopKey>,
    /// How long a body may keep its reader waiting.
    pub body_stall_max: Duration,
}

/// One request, from its head to the head of its response. The rest of the
/// response, with the guest behind it, is in the body that is returned.
pub async fn handle(
    plane: &DataPlane,
    origin: Origin,
    request: Request<HyperBody>,
) -> Response<ResponseBody> {
    // The seventh step is armed first: whatever happens, a receipt is written.
    let id = InvocationId::new(unix_ms(), fastrand::u128(..));
    let record = Record::new(id, Arc::clone(&plane.telemetry));
    let pace = Pace::of_request();

    let (mut head, body) = request.into_parts();
    let body = ClientBody::new(&head, body, plane.body_stall_max);
    let authority = match request::check(&head, body.is_end_stream()) {
        Ok(authority) => authority,
        Err(refusal) => return respond::refusal(record, head.version, refusal),
    };
    let hops = plane.hops.take(&mut head.headers);
    let path = head.uri.path();
    let Some(found) = plane.router.load().find(&authority, head.method.as_str(), path) else {
        return respond::problem(record, Outcome::NoRoute, None);
    };
    let (prefix, mut head) = match request::strip_prefix(head, found.prefix_bytes) {
        Ok(stripped) => stripped,
        Err(why) => return respond::problem(record, Outcome::BadRequest, Some(why.to_owned())),
    };
    if let Some(named) = &found.parameters {
        head.uri = parameters::in_query(&head.uri, named);
    }
    let request = Request::from_parts(head, body);
    let Origin { peer, secure } = origin;
    let incoming = Incoming { request, authority, prefix, peer, secure, hops };
    pace.keep().await;
    let answer = plane.invoker.invoke(&found.target, incoming, record).await;
    pace.keep().await;
    respond::answer(answer, found.target.server_timing)
}
