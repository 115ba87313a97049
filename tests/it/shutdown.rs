//! The end of a host: requests in flight finish, nobody new gets in.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Connection, Request, eventually, guests};

use crate::host;

#[test]
fn what_runs_may_finish_and_nobody_new_gets_in() {
    let host = host().start();
    guests::deploy_all(&host);
    let mut sleeping = host.connect();
    sleeping.send(&Request::get("/wasip2-raw/sleep?ms=1500")).expect("send");
    let mut streaming: Vec<(&str, Connection)> = Vec::new();
    for (name, _, _) in guests::all() {
        let mut connection = host.connect();
        connection.send(&Request::get(&format!("/{name}/stream?n=15"))).expect("send");
        assert_eq!(connection.head().expect("a head").status, 200);
        streaming.push((name, connection));
    }
    host.admin().metric_becomes("whit_invocations_running", 5.0);
    host.terminate();
    eventually("new connections are refused", || Connection::try_open(host.address()).err());
    for (name, mut connection) in streaming {
        let lines: Vec<String> = connection.lines().map(|(_, line)| line).collect();
        assert_eq!(lines.last().map(String::as_str), Some("line 15"), "{name}");
    }
    let answer = sleeping.response().expect("an answer");
    answer.assert_text("slept\n");
    // So that the client does not send its next request here.
    assert_eq!(answer.header("connection"), Some("close"));
    let host = host.finish().start();
    assert_eq!(host.admin().receipt(&answer.request_id())["outcome"], "ok");
    for (name, _, _) in guests::all() {
        assert!(!host.admin().receipts(name, "ok", 1).is_empty());
    }
}

#[test]
fn a_request_that_is_on_its_way_is_answered_and_told_that_it_is_the_last() {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("x"));
    host.admin().deploy("app", guests::http_02());
    let mut kept = host.connect();
    kept.call(&Request::get("/good/")).assert_text("x");
    let mut fresh = host.connect();
    // Its head goes out before the stop, and its end long after it.
    let mut streaming = host.connect();
    streaming.send(&Request::get("/app/stream?n=15")).expect("send");
    let head = streaming.head().expect("a head");
    assert_eq!((head.status, head.header("connection")), (200, None));
    host.terminate();
    eventually("no more ready", || {
        let ready = host.admin().try_call(&Request::get("/readyz"));
        (!ready.is_ok_and(|answer| answer.status() == 200)).then_some(())
    });
    let last = |name: &str, connection: &mut Connection| {
        let answer = connection.call(&Request::get("/good/"));
        answer.assert_text("x");
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert!(connection.is_closed(), "{name}");
    };
    last("kept", &mut kept);
    last("fresh", &mut fresh);
    assert!(streaming.rest(head).complete);
    last("streaming", &mut streaming);
    host.finish();
}

#[test]
fn a_guest_that_goes_on_after_its_answer_may_finish() {
    let host = host().start();
    host.admin().deploy("lingers", &guests::wat("lingers"));
    let started = Instant::now();
    let answer = host.get("/lingers/");
    answer.assert_text("done");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let host = host.restart();
    assert_eq!(host.admin().receipt(&answer.request_id())["outcome"], "ok");
    let log = host.admin().logs("lingers", "");
    assert!(log.iter().any(|line| line["text"] == "afterwards"), "{log:?}");
}

#[test]
fn what_never_ends_is_cut_at_the_deadline() {
    let mut host = host().set("drain_time_max", "1s").start();
    let spec = json!({ "timeout": "1h", "cpu": "1h" });
    for (name, _, component) in guests::all() {
        host.admin().deploy_with_spec(name, component, &spec);
    }
    let mut clients: Vec<Connection> = Vec::new();
    for (name, _, _) in guests::all() {
        for path in ["sleep?ms=3600000", "stream?n=1000000"] {
            let mut connection = host.connect();
            connection.send(&Request::get(&format!("/{name}/{path}"))).expect("send");
            clients.push(connection);
        }
    }
    let mut spins = host.connect();
    spins.send(&Request::get("/wasip2-raw/spin")).expect("send");
    host.admin().metric_becomes("whit_invocations_running", 9.0);
    host.expect_warning("drain deadline");
    let started = Instant::now();
    let stopped = host.stop();
    let took = started.elapsed();
    let within = Duration::from_millis(900)..Duration::from_secs(6);
    assert!(within.contains(&took), "it took {took:?}");
    for mut client in clients {
        assert!(client.response().is_ok_and(|answer| !answer.complete) || client.is_closed());
    }
    // Each of them has its receipt all the same.
    let host = stopped.start();
    let receipts = host.admin().json("/v1/invocations?limit=1000");
    assert_eq!(receipts["items"].as_array().map(Vec::len), Some(9), "{receipts}");
}

#[test]
fn idle_clients_do_not_hold_up_the_end() {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("x"));
    let mut idle: Vec<Connection> = (0..10).map(|_| host.connect()).collect();
    for connection in &mut idle[..5] {
        connection.call(&Request::get("/good/")).assert_text("x");
    }
    // A follower of a log would otherwise stay for ever.
    let mut follower = Connection::open(host.admin_address());
    let request = Request::get("/v1/functions/good/logs?follow=true");
    let bearer = format!("Bearer {}", host.token());
    follower.send(&request.header("authorization", &bearer)).expect("send");
    assert_eq!(follower.head().expect("a head").status, 200);
    let started = Instant::now();
    host.stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(follower.piece().expect("a clean end"), None);
}

#[test]
fn a_deploy_that_was_answered_is_there_after_the_end() {
    let mut host = host().start();
    for version in 0..5 {
        host.admin().deploy("app", &guests::answering(&format!("version {version}")));
        host = host.restart();
        host.get("/app/").assert_text(&format!("version {version}"));
    }
}
