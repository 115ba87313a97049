//! A client that leaves takes its invocation with it.

use serde_json::json;
use tests::{Connection, Host, Request, eventually, guests};

use crate::host;

/// Leaves while invocations run, and checks that all of them end and are recorded,
/// with the status that was sent, or 499 where none was.
fn leave(host: &Host, name: &str, status: u16, connections: Vec<Connection>) {
    let count = connections.len();
    let running = f64::from(u32::try_from(count).expect("few"));
    host.admin().metric_becomes("whit_invocations_running", running);
    drop(connections);
    // Long before their time is over.
    host.admin().metric_becomes("whit_invocations_running", 0.0);
    for receipt in host.admin().receipts(name, "client_gone", count) {
        assert_eq!(receipt["status"], status, "{name}: {receipt}");
    }
}

fn open(host: &Host, request: &Request) -> Connection {
    let mut connection = host.connect();
    connection.send(request).expect("send");
    connection
}

#[test]
fn while_the_guest_sleeps() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let request = Request::get(&format!("/{name}/sleep?ms=3600000"));
        leave(&host, name, 499, (0..5).map(|_| open(&host, &request)).collect());
    }
}

#[test]
fn while_the_guest_streams() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let request = Request::get(&format!("/{name}/stream?n=100000"));
        let connections = (0..5).map(|_| {
            let mut connection = open(&host, &request);
            assert_eq!(connection.head().expect("a head").status, 200);
            assert!(connection.lines().next().is_some());
            connection
        });
        leave(&host, name, 200, connections.collect());
    }
}

#[test]
fn while_the_guest_computes() {
    let host = host().start();
    let spec = json!({ "cpu": "1h", "timeout": "1h" });
    for (name, _, component) in guests::all() {
        host.admin().deploy_with_spec(name, component, &spec);
        let request = Request::get(&format!("/{name}/spin"));
        leave(&host, name, 499, vec![open(&host, &request)]);
    }
}

#[test]
fn while_the_guest_waits_for_more() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let connections = (0..3).map(|_| {
            let mut connection = host.connect();
            let request = Request::new("POST", &format!("/{name}/echo"));
            connection.send_head(&request.header("content-length", "1000")).expect("send");
            connection.write(b"some of it").expect("send");
            assert_eq!(connection.head().expect("a head").status, 200);
            connection
        });
        let connections: Vec<_> = connections.collect();
        let running = "whit_invocations_running";
        host.admin().metric_becomes(running, 3.0);
        drop(connections);
        host.admin().metric_becomes(running, 0.0);
        // The guest may see the broken body before the host sees that the client
        // has left: it is not a success either way.
        let path = format!("/v1/invocations?function={name}");
        let receipts = eventually("three receipts", || {
            let receipts = host.admin().json(&path)["items"].as_array().cloned()?;
            (receipts.len() == 3).then_some(receipts)
        });
        assert!(receipts.iter().all(|receipt| receipt["outcome"] != "ok"), "{name}: {receipts:?}");
    }
}

#[test]
fn a_client_that_closes_only_its_sending_side_is_still_answered_or_gone() {
    let host = host().start();
    host.admin().deploy("app", guests::http_02());
    let mut connection = open(&host, &Request::get("/app/"));
    connection.half_close();
    // Either is right; what may not be is a guest that runs on for nobody.
    if let Ok(answer) = connection.response() {
        answer.assert_text("wasip2-raw\n");
    }
    host.admin().metric_becomes("whit_invocations_running", 0.0);
}

#[test]
fn permits_come_back_when_clients_leave() {
    let host = host().start();
    host.admin().deploy_with_spec("app", guests::http_02(), &json!({ "concurrency": 2 }));
    for _ in 0..10 {
        let request = Request::get("/app/sleep?ms=3600000");
        let both = [open(&host, &request), open(&host, &request)];
        host.admin().metric_becomes("whit_invocations_running", 2.0);
        drop(both);
        // Well within the bounded wait for a permit.
        host.get("/app/").assert_text("wasip2-raw\n");
    }
}
