//! From an outgoing request to its response.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    self, ErrorCode, FutureIncomingResponse, IncomingResponse, OutgoingBody, OutgoingRequest,
    RequestOptions,
};

use super::readiness::Readiness;
use super::{BodyReader, BodyWriter, declared_length, from_fields, to_fields};
use crate::body::Sender;
use crate::{Body, Error, Result};

/// The order of the fields is the order in which WASI wants them dropped.
#[derive(Debug)]
pub(crate) struct Pending {
    readiness: Readiness,
    response: FutureIncomingResponse,
}

impl Pending {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<Body>>> {
        match self.response.get() {
            Some(Ok(Ok(response))) => Poll::Ready(receive(response)),
            Some(Ok(Err(code))) => Poll::Ready(Err(failed(code))),
            Some(Err(())) => panic!("a response was awaited again after it had arrived"),
            None => {
                self.readiness.wake_when_ready(context.waker());
                Poll::Pending
            }
        }
    }
}

pub(crate) fn start(request: Request<Body>, timeout: Option<Duration>) -> Result<Pending> {
    let (parts, body) = request.into_parts();
    let length = body
        .length()
        .filter(|length| *length > 0 || ![Method::GET, Method::HEAD].contains(&parts.method));
    let outgoing = OutgoingRequest::new(to_fields(&parts.headers, length));
    describe(&outgoing, &parts)
        .map_err(|what| io::Error::other(format!("{}: {what}", parts.uri)))?;

    let outgoing_body = outgoing.body().expect("the body is taken once");
    let options = timeout.map(to_options);
    let response = outgoing_handler::handle(outgoing, options).map_err(failed)?;

    let mut writer = BodyWriter(outgoing_body.write().expect("the stream is taken once"));
    let sent = body.send_to(&mut writer);
    drop(writer);
    match sent {
        // Why it was not finished is told by the response.
        Ok(()) => drop(OutgoingBody::finish(outgoing_body, None)),
        // A server may answer, or fail, before it has read everything.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Pending {
        readiness: Readiness::new(response.subscribe()),
        response,
    })
}

/// Sets method and URL, or says which of them is not possible.
fn describe(outgoing: &OutgoingRequest, parts: &http::request::Parts) -> Result<(), &'static str> {
    let scheme = match parts.uri.scheme_str() {
        Some("http") => types::Scheme::Http,
        Some("https") => types::Scheme::Https,
        Some(other) => types::Scheme::Other(other.to_string()),
        None => return Err("the URL of an outgoing request must be absolute"),
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let path = parts.uri.path_and_query().map(|path| path.as_str());
    outgoing
        .set_method(&to_method(&parts.method))
        .map_err(|()| "the host refused the method")?;
    outgoing
        .set_scheme(Some(&scheme))
        .and_then(|()| outgoing.set_authority(authority))
        .and_then(|()| outgoing.set_path_with_query(path))
        .map_err(|()| "the host refused the URL")
}

fn to_method(method: &Method) -> types::Method {
    match method.as_str() {
        "GET" => types::Method::Get,
        "HEAD" => types::Method::Head,
        "POST" => types::Method::Post,
        "PUT" => types::Method::Put,
        "DELETE" => types::Method::Delete,
        "CONNECT" => types::Method::Connect,
        "OPTIONS" => types::Method::Options,
        "TRACE" => types::Method::Trace,
        "PATCH" => types::Method::Patch,
        other => types::Method::Other(other.to_string()),
    }
}

fn to_options(timeout: Duration) -> RequestOptions {
    let nanoseconds = Some(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    let options = RequestOptions::new();
    // A host may not offer one of these; it then keeps its own limits.
    let _ = options.set_connect_timeout(nanoseconds);
    let _ = options.set_first_byte_timeout(nanoseconds);
    let _ = options.set_between_bytes_timeout(nanoseconds);
    options
}

fn receive(incoming: IncomingResponse) -> Result<Response<Body>> {
    let headers = from_fields(&incoming.headers());
    let body = incoming
        .consume()
        .ok()
        .and_then(BodyReader::new)
        .ok_or_else(|| io::Error::other("the host gave a response without a body"))?;
    let body = Body::received(body, declared_length(&headers), Sender::Upstream);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(incoming.status())?;
    *response.headers_mut() = headers;
    Ok(response)
}

fn failed(code: ErrorCode) -> Error {
    let too_slow = matches!(
        code,
        ErrorCode::DnsTimeout
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout
    );
    let (status, message) = if too_slow {
        (
            StatusCode::GATEWAY_TIMEOUT,
            "an upstream server did not answer in time",
        )
    } else {
        (
            StatusCode::BAD_GATEWAY,
            "an upstream server could not be asked",
        )
    };
    Error::new(status, message).caused_by(format!("{code:?}"))
}
