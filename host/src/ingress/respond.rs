//! Step 6, its head: what the client is told about an answer or a problem.

use bytes::Bytes;
use hyper::Response;
use hyper::Version;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};

use super::request::Refusal;
use crate::http_error::{PROBLEM_JSON, Problem};
use crate::invoke::record::Record;
use crate::invoke::response::ResponseBody;
use crate::invoke::{Answer, Answered};
use crate::model::ids::InvocationId;
use crate::model::invocation::Outcome;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Turns what came of an invocation into a response.
#[must_use]
pub fn answer(answer: Answer, server_timing: bool) -> Response<ResponseBody> {
    let Answered { status, mut headers, response: mut guest, bodyless } = match answer {
        Ok(answered) => answered,
        Err((record, (outcome, error))) => return problem(record, outcome, error),
    };
    if let Some(record) = guest.record() {
        record.answered(status.as_u16());
        headers.insert(X_REQUEST_ID, id_value(record.id));
        if server_timing && let Ok(timing) = HeaderValue::from_maybe_shared(record.server_timing())
        {
            headers.append(SERVER_TIMING, timing);
        }
    }
    let body = if bodyless {
        guest.discard_body();
        ResponseBody::Text(None)
    } else {
        ResponseBody::Guest(guest)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Refuses a request for what its head says, and closes the connection: what
/// comes next on it may not be what it seems.
#[must_use]
pub fn refusal(record: Record, version: Version, (status, why): Refusal) -> Response<ResponseBody> {
    let id = record.id;
    let mut problem = Problem::from_outcome(Outcome::BadRequest, Some(id));
    problem.status = status.as_u16();
    problem.title = status.canonical_reason().unwrap_or_default().into();
    problem.detail = why.into();
    let mut response = told(record, Outcome::BadRequest, Some(why.to_owned()), &problem);
    // In HTTP/2 one stream says nothing about the others.
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Ends a record with an outcome and tells the client as a problem document
/// (RFC 9457). `error` is for the function's owner, except for bad requests,
/// where it is the client's own doing.
#[must_use]
pub fn problem(record: Record, outcome: Outcome, error: Option<String>) -> Response<ResponseBody> {
    let mut problem = Problem::from_outcome(outcome, Some(record.id));
    if let (Outcome::BadRequest, Some(why)) = (outcome, &error) {
        problem.detail = why.clone().into();
    }
    told(record, outcome, error, &problem)
}

fn told(
    mut record: Record,
    outcome: Outcome,
    error: Option<String>,
    problem: &Problem,
) -> Response<ResponseBody> {
    let id = record.id;
    let (status, body) = (problem.status(), problem.to_json());
    record.answered(status.as_u16());
    record.sent(body.len() as u64);
    record.ended(outcome, error);
    let mut response = Response::new(ResponseBody::Text(Some(Bytes::from(body))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(X_REQUEST_ID, id_value(id));
    if matches!(outcome, Outcome::Overloaded | Outcome::TenantLimited) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn id_value(id: InvocationId) -> HeaderValue {
    // Hexadecimal digits are always a header value.
    HeaderValue::from_bytes(&id.to_ascii()).unwrap_or(HeaderValue::from_static(""))
}
