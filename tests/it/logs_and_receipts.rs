//! What is known afterwards: receipts, logs, metrics.

use serde_json::{Value, json};
use tests::{Connection, Request, guests};

use crate::host;

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn every_invocation_has_one_receipt() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let path = format!("/{name}/echo");
        let answer = host.call(&Request::post(&path, vec![b'x'; 100_000]));
        assert_eq!((answer.status(), answer.body.len()), (200, 100_000));
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["id"], answer.request_id());
        assert_eq!(receipt["function"], name);
        assert_eq!((number(&receipt, "revision"), number(&receipt, "status")), (1, 200));
        assert_eq!((&receipt["outcome"], &receipt["cold"]), (&json!("ok"), &json!(true)));
        assert_eq!(number(&receipt, "request_bytes"), 100_000, "{name}");
        assert_eq!(number(&receipt, "response_bytes"), 100_000, "{name}");
        for measured in ["total_us", "init_us", "run_us", "cpu_us", "load_us"] {
            assert!(number(&receipt, measured) > 0, "{name}: {measured} in {receipt}");
        }
        assert!(number(&receipt, "memory_peak_bytes") >= 64 << 10, "{name}: {receipt}");
        let parts = ["queue_us", "load_us", "init_us", "run_us"].map(|part| number(&receipt, part));
        assert!(parts.iter().sum::<u64>() <= number(&receipt, "total_us") + 1000, "{receipt}");
        // The next one is warm, and the CPU time is what it used.
        let sleeps = host.get(&format!("/{name}/sleep?ms=200"));
        let receipt = host.admin().receipt(&sleeps.request_id());
        assert_eq!((&receipt["cold"], number(&receipt, "load_us")), (&json!(false), 0));
        assert!(number(&receipt, "run_us") >= 200_000, "{name}: {receipt}");
        assert!(number(&receipt, "cpu_us") < 150_000, "{name}: {receipt}");
    }
    let all = host.admin().json("/v1/invocations");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(8));
}

#[test]
fn receipts_can_be_searched_and_come_in_pages() {
    let host = host().start();
    host.admin().deploy("a", &guests::answering("a"));
    host.admin().deploy("b", guests::http_02());
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(host.get("/a/").request_id());
    }
    let failed = host.get("/b/trap").request_id();
    let lost = host.get("/nowhere").request_id();
    assert_eq!(host.admin().receipts("a", "ok", 7).len(), 7);
    let found = host.admin().receipts("b", "trapped", 1);
    assert_eq!(found[0]["id"], failed);
    let _ = host.admin().receipt(&lost);
    // The latest first, each once.
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let page = host.admin().json(&format!("/v1/invocations?function=a&limit=3{before}"));
        let items = page["items"].as_array().expect("items");
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap_or_default().to_owned()));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    // The first 12 digits are the time, in milliseconds.
    assert!(seen.is_sorted_by(|one, next| one[..12] >= next[..12]), "{seen:?}");
    seen.sort_unstable();
    ids.sort_unstable();
    assert_eq!(seen, ids);
    for query in ["outcome=fine", "limit=0", "before=x", "functoin=a"] {
        let answer = host.admin().get(&format!("/v1/invocations?{query}"));
        assert_eq!(answer.status(), 400, "{query}: {}", answer.text());
    }
}

#[test]
fn responses_tell_their_times_unless_the_spec_says_no() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let answer = host.get(&format!("/{name}/sleep?ms=50"));
        let timing = answer.header("server-timing").expect("Server-Timing").to_owned();
        let part = |wanted: &str| -> f64 {
            let found =
                timing.split(", ").find_map(|part| part.strip_prefix(&format!("{wanted};dur=")));
            found.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{wanted} in {timing}"))
        };
        for name in ["queue", "load", "init", "guest", "host"] {
            assert!(part(name) >= 0.0);
        }
        assert!(part("load") > 0.0, "{name}: the first call was cold: {timing}");
        host.admin().change(name, &json!({ "server_timing": false }));
        let answer = host.get(&format!("/{name}/"));
        assert_eq!(answer.header("server-timing"), None, "{name}");
        assert_eq!(answer.request_id().len(), 32, "{name}");
    }
}

#[test]
fn a_request_id_is_the_hosts_own() {
    let host = host().start();
    host.admin().deploy("a", &guests::answering("a"));
    let request = Request::get("/a/").header("x-request-id", "mine");
    let (first, second) = (host.call(&request).request_id(), host.call(&request).request_id());
    assert_ne!(first, second);
    assert!(first.bytes().all(|byte| byte.is_ascii_hexdigit()) && first.len() == 32, "{first}");
}

#[test]
fn metrics_count_what_happened() {
    let host = host().start();
    host.admin().deploy("a", guests::http_02());
    for _ in 0..3 {
        host.get("/a/");
    }
    host.get("/a/trap");
    host.get("/nowhere");
    let admin = host.admin();
    admin.metric_becomes("whit_requests_total{function=\"a\",outcome=\"ok\"}", 3.0);
    admin.metric_becomes("whit_requests_total{function=\"a\",outcome=\"trapped\"}", 1.0);
    admin.metric_becomes("whit_requests_total{function=\"\",outcome=\"no_route\"}", 1.0);
    admin.metric_becomes("whit_request_duration_seconds_count{function=\"a\"}", 4.0);
    admin.metric_becomes("whit_cold_starts_total{function=\"a\"}", 1.0);
    admin.metric_becomes("whit_functions", 1.0);
    assert!(admin.metric("whit_cpu_seconds_total{function=\"a\"}") > 0.0);
    let answer = admin.get("/metrics");
    assert!(answer.header("content-type").is_some_and(|kind| kind.contains("openmetrics-text")));
    assert!(answer.text().ends_with("# EOF\n"));
    // A function that is gone makes room.
    admin.delete("/v1/functions/a");
    admin.metric_becomes("whit_functions", 0.0);
}

#[test]
fn logs_are_kept_by_function_and_invocation() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let first = host.get(&format!("/{name}/stderr?bytes=250")).request_id();
        let second = host.get(&format!("/{name}/stderr?bytes=30")).request_id();
        let lengths = |query: &str| -> Vec<usize> {
            let log = host.admin().logs(name, query);
            log.iter().map(|line| line["text"].as_str().unwrap_or_default().len()).collect()
        };
        assert_eq!(lengths(""), [99, 99, 49, 29], "{name}");
        assert_eq!(lengths("limit=2"), [49, 29], "{name}");
        assert_eq!(lengths(&format!("invocation={first}")), [99, 99, 49], "{name}");
        let log = host.admin().logs(name, &format!("invocation={second}"));
        let line = &log[0];
        assert_eq!((&line["function"], &line["stream"]), (&json!(name), &json!("stderr")));
        assert_eq!((&line["revision"], &line["invocation"]), (&json!(1), &json!(second)));
    }
    let answer = host.admin().get("/v1/functions/wasip2-raw/logs?limit=10001");
    answer.assert_problem(400, "invalid_request");
}

#[test]
fn a_followed_log_goes_on_as_it_is_written() {
    let host = host().start();
    host.admin().deploy("a", guests::http_02());
    host.get("/a/stderr?bytes=11");
    let mut follower = Connection::open(host.admin_address());
    let request = Request::get("/v1/functions/a/logs?follow=true");
    let bearer = format!("Bearer {}", host.token());
    follower.send(&request.header("authorization", &bearer)).expect("send");
    let head = follower.head().expect("a head");
    assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
    let mut lines = follower.lines();
    let mut next = || -> usize {
        let (_, line) = lines.next().expect("a line");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        line["text"].as_str().unwrap_or_default().len()
    };
    assert_eq!(next(), 10);
    for bytes in [21, 31, 41] {
        host.get(&format!("/a/stderr?bytes={bytes}"));
        assert_eq!(next(), bytes - 1);
    }
}

#[test]
fn what_a_guest_writes_can_not_forge_a_line() {
    let host = host().start();
    let text = "{\\\"text\\\":\\\"forged\\\"}\\0d\\0a\\1b[31mred\\00\\0a\\c3\\28\\0a";
    host.admin().deploy("a", &guests::complaining(text));
    host.get("/a/");
    let log = host.admin().logs("a", "");
    assert!(log.iter().all(|line| line["function"] == "a"), "{log:?}");
    let texts: Vec<&str> = log.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts[0], "{\"text\":\"forged\"}");
    for text in texts {
        let control = text.chars().any(|character| character.is_control() && character != '\t');
        assert!(!control, "{text:?}");
    }
}
