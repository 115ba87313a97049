//! The one table from our errors to HTTP status, stable code and public text.
//!
//! Every error that leaves the host over HTTP is a [`Problem`] (RFC 9457,
//! `application/problem+json`) and its `code` comes from here. The matches are
//! exhaustive on purpose: a new error does not compile until somebody has
//! decided what a client sees of it. 500 is a bug of ours and nothing else.

use std::borrow::Cow;
use std::error::Error;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::compile::CompileError;
use crate::model::ids::{IdError, InvocationId};
use crate::model::invocation::Outcome;
use crate::model::spec::SpecError;
use crate::registry::RegistryError;
use crate::storage::StorageError;
use crate::telemetry::error_chain;

/// The media type of every error body.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What `type` starts with; the code follows.
const TYPE_PREFIX: &str = "urn:whit:problem:";

/// 499, which nginx made customary for "the client left": in logs only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What a client may be told, outcomes of invocations aside: those have
/// [`Outcome::as_str`] as their code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request can not be read: its query, its JSON, its multipart body.
    InvalidRequest,
    /// A function's, tenant's or alias's name is not one.
    InvalidName,
    /// A digest, revision number or invocation id is not one.
    InvalidId,
    /// `If-Match` or `If-None-Match` can not be read.
    InvalidPrecondition,
    /// The spec has an unknown key or a value that is out of bounds.
    InvalidSpec,
    /// No token, or a wrong one.
    Unauthorized,
    /// No such function, revision, invocation or path.
    NotFound,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The client stopped sending.
    RequestTimeout,
    /// Another function has the route.
    RouteTaken,
    /// There is no earlier revision.
    NothingToRollBackTo,
    /// The function is not as the precondition says.
    Conflict,
    /// The upload or the document is over its limit.
    TooLarge,
    /// The body is of another media type than the resource takes.
    UnsupportedMediaType,
    /// The upload is nothing that can run here.
    UnsupportedComponent,
    /// The upload is WebAssembly, but broken.
    InvalidComponent,
    /// The component does not export a handler.
    NoHandler,
    /// The component imports what nothing here offers.
    MissingImports,
    /// Compiling the component takes more than is allowed.
    ComponentTooCostly,
    /// The host starts or stops.
    NotReady,
    /// The data folder's disk is full.
    DiskFull,
    /// The data folder's disk fails, or can only be read.
    DiskFailing,
    /// A bug of ours.
    HostError,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 23] = [
        Self::InvalidRequest,
        Self::InvalidName,
        Self::InvalidId,
        Self::InvalidPrecondition,
        Self::InvalidSpec,
        Self::Unauthorized,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::RouteTaken,
        Self::NothingToRollBackTo,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::UnsupportedComponent,
        Self::InvalidComponent,
        Self::NoHandler,
        Self::MissingImports,
        Self::ComponentTooCostly,
        Self::NotReady,
        Self::DiskFull,
        Self::DiskFailing,
        Self::HostError,
    ];

    /// Status, stable code and title.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid_request", "Invalid request"),
            Self::InvalidName => (S::BAD_REQUEST, "invalid_name", "Invalid name"),
            Self::InvalidId => (S::BAD_REQUEST, "invalid_id", "Invalid identifier"),
            Self::InvalidPrecondition => {
                (S::BAD_REQUEST, "invalid_precondition", "Invalid precondition")
            }
            Self::InvalidSpec => (S::BAD_REQUEST, "invalid_spec", "Invalid function spec"),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "Token required"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::RouteTaken => (S::CONFLICT, "route_taken", "Route taken"),
            Self::NothingToRollBackTo => {
                (S::CONFLICT, "nothing_to_roll_back_to", "Nothing to roll back to")
            }
            Self::Conflict => (S::PRECONDITION_FAILED, "conflict", "Changed meanwhile"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "Too large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::UnsupportedComponent => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_component", "Unsupported component")
            }
            Self::InvalidComponent => {
                (S::UNPROCESSABLE_ENTITY, "invalid_component", "Invalid component")
            }
            Self::NoHandler => (S::UNPROCESSABLE_ENTITY, "no_handler", "No handler"),
            Self::MissingImports => (S::UNPROCESSABLE_ENTITY, "missing_imports", "Missing imports"),
            Self::ComponentTooCostly => {
                (S::UNPROCESSABLE_ENTITY, "component_too_costly", "Too costly to compile")
            }
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not_ready", "Not ready"),
            Self::DiskFull => (S::INSUFFICIENT_STORAGE, "disk_full", "Disk full"),
            Self::DiskFailing => (S::INSUFFICIENT_STORAGE, "disk_failing", "Disk failing"),
            Self::HostError => (S::INTERNAL_SERVER_ERROR, "host_error", "Host error"),
        }
    }

    /// The stable code, as in problem documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().0
    }
}

/// The status of an outcome, and what its client may read about it. Never holds
/// anything that a guest wrote: that is in the function's log.
#[must_use]
pub fn outcome(outcome: Outcome) -> (StatusCode, &'static str) {
    use StatusCode as S;
    match outcome {
        Outcome::Ok => (S::OK, "The function answered."),
        Outcome::NoRoute => (S::NOT_FOUND, "No function answers at this address."),
        Outcome::BadRequest => (S::BAD_REQUEST, "The request is not valid HTTP."),
        Outcome::BodyTooLarge => {
            (S::PAYLOAD_TOO_LARGE, "The request body is larger than this function accepts.")
        }
        Outcome::TenantLimited => (
            S::TOO_MANY_REQUESTS,
            "This function is at its limit of concurrent requests. Try again shortly.",
        ),
        Outcome::Overloaded => {
            (S::SERVICE_UNAVAILABLE, "This host is at its capacity. Try again shortly.")
        }
        Outcome::Timeout => {
            (S::GATEWAY_TIMEOUT, "The function did not finish within its time limit.")
        }
        Outcome::CpuLimit => (S::GATEWAY_TIMEOUT, "The function used up its processor time limit."),
        Outcome::MemoryLimit => (S::BAD_GATEWAY, "The function ran out of its memory limit."),
        Outcome::Trapped => (S::BAD_GATEWAY, "The function failed. Its log says why."),
        Outcome::NoResponse => {
            (S::BAD_GATEWAY, "The function ended without a valid response. Its log says why.")
        }
        Outcome::OutputLimit => {
            (S::BAD_GATEWAY, "The function's response is larger than its limit.")
        }
        Outcome::Recursion => (S::LOOP_DETECTED, "Functions called each other too deeply."),
        Outcome::ClientGone => (
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(S::BAD_REQUEST),
            "The client closed the connection before the response was complete.",
        ),
        Outcome::HostError => {
            (S::INTERNAL_SERVER_ERROR, "The host failed; this is not the function's fault.")
        }
    }
}

/// An error as clients see it: RFC 9457, with a stable `code`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:whit:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:whit:problem:missing_imports")]
    pub kind: Box<str>,
    /// The kind of problem in a few words; the same for every problem of a code.
    #[schema(value_type = String)]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to what, and what to do next.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// The stable code that programs may match on.
    #[schema(value_type = String, example = "missing_imports")]
    pub code: Cow<'static, str>,
    /// The invocation, as in `X-Request-Id`, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<Box<str>>,
    /// What went wrong below, for our log and never for the client.
    #[serde(skip)]
    #[schema(ignore)]
    cause: Option<Box<str>>,
}

impl Problem {
    /// A problem of this code; `detail` says what happened, to what, and what
    /// to do next.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let (status, code, title) = code.row();
        Self::build(status, code, title.into(), detail.into())
    }

    /// The problem document of an invocation that did not end well.
    #[must_use]
    pub fn from_outcome(ended: Outcome, id: Option<InvocationId>) -> Self {
        let (status, text) = outcome(ended);
        let title = status.canonical_reason().unwrap_or("Client Closed Request");
        let mut problem = Self::build(status, ended.as_str(), title.into(), text.to_owned());
        problem.request_id = id.map(|id| id.to_string().into());
        problem
    }

    fn build(
        status: StatusCode,
        code: &'static str,
        title: Cow<'static, str>,
        detail: String,
    ) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{code}").into(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            request_id: None,
            cause: None,
        }
    }

    /// A bug of ours: the client learns that it is one, our log the rest.
    #[must_use]
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        let detail = "The host failed; nothing was changed. Its log says why.";
        Self::new(Code::HostError, detail).caused_by(cause)
    }

    /// With what the log says of it.
    fn caused_by(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.cause = Some(error_chain(cause).into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The document, as it is sent.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and a number always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    /// The only place where the control plane's errors are logged: here they
    /// are handled.
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(code = %self.code, "{cause}");
        }
        let status = self.status();
        let mut response = (status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"whit\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        let code = match &error {
            IdError::Name { .. } => Code::InvalidName,
            IdError::Digest(_) | IdError::Revision(_) | IdError::Invocation(_) => Code::InvalidId,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SpecError> for Problem {
    fn from(error: SpecError) -> Self {
        match &error {
            SpecError::UnknownKey { .. } | SpecError::Value { .. } => {
                Self::new(Code::InvalidSpec, error.to_string())
            }
            SpecError::Syntax(why) => {
                Self::new(Code::InvalidSpec, format!("the spec can not be read: {why}"))
            }
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match &error {
            StorageError::Conflict { .. } => Self::new(
                Code::Conflict,
                format!("{error}. Nothing was changed; read the function again and decide anew."),
            ),
            StorageError::Full(_) => {
                let detail = "The data folder's disk is full. Nothing was changed, and functions \
                              keep answering; free some space and try again.";
                Self::new(Code::DiskFull, detail).caused_by(&error)
            }
            StorageError::Failing(_) => {
                let detail = "The data folder's disk fails, or can only be read. Nothing was \
                              changed, and functions keep answering; try again once it can be \
                              written.";
                Self::new(Code::DiskFailing, detail).caused_by(&error)
            }
            StorageError::Failed { .. } => Self::internal(&error),
        }
    }
}

impl From<CompileError> for Problem {
    fn from(error: CompileError) -> Self {
        let code = match error {
            CompileError::Unsupported { .. } => Code::UnsupportedComponent,
            CompileError::Invalid { .. } => Code::InvalidComponent,
            CompileError::NoHandler { .. } => Code::NoHandler,
            CompileError::MissingImports { .. } => Code::MissingImports,
            CompileError::TooCostly { .. } => Code::ComponentTooCostly,
            CompileError::Storage(storage) => return storage.into(),
            CompileError::Failed { .. } => return Self::internal(&error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoFunction(_) => Self::new(
                Code::NotFound,
                format!("{error}; GET /v1/functions lists what is deployed"),
            ),
            RegistryError::NoRevision { ref function, .. } => Self::new(
                Code::NotFound,
                format!("{error}; GET /v1/functions/{}/revisions lists them", function.name),
            ),
            RegistryError::NothingToRollBackTo(_) => {
                Self::new(Code::NothingToRollBackTo, error.to_string())
            }
            RegistryError::RouteTaken { .. } => Self::new(
                Code::RouteTaken,
                format!("{error}. Nothing was changed; take the route from one of the two specs."),
            ),
            RegistryError::Component(component) => component.into(),
            RegistryError::Storage(storage) => storage.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::ids::{FunctionId, FunctionName, RevisionNumber, TenantName};

    fn function() -> FunctionId {
        let name: FunctionName = "hello".parse().unwrap();
        FunctionId { tenant: TenantName::default(), name }
    }

    #[test]
    fn codes_are_distinct_and_only_ours_is_500() {
        let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(code.status().as_u16() == 500, code == Code::HostError, "{code:?}");
        }
        for ended in Outcome::ALL {
            let (status, text) = outcome(ended);
            assert_eq!(status.as_u16() == 500, ended == Outcome::HostError, "{ended:?}");
            assert!(text.ends_with('.'), "{text}");
        }
        assert_eq!(outcome(Outcome::ClientGone).0.as_u16(), 499);
        assert_eq!(outcome(Outcome::Recursion).0.as_u16(), 508);
    }

    #[test]
    fn errors_have_their_documented_status_and_code() {
        let io = || Box::new(std::io::Error::other("secret path"));
        let cases: Vec<(RegistryError, u16, &str)> = vec![
            (RegistryError::NoFunction(function()), 404, "not_found"),
            (RegistryError::NothingToRollBackTo(function()), 409, "nothing_to_roll_back_to"),
            (
                RegistryError::RouteTaken { route: "/x".into(), holder: function() },
                409,
                "route_taken",
            ),
            (StorageError::Conflict { active: Some(RevisionNumber(3)) }.into(), 412, "conflict"),
            (StorageError::Full(io()).into(), 507, "disk_full"),
            (StorageError::Failing(io()).into(), 507, "disk_failing"),
            (StorageError::Failed { action: "read", source: io() }.into(), 500, "host_error"),
            (
                CompileError::Unsupported { found: "text".into() }.into(),
                415,
                "unsupported_component",
            ),
            (CompileError::Invalid { why: "cut".into() }.into(), 422, "invalid_component"),
            (CompileError::NoHandler { exports: vec![] }.into(), 422, "no_handler"),
            (
                CompileError::MissingImports { imports: vec!["a:b/c".into()] }.into(),
                422,
                "missing_imports",
            ),
            (CompileError::TooCostly { limit: "memory" }.into(), 422, "component_too_costly"),
            (CompileError::Failed { why: "oops".into() }.into(), 500, "host_error"),
        ];
        for (error, status, code) in cases {
            let text = format!("{error:?}");
            let problem = Problem::from(error);
            assert_eq!((problem.status, &*problem.code), (status, code), "{text}");
            let json = String::from_utf8(problem.to_json()).unwrap();
            assert!(!json.contains("secret path") && !json.contains("oops"), "{json}");
        }
    }

    #[test]
    fn a_problem_is_one_document() {
        let id = InvocationId(0x1234);
        let problem = Problem::from_outcome(Outcome::Timeout, Some(id));
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "urn:whit:problem:timeout");
        assert_eq!(json["title"], "Gateway Timeout");
        assert_eq!(json["status"], 504);
        assert_eq!(json["request_id"], id.to_string());
        let response = Problem::new(Code::Unauthorized, "x").into_response();
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert!(response.headers().contains_key("www-authenticate"));
    }
}
