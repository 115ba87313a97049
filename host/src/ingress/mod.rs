//! The data plane's HTTP: steps 1, 2 and 6 of a request.
//!
//! [`accept`] owns connections, [`handle`] is what happens to one request, and
//! [`respond`] turns what came of it into HTTP.

pub mod accept;
pub mod parameters;
pub mod request;
pub mod respond;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming as HyperBody;
use hyper::{Request, Response};

use crate::invoke::record::Record;
use crate::invoke::response::ResponseBody;
use crate::invoke::target::Target;
use crate::invoke::{Incoming, Invoker};
use crate::model::ids::InvocationId;
use crate::model::invocation::Outcome;
use crate::router::Router;
use crate::telemetry::Telemetry;
use crate::telemetry::clock::unix_ms;

/// What every request needs.
pub struct DataPlane {
    /// The current routes.
    pub router: Arc<Router<Arc<Target>>>,
    /// Runs what they lead to.
    pub invoker: Invoker,
    /// Takes the receipts.
    pub telemetry: Arc<Telemetry>,
}

/// One request, from its head to the head of its response. The rest of the
/// response, with the guest behind it, is in the body that is returned.
pub async fn handle(
    plane: &DataPlane,
    peer: SocketAddr,
    request: Request<HyperBody>,
) -> Response<ResponseBody> {
    // The seventh step is armed first: whatever happens, a receipt is written.
    let id = InvocationId::new(unix_ms(), fastrand::u128(..));
    let record = Record::new(id, Arc::clone(&plane.telemetry));

    let (head, body) = request.into_parts();
    let authority = match request::authority(&head) {
        Ok(authority) => authority,
        Err(why) => return respond::problem(record, Outcome::BadRequest, Some(why.to_owned())),
    };
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
    let incoming = Incoming { request, authority, prefix, peer };
    let answer = plane.invoker.invoke(&found.target, incoming, record).await;
    respond::answer(answer, found.target.server_timing)
}
