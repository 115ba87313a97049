//! What is often asked of a request.

use std::fmt::Display;
use std::str::FromStr;

use http::Request;
use serde::de::DeserializeOwned;

use crate::{Body, Error, Result};

/// The most bytes that [`RequestExt::json`] reads: 1 MiB. For another limit, see [`Body::json`].
pub const JSON_BYTES_MAX: usize = 1024 * 1024;

/// What is often asked of a request, beside what [`http::Request`] has.
///
/// ```
/// use whit_sdk::{Body, RequestExt, http::Request};
///
/// let request = Request::post("/resize?width=320&height=tall")
///     .body(Body::from(r#"{"name": "Ada"}"#))
///     .unwrap();
///
/// assert_eq!(request.query("height").as_deref(), Some("tall"));
/// assert_eq!(request.query_as::<u32>("width").unwrap(), Some(320));
/// assert_eq!(request.query_as::<u32>("height").unwrap_err().status(), 400);
///
/// let person: std::collections::HashMap<String, String> = request.json().unwrap();
/// assert_eq!(person["name"], "Ada");
/// ```
pub trait RequestExt {
    /// The body as a value, through serde. At most [`JSON_BYTES_MAX`] bytes (413); what does not
    /// fit the type is a 400 that says where.
    fn json<T: DeserializeOwned>(self) -> Result<T>;

    /// The first value of this name in the query string, decoded.
    fn query(&self, name: &str) -> Option<String>;

    /// The first value of this name in the query string as a `T`; a 400 that names it where it is
    /// not one.
    fn query_as<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>>;

    /// The first header of this name, if it is text.
    fn header(&self, name: &str) -> Option<&str>;
}

impl RequestExt for Request<Body> {
    fn json<T: DeserializeOwned>(self) -> Result<T> {
        self.into_body().json(JSON_BYTES_MAX)
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.uri().query()?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn query_as<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        self.query(name)
            .map(|value| {
                value.parse().map_err(|error| {
                    Error::bad_request(format!(
                        "the query parameter `{name}` is not valid: {error}"
                    ))
                })
            })
            .transpose()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let request = Request::get("/?a=1&name=Ada+L%C3%B6vlace&name=second&empty=")
            .body(Body::empty())
            .unwrap();
        assert_eq!(request.query("name").as_deref(), Some("Ada Lövlace"));
        assert_eq!(request.query("empty").as_deref(), Some(""));
        assert_eq!(request.query("absent"), None);
        assert_eq!(request.query_as::<u8>("absent").unwrap(), None);
    }

    #[test]
    fn broken_json_is_a_400_that_says_where() {
        let request = Request::post("/").body(Body::from("{\"a\": }")).unwrap();
        let error = request.json::<serde_json::Value>().unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.message().unwrap().contains("line 1 column 7"));
    }
}
