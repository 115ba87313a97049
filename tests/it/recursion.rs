//! Functions that call each other, and themselves: so deep and no deeper.

use serde_json::json;
use tests::{Host, Request, guests};

use crate::host;

/// Depth at which the next call is refused.
const HOPS_MAX: usize = 8;

fn host_with_functions() -> Host {
    let host = host().set("private_egress", true).start();
    let spec = json!({ "allow_hosts": [format!("http://{}", host.address())] });
    host.admin().deploy_with_spec("f", guests::http_02(), &spec);
    host.admin().deploy_with_spec("g", guests::http_03(), &spec);
    host
}

fn call(host: &Host, function: &str, paths: &str) -> Request {
    let request = Request::get(&format!("/{function}/call"));
    request.header("x-call-authority", host.address()).header("x-call-paths", paths)
}

#[test]
fn functions_may_call_functions() {
    let host = host_with_functions();
    for (function, path, name) in [("f", "/g/", "wasip3-raw\n"), ("g", "/f/", "wasip2-raw\n")] {
        host.call(&call(&host, function, path)).assert_text(name);
    }
}

#[test]
fn calls_end_at_their_depth() {
    let host = host_with_functions();
    for (function, paths) in [("f", "/f/call"), ("g", "/g/call"), ("f", "/g/call,/f/call")] {
        let answer = host.call(&call(&host, function, paths));
        // Told from one to the next, from the one that was refused to the client.
        assert_eq!(answer.status(), 508, "{}", answer.text());
        assert!(answer.text().contains("recursion"), "{}", answer.text());
    }
    // Of themselves 9 each; by turns 5 and 4, and the next is the other's.
    for (function, ran, refused) in [("f", 9 + 5, 1), ("g", 9 + 4, 2)] {
        let receipts = |outcome, count| host.admin().receipts(function, outcome, count).len();
        assert_eq!((receipts("ok", ran), receipts("recursion", refused)), (ran, refused));
    }
}

#[test]
fn what_spreads_out_ends_too() {
    let host = host_with_functions();
    let request = call(&host, "f", "/f/call").header("x-call-times", "2");
    let answer = host.call(&request);
    assert_eq!(answer.status(), 508, "{}", answer.text());
    // 2^0 + … + 2^8 ran, and each of the last was refused twice.
    let ran = (1 << (HOPS_MAX + 1)) - 1;
    assert_eq!(host.admin().receipts("f", "ok", ran).len(), ran);
    let refused = 2 << HOPS_MAX;
    assert_eq!(host.admin().receipts("f", "recursion", refused).len(), refused);
}

#[test]
fn a_client_can_neither_use_up_nor_reset_the_count() {
    let host = host_with_functions();
    for forged in ["9 00112233445566778899aabbccddeeff", "255", "8 ", "0 x"] {
        let request = call(&host, "f", "/g/").header("x-whit-hops", forged);
        host.call(&request).assert_text("wasip3-raw\n");
        let request = call(&host, "f", "/f/call").header("x-whit-hops", forged);
        assert_eq!(host.call(&request).status(), 508);
    }
}

#[test]
fn without_the_operators_leave_nobody_calls_this_host() {
    let host = host().start();
    let port = host.address().rsplit(':').next().expect("a port").to_owned();
    let admin = host.admin_address().to_owned();
    let names = ["127.0.0.1", "localhost", "localhost.", "0.0.0.0", "[::ffff:127.0.0.1]"];
    let mut allowed: Vec<String> =
        names.iter().map(|name| format!("http://{name}:{port}")).collect();
    allowed.push(format!("http://{admin}"));
    let spec = json!({ "allow_hosts": allowed });
    host.admin().deploy_with_spec("f", guests::http_02(), &spec);
    let spellings = ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "u@127.0.0.1", "[::1%25lo]"];
    let mut targets: Vec<String> =
        names.iter().chain(&spellings).map(|name| format!("{name}:{port}")).collect();
    targets.push(admin);
    for target in targets {
        let request = Request::get("/f/call").header("x-call-paths", "/f/");
        let answer = host.call(&request.header("x-call-authority", &target));
        let refused = matches!(answer.status(), 599 | 502);
        assert!(refused, "{target}: {} {}", answer.status(), answer.text());
    }
}
