//! Extractors whose refusals are problem documents like every other error.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::JSON_BYTES_MAX;
use crate::http_error::{Code, Problem};
use crate::model::ids::{FunctionId, InvocationId, RevisionNumber, TenantName};
use crate::model::quantity::ByteSize;

/// The function that the path names.
pub(super) struct FunctionPath(pub(super) FunctionId);

/// The function and revision that the path names.
pub(super) struct RevisionPath(pub(super) FunctionId, pub(super) RevisionNumber);

/// The invocation that the path names.
pub(super) struct InvocationPath(pub(super) InvocationId);

/// The query, read as `T`.
pub(super) struct ApiQuery<T>(pub(super) T);

/// The body, at most [`JSON_BYTES_MAX`].
pub(super) struct Document(pub(super) Bytes);

async fn parameter<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<String, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state).await.map_err(|error| {
        Problem::new(Code::InvalidRequest, format!("The path can not be read: {error}."))
    })?;
    let value = parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    // Absent only if a route and its handler disagree; then nothing is found.
    value.ok_or_else(|| Problem::new(Code::NotFound, format!("The path has no {name}.")))
}

/// Only the default tenant exists so far; types and storage know tenants.
pub(super) fn function_id(name: &str) -> Result<FunctionId, Problem> {
    Ok(FunctionId { tenant: TenantName::default(), name: name.parse()? })
}

impl<S: Send + Sync> FromRequestParts<S> for FunctionPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(function_id(&parameter(parts, state, "name").await?)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RevisionPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let function = function_id(&parameter(parts, state, "name").await?)?;
        let number = parameter(parts, state, "number").await?.parse()?;
        Ok(Self(function, number))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InvocationPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(parameter(parts, state, "id").await?.parse()?))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| {
            let why = error.body_text();
            Problem::new(Code::InvalidRequest, format!("The query can not be read: {why}."))
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(body_problem)
    }
}

fn body_problem(error: BytesRejection) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let max = ByteSize(JSON_BYTES_MAX as u64);
        let detail = format!("The document is larger than {max}, which is the most that is read.");
        return Problem::new(Code::TooLarge, detail);
    }
    Problem::new(Code::InvalidRequest, format!("The body can not be read: {}.", error.body_text()))
}

/// Items per page: `asked` within 1 to `max`.
pub(super) fn page_limit(asked: Option<u32>, default: u32, max: u32) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=max).contains(&limit) {
        // At most `max`, which is a u32: it fits a usize here.
        return Ok(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let detail = format!("limit={limit} is out of bounds; give a number from 1 to {max}.");
    Err(Problem::new(Code::InvalidRequest, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_bounded() {
        assert_eq!(page_limit(None, 100, 1000).unwrap(), 100);
        assert_eq!(page_limit(Some(1000), 100, 1000).unwrap(), 1000);
        assert!(page_limit(Some(0), 100, 1000).is_err());
        assert!(page_limit(Some(1001), 100, 1000).is_err());
    }
}
