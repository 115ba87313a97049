//! Servers that are slow, send too much, or break the protocol.

use super::*;

#[tokio::test]
async fn servers_that_say_nothing_are_given_up() {
    let silent = server(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let soon = Some(Duration::from_millis(100));
    let impatient = RequestOptions {
        connect_timeout: soon,
        first_byte_timeout: soon,
        ..RequestOptions::default()
    };
    let patient = RequestOptions {
        connect_timeout: Some(600 * SECOND),
        first_byte_timeout: Some(600 * SECOND),
        between_bytes_timeout: Some(600 * SECOND),
    };
    let short = EgressLimits {
        request_time_max: Duration::from_millis(100),
        connect_time_max: Duration::from_millis(100),
        ..EgressLimits::default()
    };
    for (limits, options, expected) in [
        (EgressLimits::default(), impatient, "ConnectionReadTimeout"),
        (short, patient, "HttpResponseTimeout"),
    ] {
        let start = Instant::now();
        let error = named(get(silent, limits, options).await);
        assert_eq!(error, expected);
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());

        let url = format!("https://{silent}");
        let request = request(&url).body(empty()).unwrap();
        let start = Instant::now();
        let error = named(ask(&egress(limits, &url, true), request, options).await);
        assert_eq!(error, "ConnectionTimeout", "TLS handshake");
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn bodies_that_stall_or_drip_are_given_up() {
    let stalling = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    for (silence, at_most) in [(0, 90), (100, 900)] {
        let options = RequestOptions {
            between_bytes_timeout: Some(Duration::from_millis(silence)),
            ..RequestOptions::default()
        };
        let response = get(stalling, EgressLimits::default(), options).await.unwrap();
        let start = Instant::now();
        assert_eq!(named(read(response).await), "ConnectionReadTimeout");
        let elapsed = start.elapsed().as_millis();
        assert!((u128::from(silence)..at_most).contains(&elapsed), "{elapsed}");
    }

    let dripping = server(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // As long as something comes it goes on: up to the limit in bytes, or the end
    // of the invocation.
    let limits = EgressLimits {
        request_time_max: Duration::from_millis(200),
        response_bytes_max: 20,
        ..EgressLimits::default()
    };
    let start = Instant::now();
    let response = get(dripping, limits, RequestOptions::default()).await.unwrap();
    assert_eq!(named(read(response).await), "HttpResponseBodySize(Some(20))");
    assert!(start.elapsed() > limits.request_time_max, "{:?}", start.elapsed());
}

#[tokio::test]
async fn responses_end_at_their_limit() {
    let limits = EgressLimits { response_bytes_max: 100_000, ..EgressLimits::default() };
    let answer = |bytes: usize, declared: bool| {
        let length = if declared { format!("content-length: {bytes}\r\n") } else { String::new() };
        let framing = if declared { "" } else { "transfer-encoding: chunked\r\n" };
        let mut answer = format!("HTTP/1.1 200 OK\r\n{length}{framing}\r\n").into_bytes();
        if declared {
            answer.resize(answer.len() + bytes, b'x');
        } else {
            answer.extend(format!("{bytes:x}\r\n").bytes());
            answer.resize(answer.len() + bytes, b'x');
            answer.extend(b"\r\n0\r\n\r\n");
        }
        answer
    };
    for declared in [true, false] {
        let address = answering(answer(100_000, declared)).await;
        let response = get(address, limits, RequestOptions::default()).await.unwrap();
        assert_eq!(read(response).await.unwrap().len(), 100_000);

        let address = answering(answer(100_001, declared)).await;
        let response = get(address, limits, RequestOptions::default()).await.unwrap();
        let error = named(read(response).await);
        assert_eq!(error, "HttpResponseBodySize(Some(100000))", "declared: {declared}");
    }
}

#[tokio::test]
async fn broken_answers_have_names() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(33_000));
    for (answer, expected) in [
        ("SSH-2.0-server\r\n\r\n", "HttpProtocolError"),
        (&long, "HttpResponseHeaderSectionSize(None)"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "HttpUpgradeFailed",
        ),
    ] {
        let address = answering(answer).await;
        let answer = get(address, EgressLimits::default(), RequestOptions::default()).await;
        let error = answer.err().map(|error| format!("{error:?}"));
        assert_eq!(error.as_deref(), Some(expected));
    }
    for (head, expected) in [
        ("", "ConnectionTerminated"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal", "HttpResponseIncomplete"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhal\r\n",
            "HttpResponseIncomplete",
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HttpResponseIncomplete"),
    ] {
        let address = server(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
        })
        .await;
        let answer = get(address, EgressLimits::default(), RequestOptions::default()).await;
        let error = match answer {
            Ok(response) => named(read(response).await),
            Err(error) => named::<()>(Err(error)),
        };
        assert_eq!(error, expected, "{head:?}");
    }
}
