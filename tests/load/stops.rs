//! How soon a guest is stopped that has used up what it may have.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::health::Health;
use tests::hostile::{long_instructions, spinners};
use tests::latency::Latency;
use tests::{Host, Request, guests};

use crate::{PART, STOPS, alone, host};

const LIMIT: Duration = Duration::from_millis(200);
/// From there to the answer; and so much more CPU time at most.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Where one instruction works on 128 MiB: it is not interrupted.
const LATE_BY_INSTRUCTION_MAX: Duration = Duration::from_millis(150);
const PAGES: u32 = 128 << 4;

/// Calls each guest [`STOPS`] times and checks that it is stopped for this reason,
/// and at most so late.
fn are_stopped(host: &Host, paths: &[String], (outcome, late_max): (&str, Duration)) {
    let health = Health::watch(host);
    let mut late: Vec<Duration> = Vec::new();
    for path in paths.iter().cycle().take(paths.len() * STOPS) {
        let mut connection = host.connect();
        let started = Instant::now();
        let answer = connection.call(&Request::get(path));
        let took = started.elapsed();
        answer.assert_problem(504, outcome);
        late.push(took.saturating_sub(LIMIT));
        let receipt = host.admin().receipt(&answer.request_id());
        let used = Duration::from_micros(receipt["cpu_us"].as_u64().expect("a number"));
        // Of the guest's own time nobody else can take any.
        assert!(used <= LIMIT + late_max, "{path} used {used:?}: {receipt}");
    }
    let (count, late) = (late.len(), Latency::of(late));
    println!("{count} stopped for {outcome}, late by: {late}");
    assert!(late.percentile(PART) <= late_max, "late by: {late}");
    health.check_but_memory(host, "the stopped guests");
}

/// Deploys them, and returns where they are called.
fn deploy<const N: usize>(host: &Host, guests: [(&str, Vec<u8>); N]) -> [String; N] {
    let spec = json!({ "cpu": format!("{}ms", LIMIT.as_millis()), "memory": "160MiB" });
    guests.map(|(name, component)| {
        host.admin().deploy_with_spec(name, &component, &spec);
        format!("/{name}/")
    })
}

#[test]
fn guests_that_spin_are_stopped_at_their_limit() {
    let _alone = alone();
    let host = host().start();
    let paths = deploy(&host, spinners());
    are_stopped(&host, &paths, ("cpu_limit", LATE_MAX));
}

#[test]
fn guests_within_one_long_instruction_are_stopped_after_it() {
    let _alone = alone();
    let host = host().start();
    let paths = deploy(&host, long_instructions(PAGES));
    are_stopped(&host, &paths, ("cpu_limit", LATE_BY_INSTRUCTION_MAX));
}

#[test]
fn guests_that_wait_are_stopped_at_their_limit() {
    let _alone = alone();
    let host = host().start();
    let spec = json!({ "timeout": format!("{}ms", LIMIT.as_millis()) });
    let paths = guests::all().map(|(name, _, component)| {
        host.admin().deploy_with_spec(name, component, &spec);
        format!("/{name}/sleep?ms=3600000")
    });
    are_stopped(&host, &paths, ("timeout", LATE_MAX));
}
