//! Every limit has its typed outcome, and meets nobody but who went over it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Host, Request, Response, guests};

use crate::host;

/// The guests that can be asked for anything: by kind, one each.
fn kinds() -> [(&'static str, &'static [u8]); 3] {
    [("http-02", guests::http_02()), ("http-03", guests::http_03()), ("cgi", guests::cgi())]
}

/// Deploys the guest of each kind with a spec and has it loaded.
fn deploy_kinds(host: &Host, spec: &Value) -> [&'static str; 3] {
    kinds().map(|(name, component)| {
        host.admin().deploy_with_spec(name, component, spec);
        assert_eq!(host.get(&format!("/{name}/")).status(), 200, "{name}");
        name
    })
}

fn timed(host: &Host, path: &str) -> (Response, Duration) {
    let mut connection = host.connect();
    let started = Instant::now();
    let answer = connection.call(&Request::get(path));
    (answer, started.elapsed())
}

#[test]
fn a_sleeping_guest_ends_at_its_wall_time() {
    let host = host().start();
    let spec = json!({ "timeout": "500ms" });
    for name in deploy_kinds(&host, &spec) {
        let (answer, took) = timed(&host, &format!("/{name}/sleep?ms=20000"));
        answer.assert_problem(504, "timeout");
        let within = Duration::from_millis(500)..Duration::from_millis(800);
        assert!(within.contains(&took), "{name}: {took:?}");
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!((&receipt["outcome"], &receipt["status"]), (&json!("timeout"), &json!(504)));
        // What stays below it is not touched.
        host.get(&format!("/{name}/sleep?ms=50")).assert_text("slept\n");
    }
}

#[test]
fn a_spinning_guest_ends_at_its_cpu_time() {
    let host = host().start();
    let spec = json!({ "cpu": "300ms" });
    for name in deploy_kinds(&host, &spec) {
        let answer = host.get(&format!("/{name}/spin"));
        answer.assert_problem(504, "cpu_limit");
        // On the guest's own clock: others share the processor here.
        let receipt = host.admin().receipt(&answer.request_id());
        let cpu_ms = receipt["cpu_us"].as_u64().unwrap_or_default() / 1000;
        assert!((300..500).contains(&cpu_ms), "{name}: {receipt}");
        host.get(&format!("/{name}/sleep?ms=400")).assert_text("slept\n");
    }
}

#[test]
fn a_spinning_guest_ends_at_its_wall_time_too() {
    let host = host().start();
    let spec = json!({ "timeout": "300ms", "cpu": "60s" });
    for name in deploy_kinds(&host, &spec) {
        let (answer, took) = timed(&host, &format!("/{name}/spin"));
        answer.assert_problem(504, "timeout");
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");
    }
}

#[test]
fn a_guest_whose_answer_never_ends_ends_at_its_wall_time() {
    let host = host().start();
    let spec = json!({ "timeout": "200ms", "cpu": "20s", "response_body": "1GiB" });
    for name in deploy_kinds(&host, &spec) {
        let mut connection = host.connect();
        let started = Instant::now();
        connection.send(&Request::get(&format!("/{name}/big?bytes=1000000000"))).expect("send");
        let answer = connection.head().expect("a head");
        // It is taken as it comes, so that the guest never has to wait.
        while let Ok(Some(_)) = connection.piece() {}
        let took = started.elapsed();
        let receipt = host.admin().receipt(answer.header("x-request-id").expect("an id"));
        assert_eq!(receipt["outcome"], "timeout", "{name}: {took:?}, {receipt}");
    }
}

#[test]
fn guests_that_never_end_leave_the_others_alone() {
    // More of them than threads of the host.
    let host = host().start();
    host.admin().deploy_with_spec("spins", &guests::wat("spin"), &json!({ "cpu": "1s" }));
    host.admin().deploy("good", &guests::answering("still here"));
    std::thread::scope(|scope| {
        let spins: Vec<_> = (0..8).map(|_| scope.spawn(|| host.get("/spins/"))).collect();
        host.admin().metric_becomes("whit_invocations_running", 8.0);
        for _ in 0..20 {
            let (answer, took) = timed(&host, "/good/");
            answer.assert_text("still here");
            assert!(took < Duration::from_secs(1), "it waited for {took:?}");
        }
        for spin in spins {
            spin.join().expect("a client").assert_problem(504, "cpu_limit");
        }
    });
    host.admin().metric_becomes("whit_invocations_running", 0.0);
}

#[test]
fn every_way_to_burn_the_processor_ends() {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("still here"));
    for name in ["spin", "start-spin", "memory-fill", "calls"] {
        let spec = json!({ "cpu": "200ms", "timeout": "20s" });
        host.admin().deploy_with_spec(name, &guests::wat(name), &spec);
        let answer = host.get(&format!("/{name}/"));
        answer.assert_problem(504, "cpu_limit");
        let receipt = host.admin().receipt(&answer.request_id());
        let cpu_ms = receipt["cpu_us"].as_u64().unwrap_or_default() / 1000;
        assert!((200..700).contains(&cpu_ms), "{name}: {receipt}");
        host.get("/good/").assert_text("still here");
    }
}

#[test]
fn memory_ends_at_its_limit() {
    let host = host().start();
    let spec = json!({ "memory": "32MiB" });
    for name in deploy_kinds(&host, &spec) {
        let before = host.mark_memory();
        host.get(&format!("/{name}/alloc?mb=16")).assert_text("allocated\n");
        let answer = host.get(&format!("/{name}/alloc?mb=64"));
        answer.assert_problem(502, "memory_limit");
        let receipt = host.admin().receipt(&answer.request_id());
        let peak = receipt["memory_peak_bytes"].as_u64().unwrap_or_default();
        assert!(peak <= 32 << 20, "{name}: {receipt}");
        let grown = host.growth_bytes(before);
        assert!(grown < 64 << 20, "{name}: the host grew by {} MiB", grown >> 20);
        // Once the spec allows it, it is there.
        host.admin().change(name, &json!({ "memory": "96MiB" }));
        host.get(&format!("/{name}/alloc?mb=64")).assert_text("allocated\n");
    }
}

#[test]
fn memory_is_summed_over_all_that_a_guest_has() {
    let host = host().start();
    let spec = json!({ "memory": "8MiB" });
    // Grows by a page until it is refused, then prints how many pages it got.
    host.admin().deploy_with_spec("grows", &guests::wat("grow"), &spec);
    let pages: u64 = host.get("/grows/").text().trim().parse().expect("a number");
    assert!((100..=128).contains(&pages), "{pages} pages of 64 KiB in 8 MiB");
    // Six memories of 2 MiB: each is small, together they are not.
    let answer = host.admin().put_with_spec("many", &guests::wat("many-memories"), &spec);
    if answer.status() == 201 {
        let answer = host.get("/many/");
        assert_eq!(answer.status(), 502, "{}", answer.text());
        answer.assert_problem(502, "memory_limit");
    } else {
        assert_eq!(answer.status(), 422, "{}", answer.text());
    }
}

#[test]
fn recursion_without_end_is_a_trap() {
    let host = host().start();
    host.admin().deploy("deep", &guests::wat("recursion"));
    host.admin().deploy("good", &guests::answering("still here"));
    for _ in 0..20 {
        host.get("/deep/").assert_problem(502, "trapped");
    }
    host.get("/good/").assert_text("still here");
}

#[test]
fn a_request_body_over_its_limit_is_refused() {
    let host = host().start();
    let spec = json!({ "request_body": "64KiB" });
    for name in deploy_kinds(&host, &spec) {
        let path = format!("/{name}/echo");
        let fits = vec![b'x'; 64 << 10];
        let over = vec![b'x'; (64 << 10) + 1];
        let answer = host.call(&Request::post(&path, fits.clone()));
        assert_eq!((answer.status(), answer.body == fits), (200, true), "{name}");
        let answer = host.call(&Request::post(&path, over.clone()));
        answer.assert_problem(413, "body_too_large");
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "body_too_large");
        // Without a length it is found out on the way; a guest that answers
        // before it has read is cut off.
        let mut connection = host.connect();
        connection.send_chunked(&Request::new("POST", &path)).expect("send");
        connection.chunk(&over).expect("send");
        let _ = connection.chunk(b"");
        let answer = connection.response().expect("an answer");
        let refused = answer.status() == 413 || !answer.complete;
        assert!(refused, "{name}: {} {}", answer.status(), answer.body.len());
        // Whatever the guest made of it.
        assert_eq!(host.admin().receipts(name, "body_too_large", 2).len(), 2);
    }
}

#[test]
fn a_response_body_over_its_limit_is_cut() {
    let host = host().start();
    let spec = json!({ "response_body": "1MiB" });
    for name in deploy_kinds(&host, &spec) {
        let answer = host.get(&format!("/{name}/big?bytes=1048576"));
        assert_eq!((answer.status(), answer.body.len(), answer.complete), (200, 1 << 20, true));
        let answer = host.get(&format!("/{name}/big?bytes=3000000"));
        // The client can see that it does not have all of it.
        assert!(answer.status() == 502 || !answer.complete, "{name}: {:?}", answer.head);
        assert!(answer.body.len() <= 1 << 20, "{name}: {} bytes", answer.body.len());
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "output_limit", "{name}");
    }
}

#[test]
fn output_without_end_is_cut_wherever_it_goes() {
    let host = host().start();
    let spec = json!({ "response_body": "1MiB", "logs": "4KiB", "cpu": "2s" });
    for (name, outcomes) in [
        ("flood-stdout", &["output_limit"][..]),
        ("flood-head", &["no_response"]),
        ("flood-stderr", &["cpu_limit"]),
    ] {
        host.admin().deploy_with_spec(name, &guests::wat(name), &spec);
        let before = host.mark_memory();
        let answer = host.get(&format!("/{name}/"));
        let receipt = host.admin().receipt(&answer.request_id());
        let outcome = receipt["outcome"].as_str().unwrap_or_default();
        assert!(outcomes.contains(&outcome), "{name}: {receipt}");
        let grown = host.growth_bytes(before);
        assert!(grown < 32 << 20, "{name}: the host grew by {} MiB", grown >> 20);
    }
    let log = host.admin().logs("flood-stderr", "limit=10000");
    let kept: usize = log.iter().map(|line| line["text"].as_str().unwrap_or_default().len()).sum();
    assert!(kept < 8 << 10, "{kept} bytes of log");
}

#[test]
fn a_log_over_its_limit_is_cut_with_a_marker() {
    let host = host().start();
    let spec = json!({ "logs": "1KiB" });
    for name in deploy_kinds(&host, &spec) {
        let answer = host.get(&format!("/{name}/stderr?bytes=5000"));
        // The guest does not notice.
        answer.assert_text("written\n");
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!((&receipt["outcome"], &receipt["log_bytes"]), (&json!("ok"), &json!(5000)));
        let log = host.admin().logs(name, &format!("invocation={}", answer.request_id()));
        let kept: usize = log
            .iter()
            .filter(|line| line["stream"] == "stderr")
            .map(|line| line["text"].as_str().unwrap_or_default().len() + 1)
            .sum();
        assert!((900..=1100).contains(&kept), "{name}: {kept} bytes were kept");
        let last = log.last().expect("lines");
        assert_eq!(last["stream"], "host", "{name}: {last}");
        assert!(last["text"].as_str().unwrap_or_default().contains("1024 bytes"), "{last}");
    }
}

#[test]
fn a_busy_function_refuses_after_a_bounded_wait_and_hurts_no_other() {
    let host = host().start();
    host.admin().deploy_with_spec("busy", guests::http_02(), &json!({ "concurrency": 2 }));
    host.admin().deploy("good", &guests::answering("still here"));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| host.get("/busy/sleep?ms=3000").assert_text("slept\n"));
        }
        host.admin().metric_becomes("whit_invocations_running", 2.0);
        let (answer, took) = timed(&host, "/busy/");
        answer.assert_problem(429, "tenant_limited");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let within = Duration::from_millis(900)..Duration::from_millis(1900);
        assert!(within.contains(&took), "{took:?}");
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "tenant_limited");
        assert!(receipt["queue_us"].as_u64() >= Some(900_000), "{receipt}");
        host.get("/good/").assert_text("still here");
    });
    // Who waits shorter than that gets in.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| host.get("/busy/sleep?ms=200").assert_text("slept\n"));
        }
    });
}

#[test]
fn a_full_host_says_when_to_come_back() {
    let host = host().set("instances_max", 2).start();
    host.admin().deploy("a", guests::http_02());
    host.admin().deploy("b", guests::cgi());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| host.get("/a/sleep?ms=3000").assert_text("slept\n"));
        }
        host.admin().metric_becomes("whit_invocations_running", 2.0);
        let answer = host.get("/b/");
        answer.assert_problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "overloaded");
    });
    host.get("/b/").assert_text("cgi-rust\n");
}

#[test]
fn the_memory_of_all_guests_is_bounded_and_small_ones_always_run() {
    let host = host().set("guest_memory_max", "48MiB").start();
    host.admin().deploy("large", guests::http_02());
    host.admin().deploy("good", &guests::answering("still here"));
    host.get("/large/alloc?mb=32").assert_text("allocated\n");
    let answer = host.get("/large/alloc?mb=64");
    // Not the function's fault: it may have 128 MiB.
    answer.assert_problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    host.get("/good/").assert_text("still here");
    // What ends gives its memory back.
    host.admin().metric_becomes("whit_guest_memory_bytes", 0.0);
    host.get("/large/alloc?mb=32").assert_text("allocated\n");
}

#[test]
fn clocks_advance_in_whole_milliseconds_unless_the_host_is_told_otherwise() {
    // Reads a clock until it shows something finer than a millisecond, or often.
    let finer = |clock: u32| {
        tests::hostile::command_doing(&format!(
            "(loop $again
                (drop (call $clock_time_get (i32.const {clock}) (i64.const 0) (i32.const 256)))
                (if (i64.ne (i64.rem_u (i64.load (i32.const 256)) (i64.const 1000000)) (i64.const 0))
                    (then unreachable))
                (br_if $again (i32.lt_u
                    (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
            (call $done)"
        ))
    };
    for (fine, status) in [("false", 200), ("true", 502)] {
        let host = host().set("fine_clocks", fine).start();
        for (name, clock) in [("wall", 0), ("monotonic", 1)] {
            host.admin().deploy(name, &finer(clock));
            assert_eq!(host.get(&format!("/{name}/")).status(), status, "{name}, fine: {fine}");
        }
    }
}
