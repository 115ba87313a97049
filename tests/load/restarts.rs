//! A host that is stopped, or killed, and started again while clients send
//! requests: what it loses is nothing, or what it says.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::admin::put_request;
use tests::traffic::{self, Client};
use tests::{Host, Request, eventually, guests};

use crate::{FUNCTIONS, KILLS, READY_NO_MORE_MAX, RESTARTS, alone, host};

/// Longest time from the signal to the end: nothing here runs for long.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Longest time from the start of a process to its first answer.
const START_MAX: Duration = Duration::from_secs(2);
/// Receipts this old are written; and a quarter of a second for the machine.
const RECEIPTS_LOST_MAX: Duration = Duration::from_millis(1250);
/// How long a host is used before it is killed.
const LIFE: Duration = Duration::from_millis(1800);

fn deploy(host: &Host) {
    host.admin().deploy("hello", &guests::answering("hello"));
    host.admin().deploy("two", guests::http_02());
    host.admin().deploy("three", guests::http_03());
    host.admin().deploy("cgi", guests::cgi());
}

/// More than 200 requests a second, of all kinds.
fn clients() -> Vec<Client> {
    let often = Duration::from_millis(25);
    let hello = Client::new("/hello/", "hello", often);
    let body = "x".repeat(10_000);
    let echo = Client {
        request: Request::post("/two/echo", body.clone()),
        ..Client::new("", &body, often * 2)
    };
    let mut clients = vec![hello.clone(); 4];
    clients.extend([hello.clone().forgetful(), hello.forgetful()]);
    clients.extend([
        echo.clone(),
        echo.forgetful(),
        Client::new("/cgi/", "cgi-rust\n", often * 2),
        Client::new("/two/sleep?ms=100", "slept\n", often),
        Client::new("/three/stream?n=2", "line 1\nline 2\n", often),
        Client::new("/three/stream?n=2", "line 1\nline 2\n", often).forgetful(),
    ]);
    clients
}

/// Stops the host, and says how long it said that it is ready, and took to end.
fn restart(host: Host) -> (Host, Duration, Duration) {
    let stopped = Instant::now();
    host.terminate();
    eventually("no more ready", || {
        let ready = host.admin().try_call(&Request::get("/readyz"));
        (!ready.is_ok_and(|answer| answer.status() == 200)).then_some(())
    });
    let ready_for = stopped.elapsed();
    // Once is enough, but many send it twice.
    host.terminate();
    let builder = host.finish();
    let took = stopped.elapsed();
    (builder.start(), ready_for, took)
}

#[test]
fn restarts_under_load_lose_no_request() {
    let _alone = alone();
    let host = host().same_port().start();
    deploy(&host);
    let address = host.address().to_owned();
    let (mut ready_for, mut took) = (Duration::ZERO, Duration::ZERO);
    let (seen, host) = traffic::during(&address, &clients(), |progress| {
        let last = (0..RESTARTS).fold(host, |host, _| {
            progress.wait_for(100);
            let (next, ready, end) = restart(host);
            (ready_for, took) = (ready_for.max(ready), took.max(end));
            next
        });
        progress.wait_for(100);
        last
    });
    println!(
        "{RESTARTS} restarts: {} answered, {} lost; ready for {ready_for:.1?}, ended in {took:.1?}",
        seen.answered.len(),
        seen.lost.len(),
    );
    assert!(seen.lost.is_empty() && seen.wrong.is_empty(), "{:?} {:?}", seen.lost, seen.wrong);
    assert!(ready_for <= READY_NO_MORE_MAX, "ready for {ready_for:?}");
    assert!(took <= STOP_MAX, "the end took {took:?}");
    // Each of them has its receipt.
    let known = receipts(&host, usize::MAX);
    assert_eq!(seen.answered.iter().find(|(_, id)| !known.contains(id)), None);
}

/// The ids of so many receipts, the latest first.
fn receipts(host: &Host, count: usize) -> HashSet<String> {
    let mut ids = HashSet::new();
    let mut page = "/v1/invocations?limit=1000".to_owned();
    loop {
        let receipts = host.admin().json(&page);
        let items = receipts["items"].as_array().cloned().unwrap_or_default();
        ids.extend(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)));
        match &receipts["next"] {
            Value::String(next) if ids.len() < count => {
                page = format!("/v1/invocations?limit=1000&before={next}");
            }
            _ => return ids,
        }
    }
}

/// Deploys versions of a function until the host is gone; returns the last that
/// was acknowledged.
fn deploys(host: &Host, version: &AtomicU32) -> u32 {
    let mut acknowledged = version.load(Ordering::Relaxed);
    loop {
        let next = version.fetch_add(1, Ordering::Relaxed) + 1;
        let component = guests::answering(&format!("version {next}"));
        match host.admin().try_call(&put_request("app", &component)) {
            Ok(answer) if answer.status() == 201 => acknowledged = next,
            Ok(answer) => panic!("deploy {next}: {} {}", answer.status(), answer.text()),
            Err(_) => return acknowledged,
        }
    }
}

#[test]
fn killed_under_load_a_host_is_back_with_all_it_acknowledged() {
    let _alone = alone();
    let mut host = host().same_port().start();
    deploy(&host);
    host.admin().deploy("app", &guests::answering("version 0"));
    let many = guests::answering("one of many");
    for number in 0..FUNCTIONS {
        host.admin().deploy(&format!("many-{number}"), &many);
    }
    let (version, mut slowest, mut lost) = (AtomicU32::new(0), Duration::ZERO, 0);
    for _ in 0..KILLS {
        let (seen, killed, acknowledged) = std::thread::scope(|scope| {
            let deployer = scope.spawn(|| deploys(&host, &version));
            let (seen, killed) = traffic::during(host.address(), &clients(), |progress| {
                progress.wait_for(1);
                let until = Instant::now() + LIFE;
                eventually("a life", || (Instant::now() >= until).then_some(()));
                host.kill_now();
                Instant::now()
            });
            (seen, killed, deployer.join().expect("the deployer"))
        });
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        let builder = host.reap();
        let started = Instant::now();
        host = builder.start();
        host.get("/hello/").assert_text("hello");
        slowest = slowest.max(started.elapsed());

        let known = receipts(&host, seen.answered.len() * 2);
        let missing = seen.answered.iter().filter(|(_, id)| !known.contains(id));
        for (answered, id) in missing {
            let age = killed.saturating_duration_since(*answered);
            assert!(age <= RECEIPTS_LOST_MAX, "the receipt of {id} is lost, {age:?} old");
            lost += 1;
        }
        let text = host.get("/app/").text();
        let serving: Option<u32> =
            text.strip_prefix("version ").and_then(|number| number.parse().ok());
        // One more may have been made durable and not been acknowledged.
        let newest = version.load(Ordering::Relaxed);
        assert!(serving.is_some_and(|now| (acknowledged..=newest).contains(&now)), "{text}");
        assert!(acknowledged > 0, "nothing was deployed meanwhile");
    }
    // hello, two, three, cgi, app.
    host.admin().metric_becomes("whit_functions", f64::from(FUNCTIONS) + 5.0);
    for number in [0, FUNCTIONS / 2, FUNCTIONS - 1] {
        host.get(&format!("/many-{number}/")).assert_text("one of many");
    }
    println!(
        "{KILLS} kills, {FUNCTIONS} functions: first answer after {slowest:.1?} at most, \
         {lost} receipts lost"
    );
    assert!(slowest <= START_MAX, "the first answer took {slowest:?}");
}
