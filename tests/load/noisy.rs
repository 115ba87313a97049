//! A neighbour that takes all it can get: who asks for little gets it quickly.
//!
//! The victim is asked 50 times a second. Its 99th percentile may be three times
//! what it is on a quiet host, and 50 ms.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::health::Health;
use tests::latency::Latency;
use tests::{Connection, Host, Request, guests};

use crate::{alone, host};

const HOGS: u32 = 64;
const REQUESTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `paths` without a pause, each with as many clients as there are hogs for
/// one, until `done`. Answers may be anything but a failure of the host's.
fn hog(host: &Host, paths: &[&str], done: &AtomicBool, calls: &AtomicU32, number: u32) {
    let request = Request::get(paths[number as usize % paths.len()]);
    let mut connection: Option<Connection> = None;
    while !done.load(Ordering::Relaxed) {
        let open = connection.take().unwrap_or_else(|| host.connect());
        let mut open = open;
        if open.send(&request).is_err() {
            continue;
        }
        let Ok(answer) = open.response() else { continue };
        calls.fetch_add(1, Ordering::Relaxed);
        assert_ne!(answer.status(), 500, "{}", answer.text());
        connection = answer.complete.then_some(open);
    }
}

/// Measures the victim alone and then beside hogs at these paths.
#[track_caller]
fn quiet_and_noisy(host: &Host, victim: (&str, &str), paths: &[&str]) {
    let health = Health::watch(host);
    let measure = || Latency::measure(host, victim.0, victim.1, REQUESTS, PAUSE);
    let quiet = measure();
    let (done, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    let noisy = std::thread::scope(|scope| {
        for number in 0..HOGS {
            let (done, calls) = (&done, &calls);
            scope.spawn(move || hog(host, paths, done, calls, number));
        }
        let running = "whit_invocations_running";
        tests::eventually("the hogs run", || (host.admin().metric(running) > 8.0).then_some(()));
        let noisy = measure();
        done.store(true, Ordering::Relaxed);
        noisy
    });
    println!("{paths:?}, {} calls. quiet: {quiet}; noisy: {noisy}", calls.into_inner());
    let allowed = quiet.percentile(0.99) * 3 + Duration::from_millis(50);
    assert!(noisy.percentile(0.99) <= allowed, "{paths:?}: quiet {quiet}, noisy {noisy}");
    health.check(host, "the hogs");
}

fn deploy(host: &Host, name: &str, component: &[u8], spec: &Value) {
    host.admin().deploy_with_spec(name, component, spec);
}

#[test]
fn guests_that_compute() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    let spec = json!({ "cpu": "300ms", "timeout": "60s" });
    deploy(&host, "spin", &guests::wat("spin"), &spec);
    quiet_and_noisy(&host, ("/hello/", "hello"), &["/spin/"]);
}
