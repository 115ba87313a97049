//! A neighbour that takes all it can get: who asks for little gets it quickly.
//!
//! The victim is asked 50 times a second. Its 99th percentile may be three times
//! what it is on a quiet host, and 50 ms. On a machine that does other things,
//! too, that is asked of fewer of its answers: see `PART`.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::health::Health;
use tests::latency::Latency;
use tests::{Connection, Host, Request, guests};

use crate::{PART, alone, host};

const HOGS: u32 = 64;
const REQUESTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(20);

/// Sends one of `requests` without a pause, each with as many clients as there
/// are hogs for one, until `done`. Answers may be anything but a failure of the host's.
fn hog(host: &Host, requests: &[Request], done: &AtomicBool, calls: &AtomicU32, number: u32) {
    let request = &requests[number as usize % requests.len()];
    let mut connection: Option<Connection> = None;
    while !done.load(Ordering::Relaxed) {
        let open = connection.take().unwrap_or_else(|| host.connect());
        let mut open = open;
        if open.send(request).is_err() {
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
    let requests: Vec<Request> = paths.iter().map(|path| Request::get(path)).collect();
    beside(host, victim, paths, &requests);
}

/// The same for hogs that send these requests; `name` is for who reads along.
#[track_caller]
fn beside(host: &Host, victim: (&str, &str), name: &[&str], requests: &[Request]) {
    let health = Health::watch(host);
    let measure = || Latency::measure(host, victim.0, victim.1, REQUESTS, PAUSE);
    let quiet = measure();
    let (done, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    let noisy = std::thread::scope(|scope| {
        for number in 0..HOGS {
            let (done, calls) = (&done, &calls);
            scope.spawn(move || hog(host, requests, done, calls, number));
        }
        let running = "whit_invocations_running";
        tests::eventually("the hogs run", || (host.admin().metric(running) > 8.0).then_some(()));
        let noisy = measure();
        done.store(true, Ordering::Relaxed);
        noisy
    });
    println!("{name:?}, {} calls. quiet: {quiet}; noisy: {noisy}", calls.into_inner());
    let allowed = quiet.percentile(0.99) * 3 + Duration::from_millis(50);
    assert!(noisy.percentile(PART) <= allowed, "{name:?}: quiet {quiet}, noisy {noisy}");
    health.check(host, "the hogs");
}

fn deploy(host: &Host, name: &str, component: &[u8], spec: &Value) {
    host.admin().deploy_with_spec(name, component, spec);
}

#[test]
fn guests_that_compute() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    let spec = json!({ "cpu": "100ms", "timeout": "60s" });
    deploy(&host, "spin", &guests::wat("spin"), &spec);
    quiet_and_noisy(&host, ("/hello/", "hello"), &["/spin/"]);
}

#[test]
fn guests_that_compute_in_short_pieces() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    // Less than a tick, and then as if nothing had been; and always a new call.
    let spec = json!({ "cpu": "100ms", "timeout": "60s" });
    deploy(&host, "polite", &guests::wat("polite-starver"), &spec);
    deploy(&host, "short", &guests::wat("short-burst"), &spec);
    quiet_and_noisy(&host, ("/hello/", "hello"), &["/polite/", "/short/"]);
}

#[test]
fn guests_that_fill_their_memory() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    let spec = json!({ "cpu": "100ms", "timeout": "60s", "concurrency": 16 });
    deploy(&host, "fill", &guests::wat("memory-fill"), &spec);
    quiet_and_noisy(&host, ("/hello/", "hello"), &["/fill/"]);
}

#[test]
fn guests_that_write_and_wait() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    let spec = json!({ "cpu": "100ms", "timeout": "60s", "response_body": "1MiB" });
    deploy(&host, "log", &guests::wat("flood-stderr"), &spec);
    deploy(&host, "out", &guests::wat("flood-stdout"), &spec);
    deploy(&host, "http", guests::http_02(), &spec);
    // Its log, its response, its timers, its pieces.
    let paths = ["/log/", "/out/", "/http/sleep?ms=5", "/http/stream?n=3"];
    quiet_and_noisy(&host, ("/hello/", "hello"), &paths);
}

#[test]
fn guests_that_call_out() {
    let _alone = alone();
    let host = host().set("instances_max", 128).set("private_egress", true).start();
    // Takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let authority = silent.local_addr().expect("its address").to_string();
    let spec = json!({ "timeout": "500ms", "allow_hosts": [format!("http://{authority}")] });
    deploy(&host, "out", guests::http_02(), &spec);
    deploy(&host, "out3", guests::http_03(), &spec);
    let call = |function: &str| {
        let request = Request::get(&format!("/{function}/call"));
        request.header("x-call-authority", &authority).header("x-call-paths", "/")
    };
    beside(&host, ("/hello/", "hello"), &["calls out"], &[call("out"), call("out3")]);
}

#[test]
fn a_busy_victim_has_its_share_too() {
    let _alone = alone();
    let host = host().set("instances_max", 128).start();
    let spec = json!({ "cpu": "100ms", "timeout": "60s" });
    deploy(&host, "spin", &guests::wat("spin"), &spec);
    // 5 ms of work each time: a quarter of a processor, which needs turns, too.
    host.admin().deploy("busy", &guests::wat("short-burst"));
    quiet_and_noisy(&host, ("/busy/", "worked"), &["/spin/"]);
}

#[test]
fn a_function_at_its_limit_delays_nobody() {
    let _alone = alone();
    let host = host().set("instances_max", 32).start();
    let spec = json!({ "concurrency": 16, "timeout": "60s" });
    for name in ["a", "b", "c"] {
        deploy(&host, name, guests::http_02(), &spec);
    }
    // 48 permits of functions for 32 of the host: the host's are always taken,
    // and the victim is next but one whenever one comes back.
    let paths = ["/a/sleep?ms=50", "/b/sleep?ms=50", "/c/sleep?ms=50"];
    quiet_and_noisy(&host, ("/hello/", "hello"), &paths);
}
