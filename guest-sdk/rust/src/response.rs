//! What a handler may return.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{Body, Error};

/// Anything that a handler may return.
///
/// | value | response |
/// |---|---|
/// | `&'static str`, `String` | 200, `text/plain` |
/// | `Vec<u8>` | 200, `application/octet-stream` |
/// | [`Json`] | 200, `application/json` |
/// | [`Body`] | 200, no content type |
/// | [`StatusCode`], `()` | that status, or 200, with an empty body |
/// | `(StatusCode, value)` | the value's response with that status |
/// | `http::Response<B>` | itself, when `B` can become a [`Body`] |
/// | `Result<value, E>` | the value's, or the error's, see [`Error`] |
pub trait IntoResponse {
    /// The response to send.
    fn into_response(self) -> Response<Body>;
}

/// A value sent as JSON.
///
/// ```
/// use whit_sdk::{IntoResponse, Json};
///
/// let response = Json([1, 2, 3]).into_response();
/// assert_eq!(response.headers()["content-type"], "application/json");
/// assert_eq!(response.into_body().text(100).unwrap(), "[1,2,3]");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

fn with_content_type(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response<Body> {
        match serde_json::to_vec(&self.0) {
            Ok(json) => with_content_type("application/json", json),
            Err(error) => Error::from(error).into_response(),
        }
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response<Body> {
        with_content_type("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response<Body> {
        with_content_type("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response<Body> {
        with_content_type("application/octet-stream", self)
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response<Body> {
        Response::new(self)
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response<Body> {
        Response::new(Body::empty())
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response<Body> {
        (self, ()).into_response()
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response<Body> {
        let (status, value) = self;
        let mut response = value.into_response();
        *response.status_mut() = status;
        response
    }
}

impl<B: Into<Body>> IntoResponse for Response<B> {
    fn into_response(self) -> Response<Body> {
        self.map(Into::into)
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response<Body> {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into().into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_responses() {
        let response = (StatusCode::CREATED, "made").into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
        assert_eq!(response.into_body().text(10).unwrap(), "made");

        let failed: Result<&str, std::num::ParseIntError> = "x".parse::<i32>().map(|_| "unreached");
        assert_eq!(failed.into_response().status(), 500);
    }

    #[test]
    fn what_is_not_json_is_a_500() {
        let key_is_not_text = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Json(key_is_not_text).into_response().status(), 500);
    }
}
