//! Revisions: made, changed, gone back to, swapped under load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;
use tests::{Request, guests};

use crate::host;

#[test]
fn each_deploy_is_a_revision_and_a_rollback_goes_back() {
    let host = host().start();
    let admin = host.admin();
    for (number, text) in [(1, "one"), (2, "two"), (3, "three")] {
        let published = admin.deploy("app", &guests::answering(text));
        assert_eq!(published["revision"]["number"], number);
        host.get("/app/").assert_text(text);
    }
    let list = admin.json("/v1/functions/app/revisions");
    let numbers: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|r| &r["number"]).collect();
    assert_eq!(numbers, [3, 2, 1]);
    // To the one before, to a named one, and back.
    assert_eq!(admin.post("/v1/functions/app/rollback", "").json()["active"], 2);
    host.get("/app/").assert_text("two");
    assert_eq!(admin.post("/v1/functions/app/rollback", "{\"revision\":1}").json()["active"], 1);
    host.get("/app/").assert_text("one");
    assert_eq!(admin.post("/v1/functions/app/revisions/3/activate", "").json()["active"], 3);
    host.get("/app/").assert_text("three");
    admin.post("/v1/functions/app/rollback", "{\"revision\":9}").assert_problem(404, "not_found");
    admin
        .post("/v1/functions/app/rollback", "{\"revison\":1}")
        .assert_problem(400, "invalid_request");
    host.get("/app/").assert_text("three");
    // A new one after that is numbered on.
    assert_eq!(admin.deploy("app", &guests::answering("four"))["revision"]["number"], 4);
    admin.deploy("fresh", &guests::answering("x"));
    let answer = admin.post("/v1/functions/fresh/rollback", "");
    answer.assert_problem(409, "nothing_to_roll_back_to");
}

#[test]
fn the_same_again_is_no_new_revision() {
    let host = host().start();
    let component = guests::answering("same");
    host.admin().deploy("app", &component);
    let again = host.admin().put("app", &component);
    assert_eq!((again.status(), &again.json()["created"]), (200, &json!(false)));
    assert_eq!(host.admin().json("/v1/functions/app")["revisions"], 1);
    let same = host.admin().patch("app", &json!({}));
    assert_eq!((same.status(), &same.json()["created"]), (200, &json!(false)));
}

#[test]
fn a_patch_is_a_revision_with_the_same_component() {
    let host = host().start();
    host.admin().deploy("app", guests::http_02());
    let changed =
        host.admin().change("app", &json!({ "env": { "COLOUR": "blue" }, "timeout": "9s" }));
    assert_eq!(changed["revision"]["number"], 2);
    assert!(host.get("/app/env").text().contains("COLOUR=blue\n"));
    assert!(!host.get("/app:1/env").text().contains("COLOUR"));
    host.admin().change("app", &json!({ "env": { "COLOUR": null, "SIZE": "1" } }));
    let environment = host.get("/app/env").text();
    assert!(environment.contains("SIZE=1\n") && !environment.contains("COLOUR"), "{environment}");
    let function = host.admin().json("/v1/functions/app");
    assert_eq!(function["revision"]["limits"]["timeout_ms"], 9000);
    let digest = |number: u32| {
        host.admin().json(&format!("/v1/functions/app/revisions/{number}"))["digest"].clone()
    };
    assert_eq!((digest(1), digest(2)), (digest(2), digest(3)));
}

#[test]
fn writes_that_race_are_told_apart() {
    let host = host().start();
    let admin = host.admin();
    let put = |text: &str, header: (&str, &str)| {
        let request = tests::admin::put_request("app", &guests::answering(text));
        admin.call(&request.header(header.0, header.1))
    };
    put("one", ("if-match", "\"1\"")).assert_problem(412, "conflict");
    let first = put("one", ("if-none-match", "*"));
    assert_eq!((first.status(), first.header("etag")), (201, Some("\"1\"")));
    put("other", ("if-none-match", "*")).assert_problem(412, "conflict");
    assert_eq!(put("two", ("if-match", "\"1\"")).status(), 201);
    // Who still believes in revision 1 has to look again.
    for (method, path, body) in [
        ("PUT", "/v1/functions/app", guests::answering("late")),
        ("PATCH", "/v1/functions/app", b"{\"timeout\":\"1s\"}".to_vec()),
        ("POST", "/v1/functions/app/rollback", Vec::new()),
        ("POST", "/v1/functions/app/revisions/1/activate", Vec::new()),
        ("DELETE", "/v1/functions/app", Vec::new()),
    ] {
        let request = Request::new(method, path).header("if-match", "\"1\"").body(body);
        admin.call(&request).assert_problem(412, "conflict");
    }
    host.get("/app/").assert_text("two");
    assert_eq!(admin.get("/v1/functions/app").header("etag"), Some("\"2\""));
    put("x", ("if-match", "2")).assert_problem(400, "invalid_precondition");
    // Of two at the same time exactly one wins.
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (won, put) = (&won, &put);
            scope.spawn(move || match put(&format!("c{client}"), ("if-match", "\"2\"")).status() {
                201 => won.fetch_add(1, Ordering::Relaxed),
                status => u32::from(status != 412) * 100,
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}

#[test]
fn a_revision_can_be_tried_before_it_gets_the_traffic() {
    let host = host().start();
    host.admin().deploy("app", &guests::answering("one"));
    let request = tests::admin::put_request("app", &guests::answering("two"));
    let request = Request { path: "/v1/functions/app?activate=false".into(), ..request };
    let published = host.admin().call(&request);
    assert_eq!((published.status(), &published.json()["revision"]["active"]), (201, &json!(false)));
    host.get("/app/").assert_text("one");
    host.get("/app:2/").assert_text("two");
    host.admin().post("/v1/functions/app/revisions/2/activate", "");
    host.get("/app/").assert_text("two");
}

#[test]
fn deleting_a_function_frees_its_name_its_routes_and_its_disk() {
    let host = host().start();
    let spec = json!({ "routes": ["/there"] });
    host.admin().deploy_with_spec("app", guests::http_02(), &spec);
    host.admin().deploy("copy", guests::http_02());
    host.admin().deploy("app", guests::cgi());
    assert_eq!(host.get("/there").status(), 404, "the guest's own answer");
    assert_eq!(host.admin().delete("/v1/functions/app").status(), 204);
    for path in ["/app/", "/app:1/", "/there"] {
        host.get(path).assert_problem(404, "no_route");
    }
    // What another function uses stays.
    host.get("/copy/").assert_text("wasip2-raw\n");
    let components =
        || std::fs::read_dir(host.folder().join("components")).expect("components").count();
    tests::eventually("only the copy's component is left", || (components() == 1).then_some(()));
    host.admin().deploy_with_spec("other", &guests::answering("other"), &spec);
    host.get("/there").assert_text("other");
    // A number is never used twice: who still means the old 1 does not get this.
    let published = host.admin().deploy("app", &guests::answering("new"));
    assert_eq!(published["revision"]["number"], 3);
    host.get("/app/").assert_text("new");
}

#[test]
fn requests_in_flight_finish_on_the_revision_they_started_on() {
    let host = host().start();
    host.admin().deploy("app", guests::http_02());
    let mut connection = host.connect();
    connection.send(&Request::get("/app/stream?n=10")).expect("send");
    assert_eq!(connection.head().expect("a head").status, 200);
    let mut lines = connection.lines();
    assert_eq!(lines.next().map(|(_, line)| line).as_deref(), Some("line 1"));
    host.admin().deploy("app", &guests::answering("new"));
    host.get("/app/").assert_text("new");
    assert_eq!(host.admin().delete("/v1/functions/app").status(), 204);
    let rest: Vec<String> = lines.map(|(_, line)| line).collect();
    assert_eq!(rest.last().map(String::as_str), Some("line 10"));
}

#[test]
fn deploys_and_rollbacks_under_load_fail_no_request() {
    const DEPLOYS: u32 = 20;
    let host = host().start();
    host.admin().deploy("app", &guests::answering("version 0"));
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (host, stop, answered) = (&host, &stop, &answered);
            scope.spawn(move || {
                let mut connection = host.connect();
                while !stop.load(Ordering::Relaxed) {
                    if client == 0 {
                        connection = host.connect();
                    }
                    let answer = connection.call(&Request::get("/app/"));
                    assert_eq!(
                        (answer.status(), answer.complete),
                        (200, true),
                        "{}",
                        answer.text()
                    );
                    assert!(answer.text().starts_with("version "), "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Ends the clients also where an assertion below fails.
        let _stop = OnDrop(&stop);
        for version in 1..=DEPLOYS {
            let text = format!("version {version}");
            host.admin().deploy("app", &guests::answering(&text));
            // Whoever asks after the reply gets the new one.
            host.get("/app/").assert_text(&text);
            if version % 5 == 0 {
                let answer = host.admin().post("/v1/functions/app/rollback", "");
                assert_eq!(answer.status(), 200);
                host.get("/app/").assert_text(&format!("version {}", version - 1));
            }
        }
    });
    let answered = answered.into_inner();
    assert!(answered > 100, "only {answered} requests");
    for outcome in ["host_error", "trapped", "no_route", "no_response", "overloaded"] {
        let sample = format!("whit_requests_total{{function=\"app\",outcome=\"{outcome}\"}}");
        assert_eq!(host.admin().metric(&sample), 0.0, "{outcome}");
    }
}

/// Sets a flag however its scope ends.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
