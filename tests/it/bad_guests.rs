//! Guests that trap, never answer, answer twice, lie or exit.

use serde_json::json;
use tests::{Host, Request, guests};

use crate::host;

fn host_with_function() -> Host {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("still here"));
    host
}

/// Asks a guest for something bad and checks what comes of it: for the client
/// the problem, for the owner the reason in receipt and log, for others nothing.
fn ends_as(host: &Host, path: &str, status: u16, code: &str) -> String {
    let answer = host.get(path);
    answer.assert_problem(status, code);
    let id = answer.request_id();
    assert_eq!(answer.json()["request_id"], id);
    let receipt = host.admin().receipt(&id);
    assert_eq!((&receipt["outcome"], &receipt["status"]), (&json!(code), &json!(status)), "{path}");
    let error = receipt["error"].as_str().unwrap_or_default().to_owned();
    assert!(!error.is_empty(), "{path}: the receipt says why: {receipt}");
    // The reason is the owner's business alone.
    assert!(!answer.text().contains(error.lines().next().unwrap_or_default()), "{}", answer.text());
    let function = path.split('/').nth(1).unwrap_or_default();
    let log = host.admin().logs(function, &format!("invocation={id}"));
    let told = log.iter().any(|line| line["stream"] == "host");
    assert!(told, "{path}: the log says why: {log:?}");
    host.get("/good/").assert_text("still here");
    error
}

#[test]
fn a_guest_that_traps() {
    let host = host_with_function();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        for _ in 0..3 {
            let error = ends_as(&host, &format!("/{name}/trap"), 502, "trapped");
            assert!(error.contains("unreachable"), "{name}: {error}");
        }
        // What it said before is in the log.
        let log = host.admin().logs(name, "limit=1000");
        let panicked = log.iter().any(|line| {
            line["text"].as_str().unwrap_or_default().contains("this guest was asked to trap")
        });
        assert!(panicked, "{name}: {log:?}");
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
    }
}

#[test]
fn a_guest_that_exits() {
    let host = host_with_function();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        ends_as(&host, &format!("/{name}/exit?code=0"), 502, "no_response");
        ends_as(&host, &format!("/{name}/exit?code=7"), 502, "trapped");
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
    }
}

#[test]
fn a_script_that_has_answered_may_exit_as_it_likes() {
    let host = host_with_function();
    host.admin().deploy("script", &guests::wat("exits-after"));
    let answer = host.get("/script/");
    answer.assert_text("done");
    assert_eq!(host.admin().receipt(&answer.request_id())["outcome"], "ok");
    let log = host.admin().logs("script", "");
    assert!(log.iter().any(|line| line["text"].as_str() == Some("the guest exited with status 3")));
}

#[test]
fn a_guest_that_ends_without_an_answer() {
    let host = host_with_function();
    host.admin().deploy("http", guests::http_02());
    host.admin().deploy("cgi", guests::cgi());
    ends_as(&host, "/http/no-answer", 502, "no_response");
    ends_as(&host, "/cgi/no-answer", 502, "no_response");
}

#[test]
fn a_guest_that_answers_with_an_error_code() {
    let host = host_with_function();
    for (name, component) in [("wasip2-raw", guests::http_02()), ("wasip3-raw", guests::http_03())]
    {
        host.admin().deploy(name, component);
        let error = ends_as(&host, &format!("/{name}/refuse"), 502, "no_response");
        assert!(error.to_lowercase().contains("configuration"), "{name}: {error}");
        let error = ends_as(&host, &format!("/{name}/refuse?because"), 502, "no_response");
        assert!(error.to_lowercase().contains("internal"), "{name}: {error}");
        assert!(error.contains("because"), "{name}: {error}");
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
    }
}

#[test]
fn a_guest_that_never_answers() {
    let host = host_with_function();
    let spec = json!({ "timeout": "300ms" });
    for (name, _, component) in guests::all() {
        host.admin().deploy_with_spec(name, component, &spec);
        ends_as(&host, &format!("/{name}/sleep?ms=3600000"), 504, "timeout");
    }
}

#[test]
fn a_guest_that_lies_about_its_length() {
    let host = host_with_function();
    for (name, component) in [("http", guests::http_02()), ("cgi", guests::cgi())] {
        host.admin().deploy(name, component);
        for lie in ["short", "long"] {
            let mut connection = host.connect();
            let answer = connection.call(&Request::get(&format!("/{name}/{lie}")));
            // A client can never take it for a good answer of another length.
            let good = answer.status() == 200 && answer.complete;
            assert!(!good, "{name}/{lie}: {answer:?}");
            let receipt = host.admin().receipt(&answer.request_id());
            assert_eq!(receipt["outcome"], "no_response", "{name}/{lie}: {receipt}");
            host.get("/good/").assert_text("still here");
        }
    }
}

#[test]
fn a_guest_that_answers_twice() {
    let host = host_with_function();
    host.admin().deploy("http", &guests::wat("answers-twice"));
    ends_as(&host, "/http/", 502, "trapped");
    // What a script prints after its answer is part of its answer.
    host.admin().deploy("cgi", &guests::wat("splits"));
    let mut connection = host.connect();
    let answer = connection.call(&Request::get("/cgi/"));
    assert_eq!((answer.status(), answer.complete), (200, true));
    assert!(answer.text().ends_with("two"), "{}", answer.text());
    connection.call(&Request::get("/good/")).assert_text("still here");
}

#[test]
fn output_that_is_no_cgi_is_told_to_its_owner() {
    let host = host_with_function();
    for (name, text, expected) in [
        ("body-only", "just a text\\0a\\0a", "print a header"),
        ("no-end", "Content-Type: text/plain\\0a", "before the empty line"),
        ("bad-status", "Status: 99\\0a\\0ax", "200 to 599"),
        ("informational", "Status: 101 Switching\\0a\\0ax", "200 to 599"),
        ("bad-name", "Bad Name: x\\0a\\0ax", "print a header"),
        ("no-head", "\\0a\\0abody", "print a header"),
        ("binary", "\\00\\01\\02\\0a\\0a", "print a header"),
    ] {
        host.admin().deploy(name, &guests::printing(text));
        let error = ends_as(&host, &format!("/{name}/"), 502, "no_response");
        assert!(error.contains(expected), "{name}: {error}");
    }
    // What scripts have always done is taken.
    for (name, text, status, body) in [
        ("bare", "Status: 201\\0a\\0abare", 201, "bare"),
        ("crlf", "Content-Type: a/b\\0d\\0a\\0d\\0acrlf", 200, "crlf"),
        ("redirect", "Location: /there\\0a\\0a", 302, ""),
    ] {
        host.admin().deploy(name, &guests::printing(text));
        let answer = host.get(&format!("/{name}/"));
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{name}");
    }
}

#[test]
fn a_failure_half_way_through_cuts_the_answer() {
    let host = host_with_function();
    // Prints its head and half of what it promised, waits until that is out,
    // and traps.
    host.admin().deploy("half", &guests::wat("traps-half-way"));
    let answer = host.get("/half/");
    assert_eq!((answer.status(), answer.complete), (200, false), "{answer:?}");
    assert_eq!(host.admin().receipt(&answer.request_id())["outcome"], "trapped");
    host.get("/good/").assert_text("still here");
}

#[test]
fn a_thousand_failures_leave_the_host_as_it_was() {
    let host = host_with_function();
    host.admin().deploy("bad", guests::http_02());
    for path in ["/bad/trap", "/bad/no-answer", "/bad/exit?code=1"] {
        let mut connection = host.connect();
        for _ in 0..300 {
            assert_eq!(connection.call(&Request::get(path)).status(), 502);
        }
    }
    let before = host.memory_bytes("VmRSS");
    for path in ["/bad/trap", "/bad/no-answer", "/bad/exit?code=1"] {
        let mut connection = host.connect();
        for _ in 0..300 {
            assert_eq!(connection.call(&Request::get(path)).status(), 502);
        }
    }
    let grown = host.memory_bytes("VmRSS").saturating_sub(before);
    assert!(grown < 16 << 20, "900 failures cost {} KiB", grown >> 10);
    host.admin().metric_becomes("whit_invocations_running", 0.0);
    host.get("/good/").assert_text("still here");
}
