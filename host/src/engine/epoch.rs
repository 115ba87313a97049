//! The clock that interrupts guests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Time between two ticks. A guest that runs without a pause gives way to
/// others, and is checked against its CPU limit, at each tick.
pub const TICK: Duration = Duration::from_millis(10);

static TICKS: AtomicU32 = AtomicU32::new(0);

/// Ticks since the start: a clock that costs one load to read. It wraps after
/// 497 days.
#[must_use]
pub fn ticks() -> u32 {
    TICKS.load(Ordering::Relaxed)
}

/// Starts the ticker on a thread of its own: a tokio task could be kept from
/// running by the very guests that it has to interrupt. It ends with the engines.
pub(super) fn start_ticker(engines: Vec<EngineWeak>) -> wasmtime::Result<()> {
    std::thread::Builder::new().name("epoch".into()).spawn(move || {
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
    Ok(())
}
