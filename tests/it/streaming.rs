//! Bodies flow in both directions, as they come, through every kind of guest.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Connection, Request, guests};

use crate::host;

const MIB: u64 = 1 << 20;
/// Most that the host may grow by while a large body passes through it.
const GROWTH_BYTES_MAX: u64 = 32 * MIB;

#[test]
fn lines_arrive_as_they_are_printed() {
    const LINES: usize = 8;
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
        let mut connection = host.connect();
        let request = Request::get(&format!("/{name}/stream?n={LINES}"));
        connection.send(&request).expect("send");
        assert_eq!(connection.head().expect("a head").status, 200);
        let arrived: Vec<(Instant, String)> = connection.lines().collect();
        let texts: Vec<&str> = arrived.iter().map(|(_, text)| text.as_str()).collect();
        let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
        assert_eq!(texts, expected, "{name}");
        // The guest waits 100 ms after each: all at once would be none of that.
        let spread = arrived[LINES - 1].0 - arrived[0].0;
        let expected = Duration::from_millis(100) * (LINES as u32 - 1);
        assert!(spread > expected / 2, "{name}: {LINES} lines within {spread:?}");
    }
}

#[test]
fn what_is_sent_comes_back_before_more_is_sent() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let mut connection = host.connect();
        connection.send_chunked(&Request::new("POST", &format!("/{name}/echo"))).expect("send");
        let mut said = b"first".to_vec();
        connection.chunk(&said).expect("send");
        assert_eq!(connection.head().expect("a head").status, 200);
        for round in 0..20 {
            let mut heard = Vec::new();
            while heard.len() < said.len() {
                let piece = connection.piece().expect("a piece").expect("more");
                heard.extend_from_slice(&piece);
            }
            assert_eq!(heard, said, "{name}");
            said = format!("round {round}").into_bytes();
            connection.chunk(&said).expect("send");
        }
        connection.chunk(b"").expect("send");
        let mut rest = Vec::new();
        while let Some(piece) = connection.piece().expect("a whole body") {
            rest.extend_from_slice(&piece);
        }
        assert_eq!(rest, said, "{name}");
    }
}

#[test]
fn a_large_body_passes_through_without_the_host_growing() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        let spec = json!({
            "request_body": "64MiB", "response_body": "64MiB", "timeout": "2m", "cpu": "2m",
        });
        host.admin().deploy_with_spec(name, component, &spec);
        let path = format!("/{name}/echo");
        // Loaded and used once: what remains is what a request costs.
        assert_eq!(echo(&mut host.connect(), &path, MIB), MIB, "{name}");
        let before = host.mark_memory();
        assert_eq!(echo(&mut host.connect(), &path, 64 * MIB), 64 * MIB, "{name}");
        let grown = host.growth_bytes(before);
        assert!(grown < GROWTH_BYTES_MAX, "{name}: the host grew by {} MiB", grown / MIB);
    }
}

#[test]
fn an_upload_of_a_gibibyte_does_not_grow_the_host() {
    let host = host().start();
    let spec = json!({ "request_body": "1GiB", "timeout": "5m", "cpu": "5m" });
    host.admin().deploy_with_spec("sink", &guests::wat("sink"), &spec);
    host.call(&Request::post("/sink/", "a little")).assert_text("all read");
    let before = host.mark_memory();
    let mut connection = host.connect();
    let request = Request::new("POST", "/sink/");
    connection.send_head(&request.header("content-length", "1073741824")).expect("send");
    let block = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        connection.write(&block).expect("send");
    }
    let answer = connection.response().expect("an answer");
    answer.assert_text("all read");
    let grown = host.growth_bytes(before);
    assert!(grown < GROWTH_BYTES_MAX, "the host grew by {} MiB", grown / MIB);
    let receipt = host.admin().receipt(&answer.request_id());
    assert_eq!(receipt["request_bytes"], 1024 * MIB);
}

#[test]
fn a_response_of_a_gibibyte_does_not_grow_the_host() {
    let host = host().start();
    let spec = json!({ "response_body": "2GiB", "timeout": "5m", "cpu": "5m" });
    host.admin().deploy_with_spec("big", guests::http_02(), &spec);
    host.get("/big/").assert_text("wasip2-raw\n");
    let before = host.mark_memory();
    let mut connection = host.connect();
    connection.send(&Request::get("/big/big?bytes=1073741824")).expect("send");
    assert_eq!(connection.head().expect("a head").status, 200);
    let (xs, mut received) = (vec![b'x'; 64 << 10], 0);
    while let Some(piece) = connection.piece().expect("a whole body") {
        let same = piece.chunks(xs.len()).all(|part| part == &xs[..part.len()]);
        assert!(same, "something else after {received} bytes");
        received += piece.len() as u64;
    }
    assert_eq!(received, 1024 * MIB);
    let grown = host.growth_bytes(before);
    assert!(grown < GROWTH_BYTES_MAX, "the host grew by {} MiB", grown / MIB);
}

#[test]
fn a_client_that_does_not_read_holds_up_the_guest_and_not_the_host() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        let spec = json!({ "response_body": "1GiB", "timeout": "1s" });
        host.admin().deploy_with_spec(name, component, &spec);
        let mut connection = host.connect();
        let before = host.mark_memory();
        connection.send(&Request::get(&format!("/{name}/big?bytes=1000000000"))).expect("send");
        assert_eq!(connection.head().expect("a head").status, 200);
        // Nothing is read until the guest's time is over.
        let receipts = host.admin().receipts(name, "timeout", 1);
        let sent = receipts[0]["response_bytes"].as_u64().unwrap_or_default();
        assert!(sent < 64 * MIB, "{name}: {sent} bytes went nowhere");
        let grown = host.growth_bytes(before);
        assert!(grown < GROWTH_BYTES_MAX, "{name}: the host grew by {} MiB", grown / MIB);
    }
}

/// Sends that many bytes and reads them back at the same time; returns how many
/// came back as they were sent.
fn echo(connection: &mut Connection, path: &str, bytes: u64) -> u64 {
    let chunk: Vec<u8> = (0..64 << 10).map(|index: u32| (index % 251) as u8).collect();
    let mut writer = connection.writer();
    let request = Request::new("POST", path).header("content-length", &bytes.to_string());
    connection.send_head(&request).expect("send");
    let sent = chunk.clone();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let mut left = bytes;
        while left > 0 {
            let length = left.min(sent.len() as u64) as usize;
            writer.write_all(&sent[..length]).expect("send the body");
            left -= length as u64;
        }
    });
    assert_eq!(connection.head().expect("a head").status, 200);
    let mut received = 0_u64;
    while let Some(piece) = connection.piece().expect("a whole body") {
        let mut piece = piece.as_slice();
        while !piece.is_empty() {
            let expected = &chunk[(received % chunk.len() as u64) as usize..];
            let length = expected.len().min(piece.len());
            assert!(piece[..length] == expected[..length], "another byte after {received}");
            piece = &piece[length..];
            received += length as u64;
        }
    }
    sender.join().expect("the sender");
    received
}
