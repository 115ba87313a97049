//! Checks of a request's head, before anything is done for it.

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::capabilities::http::HopKey;

/// Tells a function where its own URL begins; never taken from a client.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Longest path and query of a request, in bytes; 414 beyond.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Why a request is not taken: the status, and words for its sender.
pub type Refusal = (StatusCode, &'static str);

/// Checks a head, and returns the one host that it is for.
///
/// # Errors
/// See [`Refusal`].
pub fn check(head: &Parts, bodyless: bool) -> Result<Box<str>, Refusal> {
    let bad_request = |why| (StatusCode::BAD_REQUEST, why);
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err((StatusCode::URI_TOO_LONG, "the request's path and query are too long"));
    }
    // hyper takes a body whose last coding is chunked; nobody undoes the others.
    if !bodyless
        && let Some(coding) = head.headers.get(TRANSFER_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        let why = "the request's body has a transfer coding other than chunked";
        return Err((StatusCode::NOT_IMPLEMENTED, why));
    }
    authority(head).map_err(bad_request)
}

/// Removes what only this host may tell a guest.
pub fn remove_ours(trailers: &mut HeaderMap) {
    trailers.remove(FORWARDED_PREFIX);
    HopKey::remove(trailers);
}

/// Removes what a client says to its neighbour only: the fields that
/// `Connection` names (RFC 9110, 7.6.1). Those that are about connections
/// whatever it says are kept from guests by their own interfaces.
fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = values
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// The one host that a request is for.
///
/// # Errors
/// Says what is wrong with the request, in words for its sender.
fn authority(head: &Parts) -> Result<Box<str>, &'static str> {
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
    if !is_host_and_port(authority) {
        return Err("the Host header is not a host name");
    }
    Ok(authority.into())
}

/// A name or an address, and after it a port or nothing. Stricter than RFC 3986, 3.2:
/// without a user, and without what only some take for part of a name: ',', ';', '%'.
fn is_host_and_port(authority: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let (is_host, port) = match authority.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (!name.is_empty() && name.bytes().all(is_part), port)
        }
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// A number of 16 bits.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
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
    remove_named_by_connection(&mut head.headers);
    head.headers.remove(FORWARDED_PREFIX);
    let full = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (prefix, rest) = full.split_at_checked(prefix_bytes).ok_or(NOT_A_PATH)?;
    let prefix: Box<str> = prefix.into();
    let absolute = head.uri.authority().is_some();
    if absolute && !head.headers.contains_key(HOST) {
        // As in HTTP/2; guests look for their host here.
        let authority = head.uri.authority().map_or("", Authority::as_str);
        let host = HeaderValue::from_str(authority).map_err(|_| NOT_A_PATH)?;
        head.headers.insert(HOST, host);
    }
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
        assert_eq!(authority(&head("/a", &["[::1]:80"])).as_deref(), Ok("[::1]:80"));
        assert_eq!(authority(&head("http://x.y/a", &["x.y"])).as_deref(), Ok("x.y"));
        for (uri, hosts) in [
            ("/a", &[][..]),
            ("/a", &["a", "b"]),
            ("/a", &["a", "a"]),
            ("/a", &["u@h"]),
            ("/a", &["a b"]),
            ("/a", &["a/b"]),
            ("/a", &["a,b"]),
            ("/a", &["a%62"]),
            ("/a", &["[::g]"]),
            ("/a", &["a:x"]),
            ("/a", &["a:"]),
            ("/a", &["a:+80"]),
            ("/a", &["a:65536"]),
            ("/a", &["a:1:2"]),
            ("/a", &[":80"]),
            ("/a", &["[::1"]),
            ("/a", &["[::1]80"]),
            ("/a", &["[::1]:"]),
            ("/a", &["[]"]),
            ("/a", &["::1"]),
            ("/a", &[""]),
            ("http://x.y/a", &["z"]),
            ("*", &["a"]),
        ] {
            assert!(authority(&head(uri, hosts)).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn what_is_said_to_the_neighbour_goes_no_further() {
        let mut head = head("/a", &["h"]);
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "host,, no name , x-other"),
            ("x-hop", "1"),
            ("x-hop", "2"),
            ("x-other", "3"),
            ("x-end", "4"),
        ] {
            head.headers.append(name, value.parse().unwrap());
        }
        let (_, head) = strip_prefix(head, 0).unwrap();
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "host", "x-end"]);
    }

    #[test]
    fn targets_and_codings_are_bounded() {
        let long = format!("/{}", "x".repeat(TARGET_BYTES_MAX));
        assert_eq!(check(&head(&long, &["a"]), true).unwrap_err().0, 414);
        assert!(check(&head(&long[1..].replacen('x', "/", 1), &["a"]), true).is_ok());
        for (coding, status) in [("gzip, chunked", Some(501)), ("Chunked", None)] {
            let mut head = head("/a", &["a"]);
            head.headers.insert(TRANSFER_ENCODING, coding.parse().unwrap());
            let checked = check(&head, false).err();
            assert_eq!(checked.map(|(status, _)| status.as_u16()), status, "{coding}");
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
