//! The bearer token of the admin API.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header;
use subtle::ConstantTimeEq;

use super::AdminState;
use crate::http_error::{Code, Problem};

/// The hash of the admin token. The token itself is not kept in memory.
pub struct AdminToken(blake3::Hash);

impl AdminToken {
    /// The token that has this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Whether `candidate` is the token. Takes the same time for every wrong one.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        // Hashes have one length: neither length nor prefix of the token shows.
        let candidate = blake3::hash(candidate);
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }
}

/// Lets a request through that carries the token.
pub(super) async fn require(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let why = match given.and_then(bearer) {
        Some(token) if state.token.matches(token) => return Ok(next.run(request).await),
        Some(_) => "The token is not the one of this host",
        None => "The admin API needs a token",
    };
    let how = "send `Authorization: Bearer TOKEN` with the content of admin.token in the host's \
               data folder; the command line takes it from WHIT_TOKEN";
    Err(Problem::new(Code::Unauthorized, format!("{why}: {how}.")))
}

/// The token of an `Authorization` header. The scheme's case does not matter
/// (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_matches() {
        let token = AdminToken::new("0123456789abcdef");
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdefg", b"0123456789ABCDEF"] {
            assert!(!token.matches(wrong));
        }
    }

    #[test]
    fn authorization_is_read_as_the_standard_says() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
        assert_eq!(bearer(b""), None);
    }
}
