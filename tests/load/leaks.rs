//! Thousands of clients that leave, and thousands of guests that look for what
//! others left.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tests::health::Health;
use tests::hostile::command;
use tests::{Connection, Host, Request, guests};

use crate::{ALTERNATIONS, FAILURES, alone, host};

const DISCONNECTS: usize = 10_000;
const AT_ONCE: usize = 50;
/// Clients that fail at the same time.
const FAILING: usize = 8;

/// Opens connections, sends a request on each, and leaves: some at once, some
/// when the guests run, some in the middle of an answer.
fn leave(host: &Host, name: &str, way: usize) {
    let path = if way == 2 {
        format!("/{name}/stream?n=100000")
    } else {
        format!("/{name}/sleep?ms=3600000")
    };
    let connections: Vec<Connection> = (0..AT_ONCE)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(&Request::get(&path)).expect("send");
            connection
        })
        .collect();
    match way {
        0 => {}
        1 => {
            tests::eventually("the guests run", || {
                (host.admin().metric("whit_invocations_running") > 40.0).then_some(())
            });
        }
        _ => {
            for mut connection in connections {
                assert_eq!(connection.head().expect("a head").status, 200);
            }
        }
    }
}

#[test]
fn ten_thousand_clients_leave_and_nothing_stays() {
    let _alone = alone();
    let host = host().start();
    let health = Health::watch(&host);
    guests::deploy_all(&host);
    let names: Vec<_> = guests::all().into_iter().map(|(name, ..)| name).collect();
    let round = |number: usize| leave(&host, names[number % names.len()], number % 3);
    // Pools and caches have what they will have after a part of it.
    let rounds = DISCONNECTS / AT_ONCE;
    (0..rounds / 4).for_each(round);
    health.check_but_memory(&host, "2,500 disconnects");
    let before = health.grown_bytes(&host);
    (rounds / 4..rounds).for_each(round);
    health.check_but_memory(&host, "10,000 disconnects");
    let grown = health.grown_bytes(&host).saturating_sub(before);
    println!("7,500 disconnects cost {} KiB", grown >> 10);
    assert!(grown < 16 << 20, "7,500 disconnects cost {} KiB", grown >> 10);
}

/// Where to fail, and the outcome of it; [`LEAVES`] is answered only in an hour.
const ENDS: [(&str, &str); 8] = [
    ("wasip2-raw/trap", "trapped"),
    ("wasip3-raw/trap", "trapped"),
    ("cgi-rust/trap", "trapped"),
    ("outside/", "trapped"),
    ("wasip2-raw/no-answer", "no_response"),
    ("wasip3-raw/exit?code=3", "trapped"),
    ("slow/sleep?ms=60000", "timeout"),
    (LEAVES, "client_gone"),
];
const LEAVES: &str = "wasip3-raw/sleep?ms=3600000";

fn fail(host: &Host, connection: &mut Connection, number: u32) {
    let (path, outcome) = ENDS[number as usize % ENDS.len()];
    let request = Request::get(&format!("/{path}"));
    if path == LEAVES {
        // With the connection that is dropped here.
        std::mem::replace(connection, host.connect()).send(&request).expect("send");
        return;
    }
    let answer = connection.call(&request);
    answer.assert_problem(if outcome == "timeout" { 504 } else { 502 }, outcome);
}

#[test]
fn failures_of_every_kind_leave_nothing() {
    let _alone = alone();
    let host = host().start();
    let health = Health::watch(&host);
    guests::deploy_all(&host);
    host.admin().deploy_with_spec("slow", guests::http_02(), &json!({ "timeout": "50ms" }));
    // Fails before its first instruction.
    let outside = command(
        r#"(memory (export "memory") 1) (data (i32.const 65536) "x") (func (export "_start"))"#,
    );
    host.admin().deploy("outside", &outside);
    let run = |numbers: std::ops::Range<u32>| {
        let next = AtomicU32::new(numbers.start);
        std::thread::scope(|scope| {
            for _ in 0..FAILING {
                scope.spawn(|| {
                    let mut connection = host.connect();
                    let taken = || Some(next.fetch_add(1, Ordering::Relaxed));
                    let own = std::iter::from_fn(taken).take_while(|own| *own < numbers.end);
                    own.for_each(|number| fail(&host, &mut connection, number));
                });
            }
        });
    };
    // Pools and caches have what they will have after a part of it.
    run(0..FAILURES / 4);
    health.check_but_memory(&host, "a quarter of the failures");
    let before = health.grown_bytes(&host);
    run(FAILURES / 4..FAILURES);
    health.check_but_memory(&host, "the failures");
    let grown = health.grown_bytes(&host).saturating_sub(before);
    println!("{FAILURES} failures: three quarters of them cost {} KiB", grown >> 10);
    assert!(grown < 16 << 20, "the failures cost {} KiB", grown >> 10);
    let ours = host.admin().json("/v1/invocations?outcome=host_error");
    assert_eq!(ours["items"].as_array().map(Vec::len), Some(0), "{ours}");
}

/// Fills all that it has with a canary, and ends in this way.
fn filler(end: &str) -> Vec<u8> {
    command(&format!(
        r#"(memory (export "memory") 64) (table $t 1000 funcref)
        (global $g (mut i64) (i64.const 0))
        (data (i32.const 16) "Content-Type: text/plain\0a\0afilled")
        (elem declare func $f)
        (func $f (result i64) (i64.const -1))
        (func $deep (param i32) (param i64 i64 i64 i64) (result i64)
            (if (result i64) (i32.eqz (local.get 0)) (then (local.get 1))
                (else (i64.add (local.get 4) (call $deep (i32.sub (local.get 0) (i32.const 1))
                    (local.get 2) (local.get 3) (local.get 4) (local.get 1))))))
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 32))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 4194304))
            (table.fill $t (i32.const 0) (ref.func $f) (i32.const 1000))
            (global.set $g (i64.const 0xa5a5a5a5))
            (drop (call $deep (i32.const 1000) (i64.const 0xa5a5a5a5) (i64.const 0xa5a5a5a5)
                (i64.const 0xa5a5a5a5) (i64.const 0xa5a5a5a5)))
            (drop (memory.grow (i32.const 16)))
            (memory.fill (i32.const 4194304) (i32.const 0xa5) (i32.const 1048576))
            {end})"#
    ))
}

/// Looks at all that it has, more than the filler had, and traps if any of it is
/// not zero.
fn hunter() -> Vec<u8> {
    command(
        r#"(memory (export "memory") 96) (table $t 2000 funcref)
        (data (i32.const 16) "Content-Type: text/plain\0a\0aclean!")
        (func (export "_start") (local $at i32) (local $never i64)
            (if (i64.ne (local.get $never) (i64.const 0)) (then unreachable))
            (drop (memory.grow (i32.const 16)))
            (local.set $at (i32.const 1024))
            (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 7340032))))
            (local.set $at (i32.const 0))
            (loop $next
                (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 2000))))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 32))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#,
    )
}

#[test]
fn nothing_of_another_tenant_is_found() {
    let _alone = alone();
    // Two slots, so that the hunter gets what the filler had.
    let host = host().set("instances_max", 2).start();
    let health = Health::watch(&host);
    let spec = json!({ "cpu": "200ms", "timeout": "10s", "memory": "16MiB" });
    let ends = [("ends", "", 200), ("traps", "unreachable", 502)];
    for (name, end, _) in ends {
        host.admin().deploy_with_spec(name, &filler(end), &spec);
    }
    host.admin().deploy_with_spec("hunter", &hunter(), &json!({ "memory": "16MiB" }));
    let mut connection = host.connect();
    for number in 0..ALTERNATIONS {
        let (name, _, status) = ends[number as usize % ends.len()];
        let answer = connection.call(&Request::get(&format!("/{name}/")));
        assert!([status, 200].contains(&answer.status()), "{}", answer.text());
        if !answer.complete {
            connection = host.connect();
        }
        connection.call(&Request::get("/hunter/")).assert_text("clean!");
    }
    health.check(&host, "the hunt");
}
