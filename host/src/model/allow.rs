//! Where a function's outgoing requests may go: the entries of `allow_hosts`,
//! `"https://api.example.com"`, `"http://*.example.com:8080"`, `"https://*"`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest host name, in bytes (RFC 1035, 2.3.4, as text).
const HOST_BYTES_MAX: usize = 253;
/// Longest part of a host name between two dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Why an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid entry {entry:?}: {why}; accepted are a scheme, a host and perhaps a port, such as \"https://api.example.com\", \"http://*.example.com:8080\", \"https://10.0.0.5\" or \"https://*\""
)]
pub struct AllowHostError {
    entry: String,
    why: &'static str,
}

/// The protocol of an outgoing request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The scheme as URLs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of URLs that name none.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host as a URL names it: in lower case, without a final dot, and never one
/// of the other spellings of an IPv4 address (`127.1`, `0x7f000001`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name that has to be looked up.
    Name(Box<str>),
    /// An address; a version 6 one stands in brackets.
    Address(IpAddr),
}

impl Host {
    /// Whether this is `localhost`.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        matches!(self, Self::Name(name) if &**name == "localhost")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

/// Why a text is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A number, or a name that ends in one, which is not four numbers with
    /// dots: resolvers take it for an address, each in its own way.
    #[error("{}", self.why())]
    Numeric,
    /// In brackets, but no version 6 address. Zone names are none either.
    #[error("{}", self.why())]
    Bracketed,
    /// Anything else that no host name has.
    #[error("{}", self.why())]
    Name,
}

impl HostError {
    const fn why(self) -> &'static str {
        match self {
            Self::Numeric => {
                "an IPv4 address must be written as four decimal numbers, such as 10.0.0.5"
            }
            Self::Bracketed => "what stands in brackets is not an IPv6 address",
            Self::Name => {
                "the host may only have letters, digits, '-', '_' and '.' (an international name in its xn-- form, an IPv6 address in brackets)"
            }
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').ok_or(HostError::Bracketed)?;
            let address = address.parse().map_err(|_| HostError::Bracketed)?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label_is_well_formed = |label: &str| {
            let byte_is_allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(byte_is_allowed)
        };
        if name.len() > HOST_BYTES_MAX || !name.split('.').all(label_is_well_formed) {
            return Err(HostError::Name);
        }
        if let Ok(address) = name.parse() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if ends_in_a_number(&name) {
            return Err(HostError::Numeric);
        }
        Ok(Self::Name(name.into()))
    }
}

/// As the URL standard has it: such a host is an IPv4 address, or nothing.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x");
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The hosts of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AllowedHosts {
    /// `*`: any host with a public address.
    Any,
    /// `*.example.com`: every name below this one, but not this one.
    Below(Box<str>),
    /// This host.
    One(Host),
}

/// One entry of `allow_hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowHost {
    /// The protocol.
    pub scheme: Scheme,
    /// The hosts.
    pub hosts: AllowedHosts,
    /// The port: the scheme's own where the entry names none.
    pub port: u16,
}

impl AllowHost {
    /// Whether a request to `host` is one that this entry means.
    #[must_use]
    pub fn allows(&self, scheme: Scheme, host: &Host, port: u16) -> bool {
        let host_is_meant = match (&self.hosts, host) {
            (AllowedHosts::Any, _) => true,
            (AllowedHosts::Below(suffix), Host::Name(name)) => {
                name.strip_suffix(&**suffix).is_some_and(|rest| rest.ends_with('.'))
            }
            (AllowedHosts::Below(_), Host::Address(_)) => false,
            (AllowedHosts::One(one), host) => one == host,
        };
        self.scheme == scheme && self.port == port && host_is_meant
    }

    /// Whether the entry can only mean a place that its author knows: an
    /// address, or `localhost`. A name means whatever its DNS records say.
    #[must_use]
    pub fn names_an_address(&self) -> bool {
        match &self.hosts {
            AllowedHosts::One(Host::Address(_)) => true,
            AllowedHosts::One(host) => host.is_localhost(),
            AllowedHosts::Any | AllowedHosts::Below(_) => false,
        }
    }
}

impl fmt::Display for AllowHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://", self.scheme.as_str())?;
        match &self.hosts {
            AllowedHosts::Any => formatter.write_str("*")?,
            AllowedHosts::Below(suffix) => write!(formatter, "*.{suffix}")?,
            AllowedHosts::One(host) => write!(formatter, "{host}")?,
        }
        if self.port == self.scheme.default_port() {
            Ok(())
        } else {
            write!(formatter, ":{}", self.port)
        }
    }
}

impl From<AllowHost> for String {
    fn from(entry: AllowHost) -> Self {
        entry.to_string()
    }
}

impl TryFrom<String> for AllowHost {
    type Error = AllowHostError;
    fn try_from(entry: String) -> Result<Self, AllowHostError> {
        entry.parse()
    }
}

impl FromStr for AllowHost {
    type Err = AllowHostError;

    fn from_str(entry: &str) -> Result<Self, AllowHostError> {
        parse(entry).map_err(|why| AllowHostError { entry: entry.chars().take(120).collect(), why })
    }
}

fn parse(entry: &str) -> Result<AllowHost, &'static str> {
    let (scheme, rest) = entry.split_once("://").ok_or("it must begin with http:// or https://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err("its scheme is neither http nor https"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("it has a path; a whole host is allowed or none of it");
    }
    if authority.contains('@') {
        return Err("it has a user name; a function sends its own headers");
    }
    let (host, port) = split_port(authority);
    let port = match port {
        None => scheme.default_port(),
        Some(port) => parse_port(port).ok_or("its port is not a number from 1 to 65535")?,
    };
    let hosts = match host {
        "" => return Err("it has no host"),
        "*" => AllowedHosts::Any,
        _ => parse_hosts(host)?,
    };
    Ok(AllowHost { scheme, hosts, port })
}

fn parse_hosts(host: &str) -> Result<AllowedHosts, &'static str> {
    let parse = |host: &str| host.parse::<Host>().map_err(HostError::why);
    match host.strip_prefix("*.") {
        Some(suffix) => match parse(suffix)? {
            Host::Name(suffix) => Ok(AllowedHosts::Below(suffix)),
            Host::Address(_) => Err("an address has nothing below it"),
        },
        None if host.contains('*') => {
            Err("'*' stands for a whole host, or for its first part as in *.example.com")
        }
        None => Ok(AllowedHosts::One(parse(host)?)),
    }
}

/// Splits `host:port`; the colons of a bracketed address are its own.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// A port from 1. Only digits: the standard library's numbers may have a sign.
pub(crate) fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok()?;
    (digits && port != 0).then_some(port)
}

#[cfg(test)]
mod tests;
