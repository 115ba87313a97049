//! The data plane's HTTP: what is broken is refused, what is odd is answered.

use serde_json::json;
use tests::health::descriptors;
use tests::{Connection, Host, Request, eventually, guests};

use crate::host;

fn host_with_function() -> Host {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("still here"));
    host
}

/// Sends bytes and returns the status of the answer; none where the connection
/// was closed without one.
fn status_of(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(address);
    // A server may close before it has read everything.
    let _ = connection.write(bytes);
    connection.half_close();
    connection.response().ok().map(|response| response.status())
}

#[test]
fn broken_requests_are_refused_and_the_next_client_is_served() {
    let host = host_with_function();
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100_000));
    let long_header =
        format!("GET /good/ HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many_headers = format!("GET /good/ HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    let broken: &[&str] = &[
        "complete nonsense\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        "GET\r\n\r\n",
        "GET /good/\r\n\r\n",
        "GET /good/ HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET /good/ HTTP/1.1\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost: user@a\r\n\r\n",
        "GET good/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://b/good/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        "GET /good/ HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n12345",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n12345",
        "POST /good/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        &long_path,
        &long_header,
        &many_headers,
    ];
    for request in broken {
        let status = status_of(host.address(), request.as_bytes());
        let shown: String = request.chars().take(80).collect();
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{shown:?} got {status:?}"
        );
        host.get("/good/").assert_text("still here");
    }
}

#[test]
fn a_request_can_not_be_smuggled() {
    let host = host_with_function();
    host.admin().deploy("echo", guests::cgi());
    // Both lengths: a proxy in front may believe the other one.
    let mut connection = host.connect();
    let bytes = "POST /echo/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
                 transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /good/ HTTP/1.1\r\nhost: a\r\n\r\n";
    connection.write(bytes.as_bytes()).expect("send");
    let first = connection.response().expect("an answer");
    // Refused; or taken as chunked, as the standard has it, and then closed.
    let second = connection.response();
    if first.status() == 200 {
        assert_eq!(first.text(), "");
    } else {
        assert_eq!(first.status(), 400, "{first:?}");
    }
    assert!(second.is_err(), "the rest was taken as a request: {second:?}");
}

#[test]
fn broken_bodies_end_the_request_and_nothing_else() {
    let host = host_with_function();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        for body in
            ["zz\r\n12345\r\n", "5\r\n123456789\r\n", "ffffffffffffffffff\r\n1", "-1\r\n\r\n"]
        {
            let mut connection = host.connect();
            connection.send_chunked(&Request::new("POST", &format!("/{name}/echo"))).expect("send");
            // It may have been closed by then.
            let _ = connection.write(body.as_bytes());
            if let Ok(answer) = connection.response() {
                // Also where the guest did not notice, or took it for the end.
                let whole = answer.status() == 200 && answer.complete;
                assert!(!whole, "{name}: {body:?} was taken for a whole body");
                assert_ne!(answer.status(), 500, "{name}: {body:?}");
            }
        }
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
    }
    let ours = host.admin().json("/v1/invocations?outcome=host_error");
    assert_eq!(ours["items"].as_array().map(Vec::len), Some(0), "{ours}");
}

#[test]
fn connections_are_kept_for_further_requests() {
    let host = host_with_function();
    let mut connection = host.connect();
    for _ in 0..50 {
        connection.call(&Request::get("/good/")).assert_text("still here");
    }
    // After an error, and after a request whose body nobody read, too.
    connection.call(&Request::get("/nowhere")).assert_problem(404, "no_route");
    connection.call(&Request::post("/good/", "unread")).assert_text("still here");
    connection.call(&Request::get("/good/")).assert_text("still here");
    let last = connection.call(&Request::get("/good/").header("connection", "close"));
    last.assert_text("still here");
    assert!(connection.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = host_with_function();
    host.admin().deploy("echo", guests::cgi());
    let mut connection = host.connect();
    for number in 0..10 {
        let request = Request::post("/echo/echo", format!("number {number}"));
        connection.send(&request).expect("send");
    }
    for number in 0..10 {
        let answer = connection.response().expect("an answer");
        answer.assert_text(&format!("number {number}"));
    }
}

#[test]
fn http_1_0_clients_are_answered() {
    let host = host_with_function();
    let mut connection = host.connect();
    connection.write(b"GET /good/ HTTP/1.0\r\n\r\n").expect("send");
    let answer = connection.response().expect("an answer");
    answer.assert_text("still here");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(connection.is_closed());
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let host = host_with_function();
    host.admin().deploy("echo", guests::http_02());
    let mut connection = host.connect();
    let request = Request::new("POST", "/echo/echo").header("expect", "100-continue");
    connection.send_head(&request.header("content-length", "5")).expect("send");
    // Also where the guest answers before it reads.
    assert_eq!(connection.interim().expect("an interim response"), 100);
    connection.write(b"hello").expect("send");
    connection.response().expect("an answer").assert_text("hello");
}

#[test]
fn what_describes_the_connection_stays_on_it() {
    let host = host_with_function();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let request = Request::get(&format!("/{name}/headers"));
        let request = request
            .header("connection", "keep-alive, x-hop")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("x-forwarded-prefix", "/forged")
            .header("x-end-to-end", "1");
        let seen = host.call(&request).text().to_lowercase();
        assert!(seen.contains("x-end-to-end: 1"), "{name}: {seen}");
        for hop in ["keep-alive:", "proxy-connection:", "forged"] {
            assert!(!seen.contains(hop), "{name}: {hop} in {seen}");
        }
    }
}

#[test]
fn a_guest_can_not_speak_for_the_host() {
    // Prints headers that frame the connection, and a second response.
    let host = host_with_function();
    host.admin().deploy("splits", &guests::wat("splits"));
    let mut connection = host.connect();
    let answer = connection.call(&Request::get("/splits/"));
    assert_eq!((answer.status(), answer.complete), (200, true));
    assert_eq!(answer.header("upgrade"), None);
    assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    assert!(answer.text().starts_with("one\nHTTP/1.1 200 OK"), "{}", answer.text());
    connection.call(&Request::get("/good/")).assert_text("still here");
}

#[test]
fn slow_heads_are_cut_off() {
    let host = host_with_function();
    let mut connections: Vec<_> = (0..20).map(|_| host.connect()).collect();
    for connection in &mut connections {
        connection.write(b"GET /good/ HTTP/1.1\r\nhost: a\r\nx-slow").expect("send");
    }
    // They hold up nobody meanwhile.
    host.get("/good/").assert_text("still here");
    for mut connection in connections {
        if let Ok(answer) = connection.response() {
            assert_eq!(answer.status(), 408, "{answer:?}");
        }
        assert!(connection.is_closed());
    }
}

/// A request that is refused by its head, and what follows it.
const REFUSED: &[u8] = b"POST /good/ HTTP/1.1\r\nhost: a\r\nb c: d\r\ncontent-length: 64\r\n\r\n";

#[test]
fn a_client_that_is_still_sending_gets_its_answer() {
    let host = host().start();
    let spec = json!({ "request_body": "64KiB" });
    host.admin().deploy_with_spec("small", &guests::answering("here"), &spec);
    let mut connection = host.connect();
    // More than the kernels on the way take without a reader.
    connection.send(&Request::post("/small/", vec![b'x'; 32 << 20])).expect("sent to its end");
    connection.response().expect("an answer").assert_problem(413, "body_too_large");
    assert!(connection.is_closed());

    let mut connection = host.connect();
    connection.write(REFUSED).expect("send");
    assert_eq!(connection.response().expect("an answer").status(), 400);
    for _ in 0..64 {
        connection.write(b"x").expect("the rest is still taken");
    }
}

#[test]
fn a_refused_client_is_not_waited_for_without_end() {
    let host = host_with_function();
    let before = descriptors(&host);
    let mut silent = host.connect();
    silent.write(REFUSED).expect("send");
    assert_eq!(silent.response().expect("an answer").status(), 400);
    eventually("the end of a silent one", || (descriptors(&host) <= before).then_some(()));
    let mut talking = host.connect();
    talking.write(REFUSED).expect("send");
    assert_eq!(talking.response().expect("an answer").status(), 400);
    eventually("the end of one that goes on", || talking.write(b"x").err());
}

#[test]
fn a_body_that_nobody_reads_does_not_end_the_connection() {
    let host = host_with_function();
    let mut paths = vec!["/nowhere/".to_owned(), "/good/".to_owned()];
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        paths.push(format!("/{name}/"));
    }
    let mut connection = host.connect();
    for path in paths {
        let request = Request::new("POST", &path);
        // The answer is there before the body is.
        connection.send_head(&request.clone().header("content-length", "70000")).expect("send");
        let answer = connection.response().expect("an answer");
        assert_eq!(answer.status(), if path == "/nowhere/" { 404 } else { 200 }, "{path}");
        assert_eq!(answer.header("connection"), None, "{path}");
        connection.write(&[b'x'; 70_000]).expect("the body");
        connection.call(&Request::get("/good/")).assert_text("still here");

        connection.send_chunked(&request).expect("send");
        assert_ne!(connection.response().expect("an answer").status(), 500, "{path}");
        connection.chunk(b"12345").expect("a chunk");
        connection.chunk(b"").expect("the end");
        connection.call(&Request::get("/good/")).assert_text("still here");
    }
}

#[test]
fn who_may_not_send_a_next_request_is_told() {
    let host = host_with_function();
    for field in [("content-length", "1000000"), ("expect", "100-continue")] {
        let mut connection = host.connect();
        let request = Request::new("POST", "/nowhere/").header(field.0, field.1);
        let (name, value) = if field.0 == "expect" { ("content-length", "5") } else { ("a", "b") };
        connection.send_head(&request.header(name, value)).expect("send");
        let answer = connection.response().expect("an answer");
        assert_eq!((answer.status(), answer.header("connection")), (404, Some("close")));
        assert!(connection.is_closed(), "{field:?}");
    }
    // Nor is more taken in than that, where it was not announced.
    let mut connection = host.connect();
    connection.send_chunked(&Request::new("POST", "/nowhere/")).expect("send");
    assert_eq!(connection.response().expect("an answer").status(), 404);
    let piece = [b'x'; 16 << 10];
    eventually("the end of a body without one", || {
        connection.has_ended().then_some(()).or_else(|| connection.chunk(&piece).err().map(drop))
    });
}
