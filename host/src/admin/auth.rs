//! The bearer token of the admin API.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header;
use subtle::ConstantTimeEq;

use super::AdminState;
use crate::http_error::{Code, Problem};

/// Shortest token that is accepted from a file: 128 bits in hexadecimal.
const TOKEN_BYTES_MIN: usize = 32;

/// The hash of the admin token. The token itself is not kept in memory.
pub struct AdminToken(blake3::Hash);

impl AdminToken {
    /// The token that has this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Reads the token from `path`; makes a random one there, readable for its
    /// owner only, if there is none.
    ///
    /// # Errors
    /// When the file can neither be read nor made, or holds no usable token.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) if text.trim().len() >= TOKEN_BYTES_MIN => Ok(Self::new(text.trim())),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the token in {} is shorter than {TOKEN_BYTES_MIN} characters; delete the \
                     file to get a new one",
                    path.display()
                ),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(error),
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let text = hex::encode(random);
        // Complete or absent: a crash between the two must not leave half a token.
        let unfinished = path.with_extension("token.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(Self::new(&text))
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
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
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
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_token_matches() {
        let token = AdminToken::new("0123456789abcdef");
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdefg",
            b"0123456789ABCDEF",
        ] {
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

    #[test]
    fn a_made_token_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.token");
        AdminToken::load_or_create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = AdminToken::load_or_create(&path).unwrap();
        assert!(again.matches(text.trim().as_bytes()));
        fs::write(&path, "short").unwrap();
        assert!(AdminToken::load_or_create(&path).is_err());
    }
}
