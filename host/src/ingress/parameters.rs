//! What the names in a declared route stood for, told to the guest.
//!
//! They are put in front of the query, as Vercel does it: `/users/{id}` makes
//! `/users/42?page=2` into `/users/42?id=42&page=2`. Whatever a guest is written
//! in, it can read a query; and a function that reads its parameters from there
//! runs, and can be tried, on any other host.

use http::Uri;
use http::uri::PathAndQuery;
use url::form_urlencoded;

use crate::router::Parameter;

/// The URL with the parameters in its query. What a client has put there under
/// the same names is dropped: what was routed on is what the guest sees.
#[must_use]
pub fn in_query(uri: &Uri, parameters: &[Parameter]) -> Uri {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let mut changed = String::with_capacity(path.len() * 2 + query.len() + 32);
    changed.push_str(path);
    let mut separator = '?';
    for parameter in parameters {
        changed.push(separator);
        changed.extend(form_urlencoded::byte_serialize(parameter.name.as_bytes()));
        changed.push('=');
        push_value(&mut changed, value(path, parameter));
        separator = '&';
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let key = form_urlencoded::parse(pair.as_bytes()).next().map(|(key, _)| key);
        if !parameters.iter().any(|parameter| key.as_deref() == Some(&parameter.name)) {
            changed.push(separator);
            changed.push_str(pair);
        }
    }
    // What was a path and a query stays one; if not, it is left as it came.
    changed.parse::<PathAndQuery>().map_or_else(|_| uri.clone(), Uri::from)
}

fn value<'a>(path: &'a str, parameter: &Parameter) -> &'a str {
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    for _ in 0..parameter.segment {
        // `/files` is a match of `/files/{*path}`, with nothing in it.
        rest = rest.split_once('/').map_or("", |(_, after)| after);
    }
    if parameter.rest { rest } else { rest.split('/').next().unwrap_or_default() }
}

/// A path's text in a query: percent-encodings stay, and what means something
/// in a query is encoded.
fn push_value(query: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '&' => query.push_str("%26"),
            '+' => query.push_str("%2B"),
            '=' => query.push_str("%3D"),
            ';' => query.push_str("%3B"),
            other => query.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_first_and_cannot_be_overruled() {
        let parameter = |name: &str, segment, rest| Parameter { name: name.into(), segment, rest };
        let id = parameter("id", 1, false);
        let rest = parameter("path", 2, true);
        for (uri, parameters, expected) in [
            ("/users/42", vec![id.clone()], "/users/42?id=42"),
            ("/users/42?page=2&x", vec![id.clone()], "/users/42?id=42&page=2&x"),
            ("/users/42?id=7&i%64=8&ids=9", vec![id.clone()], "/users/42?id=42&ids=9"),
            ("/users/a%20b&c=d+e", vec![id.clone()], "/users/a%20b&c=d+e?id=a%20b%26c%3Dd%2Be"),
            ("/u/1/a/b/", vec![id.clone(), rest.clone()], "/u/1/a/b/?id=1&path=a/b/"),
            ("/u/1", vec![id, rest], "/u/1?id=1&path="),
        ] {
            assert_eq!(in_query(&uri.parse().unwrap(), &parameters).to_string(), expected, "{uri}");
        }
    }
}
