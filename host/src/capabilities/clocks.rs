//! Clocks. By default guests see whole milliseconds: a clock that is fine enough
//! to time a cache is what attacks on memory that is not theirs begin with
//! (Spectre and its like), and no program that answers requests needs it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// The step of the clocks that guests see.
pub const RESOLUTION: Duration = Duration::from_millis(1);

/// Which clocks a guest gets.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// As fine as the machine has them.
    pub fine: bool,
}

impl Clocks {
    /// Gives them to a guest.
    pub(super) fn give(self, builder: &mut WasiCtxBuilder) {
        if !self.fine {
            builder.monotonic_clock(Coarse).wall_clock(Coarse);
        }
    }
}

/// Clocks that advance in steps of [`RESOLUTION`]. Takes no memory.
struct Coarse;

/// What the monotonic clock shows at first. Not 0: Go's runtime takes that for
/// a clock that is broken, and gives up.
const AT_START: Duration = Duration::from_secs(1);

/// When monotonic time started, for all guests.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl HostMonotonicClock for Coarse {
    fn resolution(&self) -> u64 {
        nanoseconds(RESOLUTION)
    }

    fn now(&self) -> u64 {
        nanoseconds(stepped(START.elapsed() + AT_START))
    }
}

impl HostWallClock for Coarse {
    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn now(&self) -> Duration {
        // A machine whose clock is before 1970 is in 1970.
        stepped(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

fn stepped(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance_in_whole_milliseconds() {
        let mut last = HostMonotonicClock::now(&Coarse);
        assert!(last >= nanoseconds(AT_START), "Go gives up at 0");
        let started = Instant::now();
        let mut steps = 0;
        while started.elapsed() < Duration::from_millis(20) {
            let now = HostMonotonicClock::now(&Coarse);
            assert_eq!(((now - last) % 1_000_000, now % 1_000_000), (0, 0));
            steps += u32::from(now > last);
            last = now;
            assert_eq!(HostWallClock::now(&Coarse).subsec_nanos() % 1_000_000, 0);
        }
        assert!((1..=21).contains(&steps), "{steps} steps in 20 ms");
    }
}
