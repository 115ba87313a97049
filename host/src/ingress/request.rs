//! Checks of a request's head, before anything is done for it.

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Version};

/// Tells a function where its own URL begins; never taken from a client.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The one host that a request is for.
///
/// # Errors
/// Says what is wrong with the request, in words for its sender.
pub fn authority(head: &Parts) -> Result<Box<str>, &'static str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("the request has more than one Host header");
    }
    let host = match host {
        None => None,
        Some(host) => Some(host.to_str().map_err(|_| "the Host header is not a host name")?),
    };
    let authority = match (head.uri.authority().map(Authority::as_str), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err("the request's URL and its Host header name different hosts");
        }
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) if head.version < Version::HTTP_11 => "localhost",
        (None, None) => return Err("the request has no Host header"),
    };
    if !head.uri.path().starts_with('/') {
        return Err("the request's path does not start with '/'");
    }
    match authority.parse::<Authority>() {
        Ok(parsed) if !parsed.as_str().contains('@') && !parsed.host().is_empty() => {
            Ok(authority.into())
        }
        _ => Err("the Host header is not a host name"),
    }
}

/// Makes the request the function's: its path without the first `prefix_bytes`,
/// and a header that says what they were.
///
/// # Errors
/// Only if the rest were not a path, which routing rules out.
pub fn strip_prefix(
    mut head: Parts,
    prefix_bytes: usize,
) -> Result<(Box<str>, Parts), &'static str> {
    const NOT_A_PATH: &str = "the request's path can not be read";
    head.headers.remove(FORWARDED_PREFIX);
    let full = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (prefix, rest) = full.split_at_checked(prefix_bytes).ok_or(NOT_A_PATH)?;
    let prefix: Box<str> = prefix.into();
    let absolute = head.uri.authority().is_some();
    if !prefix.is_empty() || absolute {
        // A guest sees the same form of URL however the client wrote it.
        let rest: PathAndQuery = match rest.strip_prefix('?') {
            Some(query) => format!("/?{query}").parse(),
            None if rest.is_empty() => Ok(PathAndQuery::from_static("/")),
            None => rest.parse(),
        }
        .map_err(|_| NOT_A_PATH)?;
        head.uri = rest.into();
    }
    if !prefix.is_empty() {
        let value = HeaderValue::from_str(&prefix).map_err(|_| NOT_A_PATH)?;
        head.headers.insert(FORWARDED_PREFIX, value);
    }
    Ok((prefix, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(authority(&head("/a", &["x.y:80"])).as_deref(), Ok("x.y:80"));
        assert_eq!(authority(&head("http://x.y/a", &["x.y"])).as_deref(), Ok("x.y"));
        for (uri, hosts) in [
            ("/a", &[][..]),
            ("/a", &["a", "b"]),
            ("/a", &["a", "a"]),
            ("/a", &["u@h"]),
            ("/a", &["a b"]),
            ("/a", &["a/b"]),
            ("/a", &[""]),
            ("http://x.y/a", &["z"]),
            ("*", &["a"]),
        ] {
            assert!(authority(&head(uri, hosts)).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn prefixes_are_stripped_and_told() {
        for (uri, prefix_bytes, expected) in [
            ("/fn/a/b?q=1", 3, "/a/b?q=1"),
            ("/fn", 3, "/"),
            ("/fn?q", 3, "/?q"),
            ("/fn/", 3, "/"),
            ("http://h/fn/x", 3, "/x"),
            ("http://h/x?y", 0, "/x?y"),
        ] {
            let (prefix, head) = strip_prefix(head(uri, &["h"]), prefix_bytes).unwrap();
            assert_eq!(head.uri.to_string(), expected, "{uri}");
            assert_eq!(prefix.len(), prefix_bytes);
            let told = head.headers.get("x-forwarded-prefix").map(HeaderValue::as_bytes);
            assert_eq!(told, (prefix_bytes > 0).then_some(prefix.as_bytes()));
        }
    }
}
