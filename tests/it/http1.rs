//! HTTP/1 by the letter. What two servers could read in two ways is refused, and
//! the connection closed, so that nothing hides in what comes after it.

use std::time::Instant;

use tests::{Connection, Host, Request, guests};

use crate::host;

/// What follows each broken request: whoever answers it has been smuggled to.
const NEXT: &str = "GET /good/next HTTP/1.1\r\nhost: a\r\n\r\n";

fn host_with_functions() -> Host {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("still here"));
    host.admin().deploy("cgi", guests::cgi());
    host
}

/// Sends bytes, and more after them. Returns the status of the first answer, and
/// checks that there is no second one.
#[track_caller]
fn refused(host: &Host, bytes: &str) -> u16 {
    let mut connection = host.connect();
    // It may be closed before all of it is sent.
    let _ = connection.write(format!("{bytes}{NEXT}").as_bytes());
    let first = connection.response();
    let first = first.unwrap_or_else(|error| panic!("{}: {error}", shown(bytes)));
    let second = connection.response();
    assert!(second.is_err(), "{}: {first:?} and then {second:?}", shown(bytes));
    first.status()
}

fn shown(bytes: &str) -> String {
    format!("{:?}", bytes.chars().take(120).collect::<String>())
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let host = host_with_functions();
    let get = |rest: &str| format!("GET /good/ HTTP/1.1\r\n{rest}\r\n\r\n");
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    let post = |rest: &str| format!("POST /good/ HTTP/1.1\r\nhost: a\r\n{rest}");
    let long = "x".repeat(40_000);
    let cases = [
        // Whose request it is.
        (400, get("x: y")),
        (400, get("host: a\r\nhost: a")),
        (400, get("host: a\r\nhost: b")),
        (400, get("host:")),
        (400, get("host: a b")),
        (400, get("host: user@a")),
        (400, get("host: a/b")),
        (400, get("host: a,b")),
        (400, get("host: [::1")),
        (400, get("host: \u{ff41}")),
        (400, line("GET http://b/good/ HTTP/1.1")),
        (400, line("GET http://user@a/good/ HTTP/1.1")),
        // Where it goes.
        (400, line("GET good/ HTTP/1.1")),
        (400, line("GET * HTTP/1.1")),
        (400, line("OPTIONS * HTTP/1.1")),
        (400, line("CONNECT a:80 HTTP/1.1")),
        (400, line("GET /good/#fragment HTTP/1.1")),
        (400, line("GET /good/ /evil HTTP/1.1")),
        (400, line("GET  /good/ HTTP/1.1")),
        (400, line("GET /good/\t HTTP/1.1")),
        (400, line("GET /go\0od/ HTTP/1.1")),
        (400, line("GET /good/\rx HTTP/1.1")),
        (414, line(&format!("GET /good/{} HTTP/1.1", &long[..9000]))),
        (431, line(&format!("GET /good/{long} HTTP/1.1"))),
        // Which protocol it is.
        (400, line("GET /good/")),
        (400, line("GET /good/ HTTP/2.0")),
        (400, line("GET /good/ HTTP/1.2")),
        (400, line("GET /good/ http/1.1")),
        (400, line("G\u{e9}T /good/ HTTP/1.1")),
        (400, " GET /good/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        // How its lines end.
        (400, "GET /good/ HTTP/1.1\nhost: a\n\n".to_owned()),
        (400, "GET /good/ HTTP/1.1\r\nhost: a\n\r\n".to_owned()),
        (400, "GET /good/ HTTP/1.1\r\nhost: a\r\n\n".to_owned()),
        (400, "GET /good/ HTTP/1.1\r\nhost: a\r\r\n\r\n".to_owned()),
        (400, get("host: a\rx: y")),
        (400, get("host: a\r\n folded: b")),
        (400, get("host: a\r\n\tfolded")),
        // What its fields are.
        (400, get("host : a")),
        (400, get("host: a\r\nx\t: y")),
        (400, get("host: a\r\n: y")),
        (400, get("host: a\r\nno colon")),
        (400, get("host: a\r\nx(y): z")),
        (400, get("host: a\r\nx: \0")),
        (400, get("host: a\r\nx: \u{7f}")),
        (400, get("host: a\r\nx\0y: z")),
        (431, get(&format!("host: a\r\nx: {long}"))),
        (431, get(&format!("host: a{}", "\r\nx: y".repeat(200)))),
        // How long its body is.
        (400, post("content-length: 0\r\ncontent-length: 0\r\n\r\n")),
        (400, post("content-length: 0\r\ncontent-length: 5\r\n\r\n")),
        (400, post("content-length: 0, 0\r\n\r\n")),
        (400, post("content-length: +0\r\n\r\n")),
        (400, post("content-length: -1\r\n\r\n")),
        (400, post("content-length: 0x0\r\n\r\n")),
        (400, post("content-length: 0 0\r\n\r\n")),
        (400, post("content-length:\r\n\r\n")),
        (400, post("content-length: 18446744073709551616\r\n\r\n")),
        (400, post("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        (400, post("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n")),
        (400, post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        (501, post("transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        (400, post("transfer-encoding: gzip\r\n\r\n")),
        (400, post("transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        (400, post("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (400, post("transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n")),
        (501, post("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        (501, post("transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n")),
        (400, "POST /good/ HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
    ];
    let mut others = Vec::new();
    for (status, bytes) in cases {
        let own = refused(&host, &bytes);
        if own != status {
            others.push(format!("{own} instead of {status}: {}", shown(&bytes)));
        }
        host.get("/good/").assert_text("still here");
    }
    assert!(others.is_empty(), "{others:#?}");
    let ours = host.admin().json("/v1/invocations?outcome=host_error");
    assert_eq!(ours["items"].as_array().map(Vec::len), Some(0), "{ours}");
}

#[test]
fn chunks_have_one_form() {
    let host = host_with_functions();
    let head = "POST /cgi/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let broken = [
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\n\r\n",
        "100000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000005\r\nhello\r\n0\r\n\r\n",
    ];
    for body in broken {
        let mut connection = host.connect();
        let _ = connection.write(format!("{head}{body}{NEXT}").as_bytes());
        // The guest may have begun to answer.
        if let Ok(first) = connection.response() {
            let taken = first.status() == 200 && first.complete;
            assert!(!taken, "{body:?} was taken: {first:?}");
            assert!(first.status() < 500, "{body:?}: {first:?}");
        }
        let second = connection.response();
        assert!(second.is_err(), "{body:?}: {second:?}");
    }
    // What is right, in every way in which it can come.
    let right = "3\r\nhel\r\n02;ext=\"a b\"\r\nlo\r\n0\r\nx-trailer: y\r\n\r\n";
    for piece in [1, 2, 7, 1000] {
        let mut connection = host.connect();
        let bytes = format!("\r\n{head}{right}{NEXT}");
        for piece in bytes.as_bytes().chunks(piece) {
            connection.write(piece).expect("send");
        }
        connection.response().expect("an answer").assert_text("hello");
        connection.response().expect("the next answer").assert_text("still here");
    }
}

#[test]
fn a_refusal_waits_for_the_answers_before_it() {
    let host = host_with_functions();
    let mut connection = host.connect();
    connection.send(&Request::get("/cgi/sleep?ms=50")).expect("send");
    connection.write(b"GET /good/ HTTP/1.1\nhost: a\r\n\r\n").expect("send");
    connection.response().expect("the first answer").assert_text("slept\n");
    assert_eq!(connection.response().expect("the refusal").status(), 400);
    assert!(connection.is_closed());
}

#[test]
fn odd_requests_that_have_one_meaning_are_served() {
    let host = host_with_functions();
    let served = [
        "\r\nGET /good/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/good/ HTTP/1.1\r\nhost: A\r\n\r\n",
        "GET /good/?a=//b\\c|d HTTP/1.1\r\nHOST:a\r\n\r\n",
        "GET //good/ HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "PATCH /good/ HTTP/1.1\r\nhost: a\r\nContent-Length:\t 0 \r\n\r\n",
        "X-OWN /good/ HTTP/1.1\r\nhost: a\r\nx: \u{e9}\r\n\r\n",
        "POST /good/ HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    ];
    for bytes in served {
        let mut connection = host.connect();
        connection.write(format!("{bytes}{NEXT}").as_bytes()).expect("send");
        let first = connection.response().expect("an answer");
        // Two slashes are another path, and no function's.
        assert_eq!(first.status(), if bytes.contains(" //") { 404 } else { 200 }, "{bytes:?}");
        connection.response().expect("the next answer").assert_text("still here");
    }
}

#[test]
fn what_a_refused_client_reads_is_a_problem_document() {
    let host = host_with_functions();
    for (status, path) in [(414, format!("/good/{}", "x".repeat(9000))), (400, "*".to_owned())] {
        let mut connection = host.connect();
        let answer = connection.call(&Request::get(&path));
        let why = answer.assert_problem(status, "bad_request");
        assert!(why.starts_with("the request's path"), "{why}");
        assert_eq!(answer.header("connection"), Some("close"));
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(
            (&receipt["outcome"], &receipt["status"]),
            (&"bad_request".into(), &status.into())
        );
    }
}

#[test]
fn fields_that_are_for_the_neighbour_stay_with_it() {
    let host = host_with_functions();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let request = Request::get(&format!("/{name}/headers"))
            .header("connection", "keep-alive, X-Hop, host")
            .header("x-hop", "1")
            .header("x-whit-hops", "7 00112233445566778899aabbccddeeff")
            .header("x_whit_hops", "7")
            .header("te", "trailers")
            .header("x-end", "2");
        let request = request.header("connection", "te");
        let seen = host.call(&request).text().to_lowercase();
        assert!(seen.contains("x-end: 2"), "{name}: {seen}");
        for gone in ["x-hop:", "x-whit-hops", "te:"] {
            assert!(!seen.lines().any(|line| line.starts_with(gone)), "{name}: {gone} in {seen}");
        }
    }
}

#[test]
fn a_large_pipeline_of_small_requests_is_one_after_the_other() {
    let host = host_with_functions();
    let mut connection = Connection::open(host.address());
    let started = Instant::now();
    // Heads that end anywhere in what is read at once.
    let many: String = (0..500)
        .map(|number| {
            format!("GET /good/ HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(number))
        })
        .collect();
    let mut writer = connection.writer();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, many.as_bytes()).expect("send");
    });
    for _ in 0..500 {
        connection.response().expect("an answer").assert_text("still here");
    }
    sending.join().expect("all was sent");
    assert!(started.elapsed().as_secs() < 30);
}

#[test]
fn the_head_of_a_response_is_bounded() {
    let host = host_with_functions();
    for (name, component) in [("app", guests::http_02()), ("concurrent", guests::http_03())] {
        host.admin().deploy(name, component);
        assert_eq!(host.get(&format!("/{name}/fields?n=100")).header("x-99"), Some("y"));
        host.get(&format!("/{name}/fields?n=101")).assert_problem(502, "output_limit");
    }
}
