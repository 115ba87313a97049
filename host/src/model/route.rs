//! Routes that a function declares: `"GET /users/{id}"`, `"/files/{*path}"`,
//! `"api.example.com/*"`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest route text, in bytes.
pub const ROUTE_BYTES_MAX: usize = 1024;
/// Most segments of one route.
pub const ROUTE_SEGMENTS_MAX: usize = 32;

/// Why a route was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid route {route:?}: {why}")]
pub struct RouteError {
    route: String,
    why: &'static str,
}

/// One part of a path between slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// Any one non-empty segment, under this name.
    Parameter(Box<str>),
    /// The rest of the path, empty included; always last. The name is empty for `*`.
    Wildcard(Box<str>),
}

/// A declared route: method and authority where given, and the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePattern {
    /// Only this method, or any.
    pub method: Option<Box<str>>,
    /// Only this host (lower case, with its port if one was given), or any.
    pub authority: Option<Box<str>>,
    /// The path's segments. `/` is one empty literal.
    pub segments: Vec<Segment>,
}

impl RoutePattern {
    /// The part that decides what is matched: parameters without their names.
    /// Two routes with the same key can not both be claimed.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = String::new();
        key.push_str(self.method.as_deref().unwrap_or("*"));
        key.push(' ');
        key.push_str(self.authority.as_deref().unwrap_or(""));
        for segment in &self.segments {
            key.push('/');
            match segment {
                Segment::Literal(text) => key.push_str(text),
                Segment::Parameter(_) => key.push_str("{}"),
                Segment::Wildcard(_) => key.push_str("{*}"),
            }
        }
        key
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(formatter, "{method} ")?;
        }
        formatter.write_str(self.authority.as_deref().unwrap_or(""))?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(formatter, "/{text}")?,
                Segment::Parameter(name) => write!(formatter, "/{{{name}}}")?,
                Segment::Wildcard(name) if name.is_empty() => formatter.write_str("/*")?,
                Segment::Wildcard(name) => write!(formatter, "/{{*{name}}}")?,
            }
        }
        Ok(())
    }
}

impl From<RoutePattern> for String {
    fn from(route: RoutePattern) -> String {
        route.to_string()
    }
}

impl TryFrom<String> for RoutePattern {
    type Error = RouteError;
    fn try_from(text: String) -> Result<Self, RouteError> {
        text.parse()
    }
}

impl FromStr for RoutePattern {
    type Err = RouteError;
    fn from_str(text: &str) -> Result<Self, RouteError> {
        let error = |why| RouteError { route: text.chars().take(120).collect(), why };
        if text.len() > ROUTE_BYTES_MAX {
            return Err(error("it is longer than 1024 bytes"));
        }
        let (method, rest) = match text.split_once(' ') {
            Some((method, rest)) => (Some(parse_method(method).map_err(error)?), rest.trim_start()),
            None => (None, text),
        };
        let slash = rest.find('/').ok_or_else(|| error("it has no path; paths start with '/'"))?;
        let (authority, path) = rest.split_at(slash);
        let authority = match authority {
            "" => None,
            authority => Some(parse_authority(authority).map_err(error)?),
        };
        let segments = parse_segments(path).map_err(error)?;
        Ok(Self { method, authority, segments })
    }
}

fn parse_method(method: &str) -> Result<Box<str>, &'static str> {
    if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        Ok(method.into())
    } else {
        Err("the method before the path must be in capitals, such as GET")
    }
}

fn parse_authority(authority: &str) -> Result<Box<str>, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if authority.bytes().all(allowed) && authority.parse::<http::uri::Authority>().is_ok() {
        Ok(authority.to_ascii_lowercase().into())
    } else {
        Err("what stands before the first '/' is not a host name")
    }
}

fn parse_segments(path: &str) -> Result<Vec<Segment>, &'static str> {
    // `path` starts with '/': the first piece is empty.
    let pieces: Vec<&str> = path.split('/').skip(1).collect();
    if pieces.len() > ROUTE_SEGMENTS_MAX {
        return Err("it has more than 32 segments");
    }
    let mut segments: Vec<Segment> = Vec::with_capacity(pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let segment = parse_segment(piece)?;
        let last = index + 1 == pieces.len();
        match &segment {
            Segment::Wildcard(_) if !last => return Err("a wildcard must be the last segment"),
            Segment::Literal(text) if text.is_empty() && !last => {
                return Err("it has an empty segment ('//')");
            }
            Segment::Parameter(name) | Segment::Wildcard(name) if !name.is_empty() => {
                let taken =
                    |other: &Segment| matches!(other, Segment::Parameter(other) if other == name);
                if segments.iter().any(taken) {
                    return Err("two of its parameters have the same name");
                }
            }
            _ => {}
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn parse_segment(piece: &str) -> Result<Segment, &'static str> {
    if piece == "*" {
        return Ok(Segment::Wildcard("".into()));
    }
    let Some(inner) = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) else {
        // RFC 3986 pchar, percent-encodings included; no dot segments, which
        // clients resolve before they send.
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@%".contains(&byte);
        return match piece {
            "." | ".." => Err("'.' and '..' can not be matched"),
            _ if piece.bytes().all(allowed) => Ok(Segment::Literal(piece.into())),
            _ => Err("a segment has a character that a path can not have, or braces inside text"),
        };
    };
    let (wildcard, name) = match inner.strip_prefix('*') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    let named = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match (named, wildcard) {
        (false, _) => Err("a parameter's name must be letters, digits and '_'"),
        (true, true) => Ok(Segment::Wildcard(name.into())),
        (true, false) => Ok(Segment::Parameter(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_round_trip() {
        for text in [
            "/",
            "GET /users/{id}",
            "/files/{*path}",
            "api.example.com/*",
            "POST api.example.com:8080/a/b/",
            "/a/{b}/c",
        ] {
            let route: RoutePattern = text.parse().unwrap();
            assert_eq!(route.to_string(), text);
        }
    }

    #[test]
    fn bad_routes_say_why() {
        for (text, why) in [
            ("users", "no path"),
            ("get /", "capitals"),
            ("/a//b", "empty segment"),
            ("/{*rest}/x", "last segment"),
            ("/{a}/{a}", "same name"),
            ("/{}", "name"),
            ("/a{b}", "braces"),
            ("/../x", "'..'"),
            ("bad host/x", "capitals"),
            ("/a b", "capitals"),
            ("a@b/x", "host name"),
        ] {
            let error = text.parse::<RoutePattern>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn keys_ignore_parameter_names() {
        let key = |text: &str| text.parse::<RoutePattern>().unwrap().key();
        assert_eq!(key("/u/{id}"), key("/u/{name}"));
        assert_ne!(key("/u/{id}"), key("GET /u/{id}"));
        assert_ne!(key("/u/{id}"), key("/u/{*id}"));
    }
}
