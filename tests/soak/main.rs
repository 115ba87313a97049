//! The promises about neighbours to the letter, for a machine that does nothing
//! else: `make soak`.

#[path = "../load/noisy.rs"]
mod noisy;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::HostBuilder;

/// The part of a victim's answers that has to be quick.
const PART: f64 = 0.99;

fn host() -> HostBuilder {
    HostBuilder::new(env!("CARGO_BIN_EXE_whit-under-test"))
}

/// The machine for oneself, as far as this process goes.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
