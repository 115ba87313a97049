//! A host that has no more open files: who is there is served, who is not waits.

use std::time::Duration;

use tests::{Connection, Request, eventually, guests};

use crate::host;

#[test]
fn more_clients_than_descriptors_wait_for_those_that_leave() {
    let mut host = host().descriptors(256).start();
    host.expect_warning("fewer connections than connections_max");
    host.admin().deploy("app", &guests::answering("hello"));
    let mut open: Vec<Connection> = (0..250).map(|_| host.connect()).collect();
    let (served, waiting) = open.split_at_mut(150);
    for connection in served.iter_mut() {
        connection.call(&Request::get("/app/")).assert_text("hello");
    }
    for connection in waiting.iter_mut() {
        connection.send(&Request::get("/app/")).expect("send");
    }
    // What is left over is enough for everything else.
    host.admin().deploy("other", &guests::answering("other"));
    served[0].call(&Request::get("/other/")).assert_text("other");
    drop(open.drain(..150));
    for connection in &mut open {
        connection.response().expect("an answer").assert_text("hello");
    }
}

#[test]
fn accepting_without_descriptors_burns_nothing_and_recovers() {
    let mut host = host().start();
    host.admin().deploy("app", guests::http_02());
    let mut open = host.connect();
    open.call(&Request::get("/app/")).assert_text("wasip2-raw\n");
    let told = "connections can not be accepted";
    host.limit_descriptors(host.next_descriptor());
    let mut waiting: Vec<Connection> = (0..20).map(|_| host.connect()).collect();
    for connection in &mut waiting {
        connection.send(&Request::get("/app/")).expect("send");
    }
    eventually("it is told", || host.log().iter().any(|line| line.contains(told)).then_some(()));
    let before = host.cpu_time();
    open.call(&Request::get("/app/sleep?ms=2000")).assert_text("slept\n");
    let used = host.cpu_time() - before;
    assert!(used < Duration::from_millis(400), "{used:?} in two seconds");
    host.limit_descriptors(10_000);
    for connection in &mut waiting {
        connection.response().expect("an answer").assert_text("wasip2-raw\n");
    }
    eventually("it is told", || {
        host.log().iter().any(|line| line.contains("connections are accepted again")).then_some(())
    });
    let times = host.log().iter().filter(|line| line.contains(told)).count();
    assert!(times <= 3, "it is told {times} times");
    host.expect_warning(told);
    // The test has taken away what is kept for files, too.
    host.allow_warning("receipts are lost");
}
