//! The work of the benchmarks, the same source for the guests and the native
//! server that they are compared with.

/// Below this, primes are counted: about a millisecond of native work.
const PRIMES_BELOW: usize = 300_000;

/// Reads JSON and writes it again. `None` where it is not JSON.
pub(crate) fn echo(json: &[u8]) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    serde_json::to_vec(&value).ok()
}

/// Counts primes with a sieve: loops, branches, and memory that is touched.
pub(crate) fn count_primes() -> usize {
    let mut composite = vec![false; PRIMES_BELOW];
    let mut primes = 0;
    for number in 2..PRIMES_BELOW {
        if composite.get(number).is_some_and(|composite| *composite) {
            continue;
        }
        primes += 1;
        // Saturating: a guest's words are of 32 bits.
        let first = number.saturating_mul(number);
        let multiples = composite.iter_mut().skip(first).step_by(number);
        multiples.for_each(|multiple| *multiple = true);
    }
    primes
}
