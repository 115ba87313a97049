//! The clock that interrupts guests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Time between two ticks. A guest that runs without a pause gives way to
/// others, and is checked against its CPU limit, at each tick.
pub const TICK: Duration = Duration::from_millis(10);

/// Looks at the ticker, this far apart, that see no tick before the process is
/// ended. Looks are counted and not time: a process that was stopped, or a
/// machine that slept, has missed looks as well as ticks.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
/// See [`WATCH_PAUSE`].
const WATCH_LOOKS_MAX: u32 = 20;

/// Priority of the ticker's thread, as of nice(1): it sleeps nearly all the time.
const TICKER_NICE: i32 = -15;

static TICKS: AtomicU32 = AtomicU32::new(0);

/// Ticks since the start: a clock that costs one load to read. It wraps after
/// 497 days.
#[must_use]
pub fn ticks() -> u32 {
    TICKS.load(Ordering::Relaxed)
}

/// Starts the ticker, and who watches it, on a thread of its own: a tokio task could be kept from
/// running by the very guests that it has to interrupt. It ends with the engines.
pub(super) fn start_ticker(engines: Vec<EngineWeak>) -> wasmtime::Result<()> {
    let watched = engines.clone();
    std::thread::Builder::new().name("epoch".into()).spawn(move || {
        // On a crowded machine each tick that comes late is CPU time beyond a
        // guest's limit. Only this thread is meant by it, and only who may raise
        // a priority (root, or CAP_SYS_NICE) is listened to; others do without.
        let _ = rustix::process::setpriority_process(None, TICKER_NICE);
        loop {
            std::thread::sleep(TICK);
            TICKS.fetch_add(1, Ordering::Relaxed);
            let mut alive = false;
            for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                engine.increment_epoch();
                alive = true;
            }
            if !alive {
                return;
            }
        }
    })?;
    std::thread::Builder::new().name("epoch-watch".into()).spawn(move || {
        if watch(ticks, || std::thread::sleep(WATCH_PAUSE), || engines_are_gone(&watched)) {
            // Guests can no longer be interrupted: one that spins would have its
            // thread for ever. Whoever started this process starts it again.
            tracing::error!("the epoch ticker has stopped: ending the process");
            std::process::abort();
        }
    })?;
    Ok(())
}

fn engines_are_gone(engines: &[EngineWeak]) -> bool {
    engines.iter().all(|engine| engine.upgrade().is_none())
}

/// Looks at a clock until it stands still, or nobody needs it any more. Returns
/// whether it stands still.
fn watch(ticks: impl Fn() -> u32, pause: impl Fn(), is_over: impl Fn() -> bool) -> bool {
    let (mut last, mut unchanged) = (ticks(), 0);
    while unchanged < WATCH_LOOKS_MAX {
        pause();
        if is_over() {
            return false;
        }
        let now = ticks();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_clock_that_stands_still_is_noticed() {
        let (looks, clock) = (Cell::new(0_u32), Cell::new(0));
        // Ticks now and then, and then no more.
        let pause = || {
            looks.set(looks.get() + 1);
            if looks.get() < 1000 && looks.get() % (WATCH_LOOKS_MAX - 1) == 0 {
                clock.set(clock.get() + 1);
            }
        };
        assert!(watch(|| clock.get(), pause, || false));
        assert!((1000..1000 + 2 * WATCH_LOOKS_MAX).contains(&looks.get()), "{}", looks.get());
        assert!(!watch(|| 7, || {}, || true), "nobody needs it");
    }
}
