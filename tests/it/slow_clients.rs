//! Clients that hold a connection and do nothing with it: each is let go, in the
//! time that the configuration gives it, and without harm to others.

use std::time::{Duration, Instant};

use tests::http2::{Certificate, run};
use tests::{Connection, Host, Request, guests};

use crate::host;

/// What each kind of waiting may take here.
const PATIENCE: &str = "400ms";
const AT_LEAST: Duration = Duration::from_millis(390);
/// Of a response that its client does not take: what the host and the kernel have
/// room for, on both sides.
const TAKEN_BYTES_MAX: u64 = 1 << 20;

fn start() -> Host {
    let host = host()
        .set("head_time_max", PATIENCE)
        .set("idle_time_max", PATIENCE)
        .set("body_stall_max", PATIENCE)
        .set("response_stall_max", PATIENCE)
        .start();
    host.admin().deploy("app", guests::http_02());
    host
}

#[test]
fn every_slow_shape_is_closed_in_its_time() {
    let host = start();
    let shapes: [(&str, &str); 8] = [
        ("no byte", ""),
        ("one byte", "G"),
        ("one byte of the preface of HTTP/2", "P"),
        ("a part of a line", "GET /app/"),
        ("a part of a head", "GET /app/ HTTP/1.1\r\nhost: a\r\nx-sl"),
        ("a part of the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM"),
        ("the preface of HTTP/2 and nothing else", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a part of a second head", "GET /app/ HTTP/1.1\r\nhost: a\r\n\r\nGET /"),
    ];
    let started = Instant::now();
    let mut connections: Vec<(&str, Connection)> = shapes
        .map(|(name, bytes)| {
            let mut connection = host.connect();
            connection.write(bytes.as_bytes()).expect("send");
            (name, connection)
        })
        .into();
    host.get("/app/").assert_text("wasip2-raw\n");
    for (name, connection) in &mut connections {
        // What they were answered before, if anything.
        while connection.response().is_ok() {}
        let after = started.elapsed();
        assert!(connection.is_closed(), "{name}");
        assert!(after >= AT_LEAST, "{name}: closed after {after:?}");
    }
}

#[test]
fn a_connection_without_a_request_is_closed_after_its_idle_time() {
    let host = start();
    let mut connection = host.connect();
    connection.call(&Request::get("/app/")).assert_text("wasip2-raw\n");
    let idle_since = Instant::now();
    assert!(connection.is_closed());
    assert!(idle_since.elapsed() >= AT_LEAST);
}

#[test]
fn a_head_that_keeps_coming_slowly_is_cut_off_too() {
    let host = start();
    let mut connection = host.connect();
    let mut writer = connection.writer();
    let started = Instant::now();
    // A byte from time to time does not make the head come any sooner.
    let sending = std::thread::spawn(move || {
        use std::io::Write as _;
        let head = format!("GET /app/ HTTP/1.1\r\nx: {}", "y".repeat(10_000));
        for byte in head.as_bytes() {
            if writer.write_all(&[*byte]).is_err() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    });
    assert!(connection.is_closed());
    assert!(started.elapsed() >= AT_LEAST);
    assert!(sending.join().expect("the sender"), "the whole head was taken");
}

#[test]
fn a_body_that_stalls_ends_the_request_and_one_that_goes_on_does_not() {
    let host = start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let mut connection = host.connect();
        let request = Request::new("POST", &format!("/{name}/echo"));
        connection.send_head(&request.header("content-length", "100")).expect("send");
        connection.write(b"some of it").expect("send");
        let started = Instant::now();
        if let Ok(answer) = connection.response() {
            assert!(answer.status() == 400 || !answer.complete, "{name}: {answer:?}");
        }
        assert!(started.elapsed() >= AT_LEAST, "{name}: after {:?}", started.elapsed());
        assert!(connection.is_closed(), "{name}");
        assert_eq!(host.admin().receipts(name, "bad_request", 1).len(), 1, "{name}");
        // Slower than that in all, but never silent for so long.
        let mut connection = host.connect();
        connection.send_chunked(&Request::new("POST", &format!("/{name}/echo"))).expect("send");
        for _ in 0..6 {
            connection.chunk(b"part ").expect("send");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        connection.chunk(b"").expect("send");
        connection.response().expect("an answer").assert_text(&"part ".repeat(6));
    }
    host.admin().metric_becomes("whit_invocations_running", 0.0);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let host = start();
    let mut connection = host.connect();
    // More than all buffers between here and there.
    connection.send(&Request::get("/app/big?bytes=40000000")).expect("send");
    connection.head().expect("a head");
    host.admin().metric_becomes("whit_invocations_running", 0.0);
    let receipts = host.admin().json("/v1/invocations?function=app");
    let receipt = &receipts["items"][0];
    assert_ne!(receipt["outcome"], "ok", "{receipts}");
    // What is kept for it is little, and so is what was made in vain.
    let taken = receipt["response_bytes"].as_u64().expect("a number");
    assert!(taken <= TAKEN_BYTES_MAX, "{receipts}");
}

#[test]
fn a_handshake_that_stalls_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = Certificate::new(folder.path());
    let host = host()
        .set("tls_cert", certificate.certificate.display())
        .set("tls_key", certificate.key.display())
        .set("head_time_max", PATIENCE)
        .start();
    let started = Instant::now();
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut connection = host.connect();
        connection.write(bytes).expect("send");
        assert!(connection.is_closed());
    }
    assert!(started.elapsed() >= AT_LEAST);
    run(async {
        // Secured, and then silent.
        let mut stream = certificate.connect(host.address(), &["h2"]).await.expect("TLS");
        let mut rest = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        assert!(ended.is_err() || rest.is_empty());
    });
}

#[test]
fn connections_are_bounded_and_the_next_waits_for_one_that_leaves() {
    let host = host().set("connections_max", 3).start();
    host.admin().deploy("app", &guests::answering("hello"));
    let mut open: Vec<Connection> = (0..3).map(|_| host.connect()).collect();
    for connection in &mut open {
        connection.call(&Request::get("/app/")).assert_text("hello");
    }
    // The kernel takes it; the host does not.
    let mut waiting = host.connect();
    waiting.send(&Request::get("/app/")).expect("send");
    for connection in &mut open {
        connection.call(&Request::get("/app/")).assert_text("hello");
    }
    assert_eq!(host.admin().receipts("app", "ok", 6).len(), 6);
    open.pop();
    waiting.response().expect("an answer").assert_text("hello");
}
