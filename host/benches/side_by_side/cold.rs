//! Cold starts: a host that keeps one component in memory, and two functions
//! that push each other out. Files are in the page cache, and artifacts have
//! been checked once, as after a host's first minute.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::Options;
use crate::guests::{self, Guest};
use crate::host::Host;
use crate::http::{self, Client};
use crate::report::{self, Section, Table, median, percentile};

/// Of each kind; fewer where they take longer than [`TIME_MAX`].
const SAMPLES_MAX: usize = 300;
const TIME_MAX: Duration = Duration::from_secs(15);

/// Times in milliseconds.
#[derive(Default)]
struct Seen {
    cold: Vec<f64>,
    warm: Vec<f64>,
    /// The host's own word on how long loading took.
    load: Vec<f64>,
}

/// Runs the workload and makes its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<Section> {
    let folder = tempfile::tempdir()?;
    let settings = format!("loaded_max = 1\n{}", options.settings);
    let host = Host::start(&folder.path().join("whit"), &settings)?;
    let mut table = Table::new(&[
        "guest",
        "samples",
        "warm p50 ms",
        "cold p50 ms",
        "cold − warm p50 ms",
        "cold p99 ms",
        "loading alone p50 ms",
    ]);
    let mut skipped = Vec::new();
    for guest in guests::HELLOS {
        let component = match guest.component() {
            Ok(component) => component,
            Err(error) => {
                skipped.push(format!("{}: {error:#}", guest.name));
                continue;
            }
        };
        report::progress(&format!("cold: {}", guest.name));
        let seen = alternate(&host, &guest, &component)?;
        let of = |values: &[f64], percent| percentile(values.iter().copied(), percent);
        let over = median(seen.cold.iter().zip(&seen.warm).map(|(cold, warm)| cold - warm));
        table.row(vec![
            guest.name.to_owned(),
            seen.cold.len().to_string(),
            format!("{:.2}", of(&seen.warm, 50.0)),
            format!("{:.2}", of(&seen.cold, 50.0)),
            format!("{over:.2}"),
            format!("{:.2}", of(&seen.cold, 99.0)),
            format!("{:.2}", of(&seen.load, 50.0)),
        ]);
    }
    report::progress("");
    let notes = vec![
        "One connection, one request at a time: a function that was pushed out of memory (cold), \
         then the same one again (warm); each once the memory of the one before is cleared."
            .to_owned(),
    ];
    Ok(Section { table, notes, skipped })
}

/// Calls two functions in turns, each of them cold and then warm.
fn alternate(host: &Host, guest: &Guest, component: &[u8]) -> anyhow::Result<Seen> {
    let kind =
        guest.name.to_ascii_lowercase().replace(|letter: char| !letter.is_alphanumeric(), "-");
    let mut requests = Vec::new();
    for number in [1, 2] {
        let name = format!("{kind}-{number}");
        host.deploy(&name, &guests::distinct(component, number))?;
        requests.push(http::get(&format!("/{name}/")));
    }
    let mut client = Client::connect(host.server.address)?;
    let mut metrics = (host.admin()?, host.metrics());
    // Their artifacts are checked at the first use.
    for request in &requests {
        client.call(request)?;
        wait_until_cleared(&mut metrics)?;
    }
    let mut seen = Seen::default();
    let started = Instant::now();
    for request in requests.iter().cycle().take(SAMPLES_MAX) {
        let (cold_ms, load_ms) = call(&mut client, request)?;
        wait_until_cleared(&mut metrics)?;
        ensure!(load_ms > 0.0, "a request that should have been cold was not");
        seen.cold.push(cold_ms);
        seen.load.push(load_ms);
        seen.warm.push(call(&mut client, request)?.0);
        wait_until_cleared(&mut metrics)?;
        if started.elapsed() > TIME_MAX {
            break;
        }
    }
    Ok(seen)
}

/// Waits until the memory of the last guest is cleared, which for a snapshot comes
/// after its answer.
fn wait_until_cleared((admin, request): &mut (Client, Vec<u8>)) -> anyhow::Result<()> {
    for _ in 0..10_000 {
        let metrics = admin.call(request)?.body;
        if String::from_utf8_lossy(&metrics).contains("\nwhit_invocations_running 0\n") {
            return Ok(());
        }
    }
    bail!("a guest is still there long after its answer")
}

/// How long an answer took, and how much of it was loading, in milliseconds.
fn call(client: &mut Client, request: &[u8]) -> anyhow::Result<(f64, f64)> {
    let sent = Instant::now();
    let response = client.call(request)?;
    let elapsed = sent.elapsed();
    if response.status != 200 {
        bail!("a function answered with {}", response.status);
    }
    let timing = response.header("server-timing").unwrap_or_default();
    let load = timing.split(", ").find_map(|metric| metric.strip_prefix("load;dur="));
    let load_ms = load.and_then(|load| load.parse().ok()).unwrap_or(0.0);
    Ok((elapsed.as_secs_f64() * 1000.0, load_ms))
}
