//! How deep functions have called each other by HTTP: a count that goes with
//! every outgoing request and comes back with it.
//!
//! Each count carries a proof that this process wrote it: a client can neither
//! use up a function's depth nor reset it, and a guest neither sees, sets nor
//! drops the header. The key is of this process, so what comes from another
//! host counts from the beginning.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq as _;

/// Most calls in a row; one more is refused.
pub const HOPS_MAX: u8 = 8;
/// Ours: no guest sets or sees it.
pub(super) const HOPS: HeaderName = HeaderName::from_static("x-whit-hops");
/// Bytes of a proof.
const PROOF_BYTES: usize = 16;

/// What proves that a count is this process's own.
pub struct HopKey([u8; blake3::KEY_LEN]);

impl HopKey {
    /// A key that nobody else has.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut key = [0; blake3::KEY_LEN];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// The key of a host that sends nothing.
    pub(super) fn unused() -> Self {
        Self([0; blake3::KEY_LEN])
    }

    /// Removes the count from the headers of a request that has come in, and
    /// returns it: 0 where there is none of ours.
    #[must_use]
    pub fn take(&self, headers: &mut HeaderMap) -> u8 {
        if !headers.contains_key(HOPS) {
            return 0;
        }
        let counts = headers.get_all(HOPS).iter().filter_map(|value| self.read(value));
        let count = counts.max().unwrap_or(0);
        Self::remove(headers);
        count
    }

    /// Removes what looks like a count, from where there is never one of ours:
    /// trailers.
    pub fn remove(headers: &mut HeaderMap) {
        headers.remove(HOPS);
    }

    /// The header of a request that goes out of an invocation at this depth.
    pub(super) fn next(&self, count: u8) -> HeaderValue {
        let count = count.saturating_add(1);
        let text = format!("{count} {}", hex::encode(self.proof(count)));
        // Digits, a space and hexadecimal digits are always a value.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }

    fn read(&self, value: &HeaderValue) -> Option<u8> {
        let (count, proof) = value.to_str().ok()?.split_once(' ')?;
        let count = count.parse().ok()?;
        let mut claimed = [0; PROOF_BYTES];
        hex::decode_to_slice(proof, &mut claimed).ok()?;
        let proven: bool = claimed[..].ct_eq(&self.proof(count)[..]).into();
        proven.then_some(count)
    }

    fn proof(&self, count: u8) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"hops").update(&[count]).finalize_xof().fill(&mut proof);
        proof
    }
}

impl std::fmt::Debug for HopKey {
    /// Without the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HopKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[HeaderValue]) -> HeaderMap {
        values.iter().map(|value| (HOPS, value.clone())).collect()
    }

    #[test]
    fn a_count_comes_back_and_is_taken_out() {
        let key = HopKey::random().unwrap();
        for count in [0, 7, 8, 254] {
            let mut headers = headers(&[key.next(count)]);
            assert_eq!(key.take(&mut headers), count + 1);
            assert!(headers.is_empty());
        }
        assert_eq!(key.take(&mut headers(&[key.next(u8::MAX)])), u8::MAX);
        assert_eq!(key.take(&mut HeaderMap::new()), 0);
        // A lower one beside it resets nothing.
        let mut both = headers(&[key.next(0), key.next(5), HeaderValue::from_static("x")]);
        assert_eq!(key.take(&mut both), 6);
        assert!(both.is_empty());
    }

    #[test]
    fn what_others_write_does_not_count() {
        let (key, other) = (HopKey::random().unwrap(), HopKey::random().unwrap());
        let own = key.next(3);
        let proof = own.to_str().unwrap().split_once(' ').unwrap().1;
        let forged = [
            other.next(7),
            HeaderValue::try_from(format!("8 {proof}")).unwrap(),
            HeaderValue::try_from(format!("4 {}", &proof[..8])).unwrap(),
            HeaderValue::from_static("8"),
            HeaderValue::from_static("8 "),
            HeaderValue::from_static(""),
            HeaderValue::from_bytes(b"\xff \xff").unwrap(),
        ];
        for value in forged {
            let mut headers = headers(std::slice::from_ref(&value));
            assert_eq!(key.take(&mut headers), 0, "{value:?}");
            assert!(headers.is_empty());
        }
        assert!(!format!("{key:?}").contains(&hex::encode(key.0)));
    }
}
