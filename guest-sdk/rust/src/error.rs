//! Errors that become responses.

use std::error::Error as StdError;
use std::fmt;

use http::{Response, StatusCode, header};

use crate::{Body, IntoResponse};

/// A result whose error is, unless said otherwise, an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request: a status, a text for the client, and a cause for the log.
///
/// Two kinds of errors meet in a handler, and only one of them is the client's business:
///
/// - [`Error::new`] is said on purpose: the client gets its status and message.
/// - Any other error that `?` turns into an `Error` is a 500 whose text stays in the log
///   (standard error), because it may hold what a client must not see.
///
/// The response is an `application/problem+json` document (RFC 9457).
///
/// ```
/// use whit_sdk::{Error, Result, http::StatusCode};
///
/// fn half(text: &str) -> Result<u32> {
///     let number: u32 = text.parse()?; // a 500; the client does not see why
///     if number % 2 == 1 {
///         return Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "an odd number has no half"));
///     }
///     Ok(number / 2)
/// }
///
/// assert_eq!(half("8").unwrap(), 4);
/// assert_eq!(half("7").unwrap_err().status(), 422);
/// assert_eq!(half("seven").unwrap_err().status(), 500);
/// ```
pub struct Error {
    status: StatusCode,
    message: Option<String>,
    cause: Option<Box<dyn StdError>>,
}

impl Error {
    /// An error that the client gets to see.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Error {
            status,
            message: Some(message.into()),
            cause: None,
        }
    }

    /// A 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Error::new(StatusCode::BAD_REQUEST, message)
    }

    /// A 404: there is nothing here.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(StatusCode::NOT_FOUND, message)
    }

    /// A 405: this path exists, but not for this method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Error::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// Adds what led to this error. It goes to the log, never to the client.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The status that the client gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that the client gets, if any.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What led to this error, if anything is known.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref()
    }
}

/// The whole story, for the log: the message and then each cause.
impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.status.as_str())?;
        if let Some(message) = &self.message {
            write!(formatter, ": {message}")?;
        }
        let mut cause = self.cause();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Error({self})")
    }
}

/// Any error is a 500 whose text the client does not see.
///
/// This is also why [`Error`] is not itself a [`std::error::Error`]: it would be two conversions
/// for one type.
impl<E: StdError + 'static> From<E> for Error {
    fn from(cause: E) -> Self {
        Error {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: None,
            cause: Some(Box::new(cause)),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response<Body> {
        // A client's own mistake without a cause tells the owner of the function nothing.
        if self.status.is_server_error() || self.cause.is_some() {
            eprintln!("error: {self}");
        }
        let mut problem = serde_json::json!({
            "status": self.status.as_u16(),
            "title": self.status.canonical_reason().unwrap_or("Error"),
        });
        if let Some(message) = self.message {
            problem["detail"] = message.into();
        }
        let mut response = Response::new(Body::from(format!("{problem}\n")));
        *response.status_mut() = self.status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(error: Error) -> String {
        let (_, body) = error.into_response().into_parts();
        body.text(1000).unwrap()
    }

    #[test]
    fn an_explicit_error_is_shown() {
        let error = Error::not_found("no such photograph").caused_by("row 7 is missing");
        assert_eq!(
            error.to_string(),
            "404: no such photograph: row 7 is missing"
        );
        assert_eq!(
            body_of(error),
            "{\"detail\":\"no such photograph\",\"status\":404,\"title\":\"Not Found\"}\n"
        );
    }

    #[test]
    fn any_other_error_is_hidden() {
        let error = Error::from(std::io::Error::other("the password is swordfish"));
        assert!(error.to_string().contains("swordfish"));
        assert_eq!(
            body_of(error),
            "{\"status\":500,\"title\":\"Internal Server Error\"}\n"
        );
    }
}
