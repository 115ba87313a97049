//! The nastiest guests, each by what it does, how it has to end, and what is
//! left of it: nothing.

use serde_json::{Value, json};
use tests::health::Health;
use tests::hostile::{
    REALLOC, SPIN, answered_03, command, command_03, command_doing, http_02, http_03,
    long_instructions, sleepers, spinners,
};
use tests::{Host, Request, guests};

use crate::host;

/// A guest, and the outcomes with which a request to it may end.
struct Case {
    name: &'static str,
    component: Vec<u8>,
    outcomes: &'static [&'static str],
}

fn case(name: &'static str, outcomes: &'static [&'static str], component: Vec<u8>) -> Case {
    Case { name, component, outcomes }
}

fn limits() -> Value {
    json!({ "cpu": "100ms", "timeout": "2s", "memory": "32MiB", "logs": "4KiB" })
}

/// Deploys each guest, calls it three times at once, and checks after each guest that
/// the host is as it was.
#[track_caller]
fn all_end(cases: &[Case]) {
    let host = host().start();
    let health = Health::watch(&host);
    for Case { name, component, outcomes } in cases {
        host.admin().deploy_with_spec(name, component, &limits());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| ends(&host, name, outcomes));
            }
        });
        assert_eq!(host.admin().delete(&format!("/v1/functions/{name}")).status(), 204);
        health.check(&host, name);
    }
}

#[track_caller]
fn ends(host: &Host, name: &str, outcomes: &[&str]) {
    let answer = host.get(&format!("/{name}/"));
    let receipt = host.admin().receipt(&answer.request_id());
    let outcome = receipt["outcome"].as_str().unwrap_or_default();
    assert!(outcomes.contains(&outcome), "{name}: {receipt}\n{}", answer.text());
    assert_ne!(answer.status(), 500, "{name}");
    // Only what went well is whole and has status 200.
    let good = answer.status() == 200 && answer.complete;
    assert_eq!(good, outcome == "ok", "{name}: {answer:?}");
    // A limit of 100 ms is met within a slice or two, and not by much more.
    let cpu_ms = receipt["cpu_us"].as_u64().unwrap_or_default() / 1000;
    assert!(cpu_ms < 400, "{name}: {receipt}");
}

/// N1: wherever a guest's code can run, it can spin.
#[test]
fn spinning_anywhere() {
    all_end(&spinners().map(|(name, component)| case(name, &["cpu_limit"], component)));
}

/// N2: instructions that take long each.
#[test]
fn instructions_that_take_long() {
    let cases = long_instructions(480);
    all_end(&cases.map(|(name, component)| case(name, &["cpu_limit"], component)));
}

/// N3: never caught in the act.
#[test]
fn giving_way_without_end() {
    let again = |call: &str| command_doing(&format!("(loop $again (drop {call}) (br $again))"));
    let poll = "(call $poll_oneoff (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8))";
    let mixed = "(drop (call $sched_yield)) (drop (call $random_get (i32.const 64) (i32.const 1)))";
    all_end(&[
        case("yield", &["cpu_limit"], again("(call $sched_yield)")),
        case("random", &["cpu_limit"], again("(call $random_get (i32.const 64) (i32.const 1))")),
        case(
            "clock",
            &["cpu_limit"],
            again("(call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8))"),
        ),
        // A subscription to the clock, for now.
        case(
            "poll",
            &["cpu_limit"],
            command_doing(&format!(
                "(i32.store (i32.const 144) (i32.const 1)) (loop $again {mixed} (drop {poll}) (br $again))"
            )),
        ),
        case(
            "http-poll",
            &["cpu_limit", "trapped"],
            http_02(
                REALLOC,
                "",
                "
            (i32.store (i32.const 64) (call $timer (i64.const 0)))
            (loop $again (global.set $free (i32.const 65536))
                (call $poll (i32.const 64) (i32.const 1) (i32.const 0)) (br $again))",
            ),
        ),
        case("http3-yield", &["cpu_limit"], http_03("", "i32.const 1", "i32.const 1")),
        case("polite", &["cpu_limit"], guests::wat("polite-starver")),
    ]);
}

/// N4 and T6: memory of the host's, by way of its tables and buffers.
#[test]
fn hoarding() {
    let again = |work: &str| http_02(REALLOC, "", &format!("(loop $again {work} (br $again))"));
    let bounded: &[&str] = &["trapped", "memory_limit", "no_response"];
    let long_value = r#"(data (i32.const 256) "x-a")"#;
    all_end(&[
        case("fields", bounded, again("(drop (call $fields))")),
        case("full-fields", &["trapped", "cpu_limit"], http_02(REALLOC, long_value, "(loop $again
            (local.set $n (call $fields))
            (call $append (local.get $n) (i32.const 256) (i32.const 3) (i32.const 1024) (i32.const 30000) (i32.const 0))
            (br $again))")),
        // One more and one more, without end, to the same: errors, until the time is up.
        case("appends", &["cpu_limit"], http_02(REALLOC, long_value, "(local.set $n (call $fields)) (loop $again
            (call $append (local.get $n) (i32.const 256) (i32.const 3) (i32.const 1024) (i32.const 30000) (i32.const 0))
            (br $again))")),
        case("timers", bounded, again("(drop (call $timer (i64.const 3600000000000)))")),
        case("headers", bounded, again("(drop (call $headers (local.get $request)))")),
        case("random", bounded, http_02(REALLOC, "", "(call $random (i64.const -1) (i32.const 0))")),
        case("waitable-sets", bounded, http_03("", "(loop $again (drop (call $waitable-set)) (br $again)) unreachable", "i32.const 0")),
        case("fields-3", bounded, http_03("", "(loop $again (drop (call $fields)) (br $again)) unreachable", "i32.const 0")),
        case("cgi-random", &["ok"], command_doing("(drop (call $random_get (i32.const 65536) (i32.const 900000))) (call $done)")),
        case("cgi-subscriptions", &["ok", "trapped"], command_doing("
            (drop (call $poll_oneoff (i32.const 65536) (i32.const 65536) (i32.const 15000) (i32.const 8))) (call $done)")),
        case("many-subscriptions", &["ok", "trapped"], command_doing("
            (drop (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 8))) (call $done)")),
    ]);
}

/// The same with what only 0.3 has: tasks, streams, futures, and waiting for them.
#[test]
fn hoarding_and_waiting_in_03() {
    let again = |work: &str| command_03(&format!("(loop $again {work} (br $again))"));
    let bounded: &[&str] = &["trapped", "memory_limit"];
    let both = "(local.set $n (call $stream))
        (drop (call $write (call $writer (local.get $n)) (i32.const 0) (i32.const 8)))";
    all_end(&[
        case("wait", &["timeout"], command_03("(call $wait (i64.const 0x1000000000000000))")),
        case("tasks", bounded, again("(drop (call $begin-wait (i64.const 0x1000000000000000)))")),
        case("short-tasks", bounded, again("(drop (call $begin-wait (i64.const 1)))")),
        case("no-wait", &["cpu_limit"], again("(call $wait (i64.const 0))")),
        case("short-waits", &["cpu_limit", "timeout"], again("(call $wait (i64.const 1))")),
        case("sets", bounded, again("(drop (call $set))")),
        case("streams", bounded, again("(drop (call $stream))")),
        case("futures", bounded, again("(drop (call $future))")),
        case("written-streams", bounded, again(both)),
        // Nothing goes to nobody, without end.
        case(
            "empty-writes",
            &["trapped", "cpu_limit"],
            command_03(
                "(local.set $n (call $stream)) (loop $again
                    (drop (call $write (call $writer (local.get $n)) (i32.const 0) (i32.const 0)))
                    (drop (call $read (call $reader (local.get $n)) (i32.const 0) (i32.const 0)))
                    (br $again))",
            ),
        ),
        case(
            "far-write",
            &["trapped"],
            command_03(
                "(local.set $n (call $stream))
                (drop (call $write (call $writer (local.get $n)) (i32.const 0) (i32.const -1)))",
            ),
        ),
        // Wrong ends, ends of nothing, ends that are dropped while somebody reads.
        case(
            "wrong-end",
            &["trapped"],
            command_03(
                "(drop (call $write (call $reader (call $stream)) (i32.const 0) (i32.const 1)))",
            ),
        ),
        case(
            "no-end",
            &["trapped"],
            command_03("(drop (call $read (i32.const 77) (i32.const 0) (i32.const 1)))"),
        ),
        case(
            "dropped-future",
            &["trapped"],
            command_03(
                "(local.set $n (call $future))
                (drop (call $read-future (call $reader (local.get $n)) (i32.const 0)))
                (call $drop-future (call $writer (local.get $n)))",
            ),
        ),
        // Says that it waits for a set with nothing in it; and for none.
        case(
            "empty-set",
            &["timeout"],
            http_03(
                "",
                "(i32.or (i32.const 2) (i32.shl (call $waitable-set) (i32.const 4)))",
                "i32.const 0",
            ),
        ),
        case("no-set", &["trapped"], http_03("", "i32.const 1234562", "i32.const 0")),
    ]);
}

const WAIT: &str = "(call $wait-for (i32.const 0))";
const END: &str = "(call $end (global.get $body))";
const READ_SENT: &str = "(drop (call $read-sent (global.get $sent) (i32.const 32)))
    (call $wait-for (global.get $sent))";
/// Writes as long as there is room, then waits for some.
const WRITE: &str = "(loop $again (br_if $again (i32.ne (call $write-some) (i32.const -1))))
    (call $wait-for (global.get $body))";

/// An answer of 0.3 that has begun, and never ends: its trailers do not come.
#[test]
fn trailers_that_never_come() {
    all_end(&[
        case("waits", &["timeout"], answered_03(&format!("{END} {WAIT}"), WAIT)),
        case("spins", &["cpu_limit"], answered_03(&format!("{END} {SPIN}"), WAIT)),
        case(
            "yields",
            // Whichever comes first: a turn is given away each time.
            &["cpu_limit", "timeout"],
            answered_03(&format!("{END} (i32.const 1)"), "(i32.const 1)"),
        ),
        case(
            "leaves",
            &["timeout", "no_response", "trapped"],
            answered_03(&format!("{END} (i32.const 0)"), WAIT),
        ),
        case("no-body", &["timeout"], answered_03(WAIT, WAIT)),
        case(
            "drops",
            &["trapped"],
            answered_03(&format!("{END} (call $drop-future (global.get $trailers)) {WAIT}"), WAIT),
        ),
        case(
            "lies",
            &["trapped"],
            answered_03(
                &format!(
                    "{END} (i32.store8 (i32.const 512) (i32.const 9))
                (drop (call $resolve (global.get $trailers) (i32.const 512))) {WAIT}"
                ),
                WAIT,
            ),
        ),
        // Waits to be told that all has been sent, before it ends the body.
        case("first-you", &["timeout"], answered_03(READ_SENT, WAIT)),
    ]);
}

/// What has begun to answer, and goes on when nobody takes it any more: after a
/// HEAD it may, until its limits; when the client leaves it is over.
#[test]
fn answers_that_nobody_takes() {
    let once = "(drop (call $write-some)) (call $wait-for (global.get $body))";
    let host = host().start();
    let health = Health::watch(&host);
    for (name, outcome, component) in [
        ("waits", "timeout", answered_03(WAIT, WAIT)),
        ("writes-once", "timeout", answered_03(once, WAIT)),
        ("writes-on", "trapped", answered_03(WRITE, WRITE)),
        ("writes-then-spins", "cpu_limit", answered_03(once, SPIN)),
        ("never-trailers", "timeout", answered_03(once, &format!("{END} {WAIT}"))),
    ] {
        host.admin().deploy_with_spec(name, &component, &limits());
        let path = format!("/{name}/");
        for _ in 0..3 {
            let head = host.call(&Request::new("HEAD", &path));
            assert_eq!(head.status(), 200, "{name}: {head:?}");
            let receipt = host.admin().receipt(&head.request_id());
            assert_eq!(receipt["outcome"], outcome, "{name}: {receipt}");
        }
        let leaving = [(); 3].map(|()| {
            let mut connection = host.connect();
            connection.send(&Request::get(&path)).expect("send");
            assert_eq!(connection.head().expect("a head").status, 200, "{name}");
            connection
        });
        drop(leaving);
        let gone = host.admin().receipts(name, "client_gone", 3);
        assert!(gone.iter().all(|receipt| receipt["status"] == 200), "{name}: {gone:?}");
        health.check(&host, name);
    }
}

/// N5: answers that are not what they say.
#[test]
fn half_an_answer() {
    let head = r#"(data (i32.const 64) "Content-Length: 1073741824\0a\0ax")"#;
    let half = |rest: &str| {
        command(&format!(
            r#"(memory (export "memory") 16) {head}
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 29))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            {rest})"#
        ))
    };
    let wait = "(i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const 3600000000000))
        (drop (call $poll_oneoff (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8)))";
    all_end(&[
        case("ends", &["no_response"], half("")),
        case("traps", &["trapped"], half("unreachable")),
        case("waits", &["timeout"], half(wait)),
        case("spins", &["cpu_limit"], half("(loop $again (br $again))")),
        case("closes", &["no_response"], half("(drop (call $fd_close (i32.const 1)))")),
    ]);
}

/// N10: what can not come from any toolchain.
#[test]
fn lies() {
    let trapped: &[&str] = &["trapped"];
    let names = r#"(data (i32.const 256) "x-a\0d\0ax: y\00") (data (i32.const 300) "\ff\fe\fd")"#;
    let handler = |body: &str| http_02(REALLOC, names, body);
    let append = |name: &str, value: &str| {
        format!(
            "(local.set $n (call $fields)) (call $append (local.get $n) {name} {value} (i32.const 0))"
        )
    };
    let ok = "(call $answer (local.get $out) (call $fields))";
    let realloc =
        |answer: &str| http_02(answer, "", "(call $path (local.get $request) (i32.const 0))");
    all_end(&[
        case("bad-variant", trapped, handler("(call $set (local.get $out) (i32.const 7) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")),
        case("bad-error", trapped, handler("(call $set (local.get $out) (i32.const 1) (i32.const 999) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")),
        case("bad-handle", trapped, handler("(call $set (i32.const 4000) (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")),
        case("wrong-type", trapped, handler("(drop (call $response (local.get $request)))")),
        case("after-drop", trapped, handler("(local.set $n (call $fields)) (call $drop-fields (local.get $n)) (drop (call $response (local.get $n)))")),
        case("long-name", trapped, handler(&append("(i32.const 256) (i32.const -1)", "(i32.const 0) (i32.const 0)"))),
        case("far-name", trapped, handler(&append("(i32.const -16) (i32.const 32)", "(i32.const 0) (i32.const 0)"))),
        case("no-utf8", trapped, handler(&append("(i32.const 300) (i32.const 3)", "(i32.const 0) (i32.const 0)"))),
        case("long-list", trapped, handler("(call $from-list (i32.const 0) (i32.const -1) (i32.const 512))")),
        case("crooked-list", trapped, handler("(call $from-list (i32.const 3) (i32.const 1) (i32.const 512))")),
        case("crooked-result", trapped, handler("(call $path (local.get $request) (i32.const 3))")),
        case("far-result", trapped, handler("(call $path (local.get $request) (i32.const -4))")),
        case("many-headers", &["ok"], handler(&format!("(call $from-list (i32.const 65536) (i32.const 32769) (i32.const 512)) {ok}"))),
        case("line-ends", &["ok"], handler(&format!("{} {ok}", append("(i32.const 256) (i32.const 10)", "(i32.const 256) (i32.const 10)")))),
        case("status-0", &["ok", "no_response"], handler("(local.set $n (call $response (call $fields)))
            (drop (call $status (local.get $n) (i32.const 0)))
            (call $set (local.get $out) (i32.const 0) (local.get $n) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")),
        case("status-1000", &["ok", "no_response"], handler("(local.set $n (call $response (call $fields)))
            (drop (call $status (local.get $n) (i32.const 1000)))
            (call $set (local.get $out) (i32.const 0) (local.get $n) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))")),
        case("realloc-far", trapped, realloc("i32.const -1")),
        case("realloc-crooked", &["trapped", "no_response"], realloc("i32.const 1048575")),
        case("realloc-traps", trapped, realloc("unreachable")),
        case("realloc-calls", trapped, realloc("(call $fields)")),
        case("bad-callback", trapped, http_03("", "i32.const 1", "i32.const 77")),
        case("no-answer-3", &["trapped", "no_response"], http_03("", "i32.const 0", "i32.const 0")),
        case("cgi-pointers", trapped, command_doing("
            (drop (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 8)))
            (drop (call $fd_read (i32.const 0) (i32.const 1048572) (i32.const 5) (i32.const -1)))
            (drop (call $path_open (i32.const 3) (i32.const -1) (i32.const 0) (i32.const -1) (i32.const -1) (i64.const -1) (i64.const -1) (i32.const -1) (i32.const 0)))
            (call $done)")),
        case("cgi-descriptors", &["ok", "no_response", "trapped"], command_doing("
            (drop (call $fd_renumber (i32.const 0) (i32.const 2)))
            (drop (call $fd_renumber (i32.const -1) (i32.const 1000000)))
            (loop $next (drop (call $fd_close (local.tee $n (i32.add (local.get $n) (i32.const 1)))))
                (br_if $next (i32.lt_u (local.get $n) (i32.const 1000))))
            (call $done)")),
    ]);
}

/// A call that waits has a stack; as many as one guest can have leave enough for
/// all others.
#[test]
fn stacks_for_all() {
    const SLEEPING: usize = 60;
    let host = host().set("instances_max", SLEEPING + 4).start();
    let health = Health::watch(&host);
    host.admin().deploy("three", guests::http_03());
    let refused = host.admin().put("sleepers", &sleepers(4));
    let why = refused.assert_problem(422, "invalid_component");
    assert!(why.contains("5 instances with code; 4 are the most"), "{why}");
    host.admin().deploy("sleepers", &sleepers(3));
    let sleeping: Vec<_> = (0..SLEEPING)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(&Request::get("/sleepers/")).expect("send");
            connection
        })
        .collect();
    // Component, two modules' instances at least, and a stack for each of four.
    tests::eventually("all sleep", || {
        let used = host.admin().metric("whit_pool_slots_in_use");
        (used >= (SLEEPING * 9) as f64).then_some(())
    });
    for _ in 0..20 {
        host.get("/three/").assert_text("wasip3-raw\n");
    }
    drop(sleeping);
    health.check(&host, "the sleepers");
}
