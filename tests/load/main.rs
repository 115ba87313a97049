//! What only shows under load: neighbours that take all they can get, thousands
//! of clients that leave. These tests measure, so they run one after the other,
//! in a binary of their own that cargo runs after the others.

mod bombs;
mod crowds;
mod leaks;
mod made_up;
mod noisy;
mod restarts;
mod stops;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tests::HostBuilder;

/// The binary under test, which cargo has built from the same sources.
const WHIT: &str = env!("CARGO_BIN_EXE_whit-under-test");

/// The part of a victim's answers that has to be quick. Without fair turns not
/// even half of them are; the rest may be somebody else's on this machine. The
/// soak tests, which have a machine to themselves, ask it of 99 in 100.
const PART: f64 = 0.75;

/// How often a host is stopped, and killed, and beside how many functions.
const RESTARTS: u32 = 3;
const KILLS: u32 = 3;
const FUNCTIONS: u32 = 30;
/// How often each guest is stopped.
const STOPS: usize = 2;
/// Clients that do nothing, and that are slow.
const IDLE_CLIENTS: usize = 2000;
const SLOW_CLIENTS: usize = 300;
/// Modules that nobody wrote.
const MADE_UP_MODULES: u64 = 100;
/// How often somebody looks for what another one has left, and how many fail.
const ALTERNATIONS: u32 = 2000;
const FAILURES: u32 = 4000;
/// How long a host that was told to stop may say that it is ready.
const READY_NO_MORE_MAX: Duration = Duration::from_secs(1);

/// A host with a data folder of its own.
fn host() -> HostBuilder {
    HostBuilder::new(WHIT)
}

/// The machine for oneself, as far as this process goes.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed says nothing about the next.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
