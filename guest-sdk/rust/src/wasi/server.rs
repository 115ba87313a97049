//! From an incoming request to the handler and back.

use std::io::{self, ErrorKind, Read};

use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode};
use wasip2::http::types::{
    self, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use super::{BodyReader, BodyWriter, declared_length, from_fields, to_fields};
use crate::body::Sender;
use crate::{Body, Error, IntoResponse, Result};

/// Answers one request. This is what `#[handler]` exports.
pub fn serve(
    request: IncomingRequest,
    response_out: ResponseOutparam,
    respond: fn(Request<Body>) -> Response<Body>,
) {
    let response = match receive(request) {
        Ok(request) => respond(request),
        Err(error) => error.into_response(),
    };
    send(response, response_out);
}

fn receive(incoming: IncomingRequest) -> Result<Request<Body>> {
    let method = match incoming.method() {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        types::Method::Put => Method::PUT,
        types::Method::Delete => Method::DELETE,
        types::Method::Connect => Method::CONNECT,
        types::Method::Options => Method::OPTIONS,
        types::Method::Trace => Method::TRACE,
        types::Method::Patch => Method::PATCH,
        types::Method::Other(name) => Method::from_bytes(name.as_bytes())
            .map_err(|_| Error::bad_request("the method is not valid"))?,
    };
    let headers = from_fields(&incoming.headers());
    let uri = receive_uri(&incoming).map_err(|_| Error::bad_request("the URL is not valid"))?;
    let length = declared_length(&headers);
    let body = Body::received(RequestBody::Unread(incoming), length, Sender::Client);

    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A request's body. The host is asked for it by who reads it first: most functions never do.
enum RequestBody {
    Unread(IncomingRequest),
    Read(BodyReader),
}

impl Read for RequestBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let RequestBody::Unread(request) = self {
            let body = request.consume().ok().and_then(BodyReader::new);
            let none = || io::Error::other("the host gave a request without a body");
            *self = RequestBody::Read(body.ok_or_else(none)?);
        }
        match self {
            RequestBody::Read(body) => body.read(buffer),
            // Not reached.
            RequestBody::Unread(_) => Ok(0),
        }
    }
}

/// The absolute URL where the host says what it is, the path alone otherwise.
fn receive_uri(incoming: &IncomingRequest) -> Result<Uri, http::Error> {
    let path = incoming.path_with_query().unwrap_or_default();
    let path = PathAndQuery::try_from(if path.is_empty() { "/" } else { &path })?;
    let scheme = match incoming.scheme() {
        Some(types::Scheme::Http) => Some(Scheme::HTTP),
        Some(types::Scheme::Https) => Some(Scheme::HTTPS),
        Some(types::Scheme::Other(name)) => name.parse().ok(),
        None => None,
    };
    match (scheme, incoming.authority()) {
        (Some(scheme), Some(authority)) if !authority.is_empty() => Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path)
            .build(),
        _ => Ok(Uri::from(path)),
    }
}

fn send(response: Response<Body>, response_out: ResponseOutparam) {
    let (parts, body) = response.into_parts();
    // These never have a body, and so no length either (RFC 9110, 8.6).
    let bodiless = parts.status.is_informational()
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let length = if bodiless { None } else { body.length() };
    let outgoing = OutgoingResponse::new(to_fields(&parts.headers, length));
    // What it begins with need not be said.
    if parts.status != StatusCode::OK && outgoing.set_status_code(parts.status.as_u16()).is_err() {
        eprintln!("error: the host refused the status {}", parts.status);
        let code = types::ErrorCode::InternalError(Some("the status is not valid".to_string()));
        return ResponseOutparam::set(response_out, Err(code));
    }
    let outgoing_body = outgoing.body().expect("the body is taken once");
    // The head leaves now; the body follows as it is made.
    ResponseOutparam::set(response_out, Ok(outgoing));
    let mut writer = BodyWriter(outgoing_body.write().expect("the stream is taken once"));
    let sent = body.send_to(&mut writer);
    drop(writer);
    match sent {
        Ok(()) => {
            if let Err(error) = OutgoingBody::finish(outgoing_body, None) {
                eprintln!("error: the response was not finished: {error:?}");
            }
        }
        // The client left. There is nobody to tell.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        // A body that is not finished tells the client that it is incomplete.
        Err(error) => eprintln!("error: the response broke off: {error}"),
    }
}
