//! `If-Match` and `If-None-Match`: writes that race (RFC 9110, 13.1).
//!
//! A function's ETag is its active revision: `"3"`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http_error::{Code, Problem};
use crate::model::function::Function;
use crate::model::ids::RevisionNumber;
use crate::registry::{Registry, RegistryError};
use crate::storage::{Expected, StorageError};

/// What the client says it expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Nothing.
    None,
    /// `If-None-Match: *`: that there is no such function.
    Absent,
    /// `If-Match: *`: that there is one.
    Present,
    /// `If-Match: "3"`: that this revision is active.
    Active(RevisionNumber),
}

impl Precondition {
    /// Reads the two headers.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let if_match = single(headers, header::IF_MATCH)?;
        let if_none_match = single(headers, header::IF_NONE_MATCH)?;
        match (if_match, if_none_match) {
            (None, None) => Ok(Self::None),
            (None, Some(b"*")) => Ok(Self::Absent),
            (None, Some(_)) => Err(invalid("If-None-Match takes only * here")),
            (Some(b"*"), None) => Ok(Self::Present),
            (Some(tag), None) => revision(tag).map(Self::Active),
            (Some(_), Some(_)) => Err(invalid("If-Match and If-None-Match exclude each other")),
        }
    }

    /// What storage is to check, in the same transaction as the write.
    pub(super) fn expected(
        self,
        registry: &Registry,
        id: &crate::model::ids::FunctionId,
    ) -> Result<Expected, Problem> {
        match self {
            Self::None => Ok(Expected::Any),
            Self::Absent => Ok(Expected::Absent),
            Self::Active(number) => Ok(Expected::Active(number)),
            // Only a delete in between could make this untrue, and then the
            // write would make the function anew: the same as if it had come
            // before that delete.
            Self::Present => match registry.function(id) {
                Ok(_) => Ok(Expected::Any),
                Err(RegistryError::NoFunction(_)) => {
                    Err(StorageError::Conflict { active: None }.into())
                }
                Err(error) => Err(error.into()),
            },
        }
    }
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
        _ => Err(invalid(&format!("there is more than one {name}"))),
    }
}

fn revision(tag: &[u8]) -> Result<RevisionNumber, Problem> {
    let quoted = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
    quoted
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            invalid("If-Match takes one ETag as GET returns it, the active revision in quotes")
        })
}

fn invalid(why: &str) -> Problem {
    let detail = format!("The precondition can not be read: {why}, such as `If-Match: \"3\"`.");
    Problem::new(Code::InvalidPrecondition, detail)
}

/// The function's ETag; none while no revision is active.
pub(super) fn etag(function: &Function) -> Option<HeaderValue> {
    let active = function.active?;
    HeaderValue::try_from(format!("\"{active}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Precondition, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Precondition::from_headers(&headers).map_err(|problem| problem.code.into_owned())
    }

    #[test]
    fn preconditions_read_as_the_standard_has_them() {
        assert_eq!(read(&[]), Ok(Precondition::None));
        assert_eq!(read(&[("if-none-match", "*")]), Ok(Precondition::Absent));
        assert_eq!(read(&[("if-match", "*")]), Ok(Precondition::Present));
        assert_eq!(read(&[("if-match", "\"12\"")]), Ok(Precondition::Active(RevisionNumber(12))));
    }

    #[test]
    fn what_can_not_be_read_is_refused_rather_than_ignored() {
        for bad in ["3", "W/\"3\"", "\"3\", \"4\"", "\"0\"", "\"\"", "\"", "\"x\"", ""] {
            assert_eq!(read(&[("if-match", bad)]), Err("invalid_precondition".into()), "{bad}");
        }
        assert!(read(&[("if-none-match", "\"3\"")]).is_err());
        assert!(read(&[("if-match", "*"), ("if-none-match", "*")]).is_err());
        assert!(read(&[("if-match", "\"1\""), ("if-match", "\"2\"")]).is_err());
    }
}
