//! HTTP/2: the same requests on another wire, and what clients can do there that
//! they can not do elsewhere.

use bytes::Bytes;
use http::{HeaderMap, Request};
use tests::http2::{Frame, GOAWAY, Http2, PREFACE, connect, field, frame, read, run};
use tests::{Host, guests};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::host;

fn host_with_functions() -> Host {
    let host = host().start();
    guests::deploy_all(&host);
    host
}

fn url(host: &Host, path: &str) -> String {
    format!("http://{}{path}", host.address())
}

fn head(path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// Speaks frames of its own making, after the preface and its settings.
async fn raw(host: &Host) -> TcpStream {
    let mut stream = connect(host.address()).await.expect("connect");
    stream.write_all(PREFACE).await.expect("send");
    stream.write_all(&frame(4, 0, 0, &[])).await.expect("send");
    stream
}

/// Sends the same bytes until the server has had enough. Returns how many bytes
/// that took, and what the server said last: the error of its GOAWAY, if any.
async fn flood(
    stream: TcpStream,
    mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> (usize, Option<u32>) {
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        for number in 0.. {
            let bytes = next(number);
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
            sent += bytes.len();
        }
        sent
    });
    let mut said = Vec::new();
    let mut goaway = None;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = reader.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..read]);
        while let Some(frame) = Frame::take(&mut said) {
            if frame.kind == GOAWAY {
                goaway = frame.code(4);
            }
        }
    }
    (sending.await.expect("the sender"), goaway)
}

#[test]
fn every_kind_of_guest_answers_as_over_http_1() {
    let host = host_with_functions();
    run(async {
        let mut client = Http2::open(host.address()).await;
        for (name, _, _) in guests::all() {
            let answer = client.get(&url(&host, &format!("/{name}/"))).await.expect("an answer");
            assert_eq!(
                (answer.status().as_u16(), answer.body().as_str()),
                (200, &*format!("{name}\n"))
            );
            assert_eq!(answer.headers()["x-request-id"].len(), 32);
            let echo =
                Request::post(url(&host, &format!("/{name}/echo?q"))).body(()).expect("a request");
            let answer = client.call(echo, "sent and returned").await.expect("an answer");
            assert_eq!(answer.body(), "sent and returned", "{name}");
            let seen =
                client.get(&url(&host, &format!("/{name}/url?a=b"))).await.expect("an answer");
            assert_eq!(seen.body(), "/url?a=b\n", "{name}");
            let big = client.get(&url(&host, &format!("/{name}/big?bytes=3000000"))).await;
            assert_eq!(big.expect("a large answer").body().len(), 3_000_000, "{name}");
        }
        // A host header is the same as the authority, or wrong.
        for (own, status) in [(host.address(), 200), ("other", 400)] {
            let request = Request::get(url(&host, "/cgi-rust/env")).header("host", own);
            let answer =
                client.call(request.body(()).expect("a request"), "").await.expect("an answer");
            assert_eq!(answer.status(), status);
            let told = format!("HTTP_HOST={}\n", host.address());
            assert!(status != 200 || answer.body().contains(&told), "{}", answer.body());
        }
        let missing = client.get(&url(&host, "/nowhere")).await.expect("an answer");
        assert_eq!(missing.status(), 404);
        let long = client.get(&url(&host, &format!("/{}", "x".repeat(9000)))).await;
        assert_eq!(long.expect("an answer").status(), 414);
        // None of it has ended the connection.
        assert!(!client.connection.is_finished());
    });
}

#[test]
fn requests_of_one_connection_run_at_the_same_time() {
    let host = host_with_functions();
    run(async {
        let mut client = Http2::open(host.address()).await;
        let slow =
            Request::get(url(&host, "/wasip2-raw/sleep?ms=3600000")).body(()).expect("a request");
        let (slow, mut slow_stream) = client.send(slow, true).await.expect("send");
        let quick = client.get(&url(&host, "/wasip3-raw/")).await.expect("an answer");
        assert_eq!(quick.body(), "wasip3-raw\n");
        // A stream that is reset ends its guest, and no other.
        slow_stream.send_reset(h2::Reason::CANCEL);
        drop(slow);
        let quick = client.get(&url(&host, "/wasip2-raw/")).await.expect("an answer");
        assert_eq!(quick.status(), 200);
        assert_eq!(host.admin().receipts("wasip2-raw", "client_gone", 1).len(), 1);
    });
    host.admin().metric_becomes("whit_invocations_running", 0.0);
}

#[test]
fn trailers_go_both_ways_without_what_is_ours() {
    let host = host_with_functions();
    run(async {
        let mut client = Http2::open(host.address()).await;
        for name in ["wasip2-raw", "wasip3-raw"] {
            let request = Request::get(url(&host, &format!("/{name}/trailers"))).body(());
            let (answer, _) = client.send(request.expect("a request"), true).await.expect("send");
            let mut body = answer.await.expect("an answer").into_body();
            assert_eq!(&read(&mut body).await.expect("a body")[..], b"body\n");
            let trailers = body.trailers().await.expect("trailers").expect("trailers");
            assert_eq!(trailers["x-checksum"], "7");
            // A request with trailers, the host's own among them, is a request.
            let request = Request::post(url(&host, &format!("/{name}/echo"))).body(());
            let (answer, mut sending) =
                client.send(request.expect("a request"), false).await.expect("send");
            sending.send_data(Bytes::from_static(b"hello"), false).expect("send");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-whit-hops", "8 00".parse().expect("a value"));
            sending.send_trailers(trailers).expect("send");
            let mut body = answer.await.expect("an answer").into_body();
            assert_eq!(&read(&mut body).await.expect("a body")[..], b"hello");
        }
    });
}

#[test]
fn a_client_that_takes_nothing_of_one_response_holds_up_that_one_and_not_for_ever() {
    let host = host().set("response_stall_max", "300ms").start();
    host.admin().deploy("big", guests::http_02());
    run(async {
        let stream = connect(host.address()).await.expect("connect");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1000);
        let mut client = Http2::new(stream, &builder).await.expect("HTTP/2");
        let request =
            Request::get(url(&host, "/big/big?bytes=10000000")).body(()).expect("a request");
        let (answer, _) = client.send(request, true).await.expect("send");
        let mut body = answer.await.expect("an answer").into_body();
        // Nothing is released: the window stays shut.
        let mut bytes = 0;
        let error = loop {
            match body.data().await {
                Some(Ok(chunk)) => bytes += chunk.len(),
                Some(Err(error)) => break error,
                None => panic!("the response came through a shut window"),
            }
        };
        assert_eq!(bytes, 1000);
        assert!(error.is_reset(), "{error}");
        let other = client.get(&url(&host, "/big/")).await.expect("an answer");
        assert_eq!(other.status(), 200);
    });
    host.admin().metric_becomes("whit_invocations_running", 0.0);
}

#[test]
fn a_host_that_stops_says_so_and_finishes() {
    let host = host_with_functions();
    run(async {
        let mut client = Http2::open(host.address()).await;
        let request =
            Request::get(url(&host, "/wasip2-raw/stream?n=5")).body(()).expect("a request");
        let (answer, _) = client.send(request, true).await.expect("send");
        let mut body = answer.await.expect("an answer").into_body();
        host.terminate();
        let text = read(&mut body).await.expect("the whole body");
        assert!(text.ends_with(b"line 5\n"));
        let ended = client.connection.await.expect("the connection");
        assert!(ended.is_ok(), "{ended:?}");
    });
    host.finish();
}

/// What a client sends again and again, by number.
type Attack = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

#[test]
fn floods_end_the_connection_and_nobody_elses() {
    let host = host_with_functions();
    let mark = host.mark_memory();
    let begin = head("/wasip2-raw/sleep?ms=1000");
    let rapid_reset = {
        let begin = begin.clone();
        move |number: u32| {
            let stream = 2 * number + 1;
            [frame(1, 5, stream, &begin), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
        }
    };
    // A request whose window is then overrun: the server has to reset it.
    let made_you_reset = move |number: u32| {
        let stream = 2 * number + 1;
        [frame(1, 5, stream, &begin), frame(8, 0, stream, &0_u32.to_be_bytes())].concat()
    };
    let continuations = |number: u32| match number {
        0 => frame(1, 1, 1, &head("/")),
        _ => frame(9, 0, 1, &field(&format!("x-{number}"), &"y".repeat(100))),
    };
    let pings = |_| frame(6, 0, 0, &[0; 8]).repeat(100);
    let settings = |_| frame(4, 0, 0, &[]).repeat(100);
    let priorities = |_| frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(100);
    let unknown = |_| frame(200, 0, 0, &[]).repeat(100);
    let attacks: [(&str, Attack); 7] = [
        ("rapid reset", Box::new(rapid_reset)),
        ("made you reset", Box::new(made_you_reset)),
        ("continuations", Box::new(continuations)),
        ("pings", Box::new(pings)),
        ("settings", Box::new(settings)),
        ("priorities", Box::new(priorities)),
        ("unknown frames", Box::new(unknown)),
    ];
    for (name, attack) in attacks {
        let (sent, goaway) = run(async { flood(raw(&host).await, attack).await });
        println!("{name}: cut after {sent} bytes, GOAWAY {goaway:?}");
        assert!(sent < 16 << 20, "{name}: {sent} bytes were taken");
        host.get("/wasip3-raw/").assert_text("wasip3-raw\n");
    }
    host.admin().metric_becomes("whit_invocations_running", 0.0);
    let growth = host.growth_bytes(mark);
    assert!(growth < 64 << 20, "the host grew by {growth} bytes");
}

#[test]
fn heads_are_bounded() {
    let host = host_with_functions();
    run(async {
        let mut client = Http2::open(host.address()).await;
        let request = Request::get(url(&host, "/wasip2-raw/")).header("x-long", "y".repeat(40_000));
        let answer = client.call(request.body(()).expect("a request"), "").await;
        match answer {
            Ok(answer) => assert_eq!(answer.status(), 431),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
        }
        let mut client = Http2::open(host.address()).await;
        let mut request = Request::get(url(&host, "/wasip2-raw/"));
        for number in 0..2000 {
            request = request.header(format!("x-{number}"), "y");
        }
        let answer = client.call(request.body(()).expect("a request"), "").await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
    });
    host.get("/wasip2-raw/").assert_text("wasip2-raw\n");
}
