//! The promises about load to the letter, at length, for a machine that does
//! nothing else: `make soak`.

#[path = "../load/crowds.rs"]
mod crowds;
#[path = "../load/leaks.rs"]
mod leaks;
#[path = "../load/made_up.rs"]
mod made_up;
#[path = "../load/noisy.rs"]
mod noisy;
mod proxies;
#[path = "../load/restarts.rs"]
mod restarts;
#[path = "../load/stops.rs"]
mod stops;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tests::HostBuilder;

/// The part of a victim's answers that has to be quick.
const PART: f64 = 0.99;

/// How often a host is stopped, and killed, and beside how many functions.
const RESTARTS: u32 = 20;
const KILLS: u32 = 50;
const FUNCTIONS: u32 = 1000;
/// How often each guest is stopped.
const STOPS: usize = 15;
/// Clients that do nothing, and that are slow.
const IDLE_CLIENTS: usize = 10_000;
const SLOW_CLIENTS: usize = 2000;
/// Modules that nobody wrote.
const MADE_UP_MODULES: u64 = 10_000;
/// How often somebody looks for what another one has left, and how many fail.
const ALTERNATIONS: u32 = 10_000;
const FAILURES: u32 = 100_000;
/// Mutated requests through each proxy.
const PROXIED_REQUESTS: usize = 50_000;
/// How long a host that was told to stop may say that it is ready.
const READY_NO_MORE_MAX: Duration = Duration::from_millis(100);

fn host() -> HostBuilder {
    HostBuilder::new(env!("CARGO_BIN_EXE_whit-under-test"))
}

/// The machine for oneself, as far as this process goes.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
