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
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// As [`eventually`], for what may take longer.
///
/// # Panics
/// When `patience` is over.
#[track_caller]
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        std::thread::park_timeout(PAUSE);
    }
}
