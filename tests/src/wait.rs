//! Waiting for what happens in another process.

use std::time::{Duration, Instant};

/// Longest wait for anything that a test expects to happen. Generous: it is only
/// ever used up by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` sees what it is after.
///
/// # Panics
/// When [`PATIENCE`] is over; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::park_timeout(PAUSE);
    }
}
