//! Names and numbers that identify things. Each is its own type, so that a
//! tenant can never be passed where a function is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest function or tenant name, in bytes: a DNS label (RFC 1035, 2.3.4), so
/// that a name can become a host name later.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a name, digest or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name has characters, a length or a shape that names may not have.
    #[error(
        "invalid {what} name {name:?}: use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"
    )]
    Name {
        /// `function`, `tenant` or `alias`.
        what: &'static str,
        /// What was given, cut to a printable length.
        name: String,
    },
    /// Not `sha256:` and 64 hexadecimal digits.
    #[error("invalid digest {0:?}: expected sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// Not a positive number.
    #[error("invalid revision {0:?}: expected a number from 1")]
    Revision(String),
    /// Not 32 hexadecimal digits.
    #[error("invalid invocation id {0:?}: expected 32 hexadecimal digits")]
    Invocation(String),
}

fn parse_name(what: &'static str, name: &str) -> Result<Box<str>, IdError> {
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    let well_formed = bytes.len() <= NAME_BYTES_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if well_formed {
        Ok(name.into())
    } else {
        Err(IdError::Name { what, name: name.chars().take(80).collect() })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                parse_name($what, name).map(Self)
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(name: String) -> Result<Self, IdError> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a function, unique within its tenant.
    FunctionName,
    "function"
);
name_type!(
    /// The name of an owner of functions.
    TenantName,
    "tenant"
);

impl Default for TenantName {
    /// `default`: the tenant of a host that serves one owner.
    fn default() -> Self {
        Self("default".into())
    }
}

/// A function's full identity: its tenant and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionId {
    /// Owner of the function.
    pub tenant: TenantName,
    /// Name within the tenant.
    pub name: FunctionName,
}

impl fmt::Display for FunctionId {
    /// `name` in the default tenant, `@tenant/name` elsewhere: as in URLs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant == TenantName::default() {
            write!(formatter, "{}", self.name)
        } else {
            write!(formatter, "@{}/{}", self.tenant, self.name)
        }
    }
}

/// Number of a revision within its function; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionNumber(pub u32);

impl fmt::Display for RevisionNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for RevisionNumber {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // `u32::from_str` also takes a leading `+` and leading zeros; a revision
        // has one name.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(number) if digits && number > 0 => Ok(Self(number)),
            _ => Err(IdError::Revision(text.chars().take(80).collect())),
        }
    }
}

/// The sha256 of an uploaded component, as OCI writes it: `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 hexadecimal digits, without `sha256:`; used as a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Digest(text.chars().take(80).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(error)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Identity of one invocation, sent as `X-Request-Id`.
///
/// The upper 48 bits are the Unix time in milliseconds, the rest is random:
/// ids sort by time, which is how a receipt is found without an index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InvocationId(pub u128);

impl InvocationId {
    /// Builds an id from a time in milliseconds since 1970 and random bits, of
    /// which the lower 80 are kept.
    #[must_use]
    pub fn new(unix_ms: u64, random: u128) -> Self {
        Self((u128::from(unix_ms) << 80) | (random & ((1 << 80) - 1)))
    }

    /// When the invocation arrived, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        // 128 - 80 = 48 bits remain: they fit.
        u64::try_from(self.0 >> 80).unwrap_or(u64::MAX)
    }

    /// The 32 hexadecimal digits, without allocating.
    #[must_use]
    pub fn to_ascii(self) -> [u8; 32] {
        let mut text = [0; 32];
        // Cannot fail: 16 bytes are 32 digits.
        let _ = hex::encode_to_slice(self.0.to_be_bytes(), &mut text);
        text
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for InvocationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if digits => Ok(Self(id)),
            _ => Err(IdError::Invocation(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for InvocationId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<InvocationId> for String {
    fn from(id: InvocationId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "hello", "a-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "é", "a\0", &"x".repeat(64), "a b"]
        {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_and_ids_round_trip() {
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("sha256:ab".parse::<Digest>().is_err());
        let id = InvocationId::new(1_700_000_000_123, u128::MAX);
        assert_eq!(id.unix_ms(), 1_700_000_000_123);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_ascii().as_slice(), id.to_string().as_bytes());
        assert!("+1".parse::<RevisionNumber>().is_err());
        assert!("0".parse::<RevisionNumber>().is_err());
        assert!("01".parse::<RevisionNumber>().is_err());
    }
}
