//! Connections that are used again, and those that are not.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A server that answers `answers` requests on each connection, tells when one
/// is closed, and counts them.
async fn counting(answers: usize) -> (SocketAddr, Arc<AtomicUsize>, mpsc::Receiver<()>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let (closed, close) = mpsc::channel(100);
    let address = server(move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        let closed = closed.clone();
        async move {
            for _ in 0..answers {
                let mut byte = [0];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read(&mut byte).await, Ok(1)) {
                        closed.send(()).await.unwrap();
                        return;
                    }
                    head.push(byte[0]);
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                if stream.write_all(answer).await.is_err() {
                    break;
                }
            }
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    (address, connections, close)
}

async fn ask_once(egress: &Egress, url: &str, method: &str) -> Response<WasiBody> {
    let request = request(url).method(method).body(empty()).unwrap();
    ask(egress, request, RequestOptions::default()).await.unwrap().0
}

/// Until a connection waits for the next request: its task sees a moment later
/// than the reader that a response is over.
async fn kept(egress: &Egress, url: &str) {
    let destination = Destination::of(&url.parse().unwrap()).unwrap();
    let kept = async {
        loop {
            if let Some(open) = egress.pool.take(&destination, |_| true) {
                return egress.pool.put(destination, open);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SECOND, kept).await.unwrap();
}

#[tokio::test]
async fn the_next_request_of_the_same_function_has_the_same_connection() {
    let (address, connections, _close) = counting(100).await;
    let url = format!("http://{address}");
    let first = egress(EgressLimits::default(), &url, true);
    for method in ["GET", "POST", "GET"] {
        let answer = ask_once(&first, &url, method).await;
        assert_eq!(read(answer).await.unwrap(), "hello");
        kept(&first, &url).await;
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // Another function has its own.
    let second = egress(EgressLimits::default(), &url, true);
    assert_eq!(read(ask_once(&second, &url, "GET").await).await.unwrap(), "hello");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    // Two at the same time are two, and another name is another place.
    let both = [ask_once(&first, &url, "GET").await, ask_once(&first, &url, "GET").await];
    assert_eq!(connections.load(Ordering::Relaxed), 3);
    drop(both);
}

#[tokio::test]
async fn a_response_that_was_not_read_takes_its_connection_with_it() {
    let (address, connections, mut close) = counting(100).await;
    let url = format!("http://{address}");
    let egress = egress(EgressLimits::default(), &url, true);
    drop(ask_once(&egress, &url, "GET").await);
    tokio::time::timeout(SECOND, close.recv()).await.unwrap().unwrap();
    assert_eq!(read(ask_once(&egress, &url, "GET").await).await.unwrap(), "hello");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_not_used() {
    let (address, connections, mut close) = counting(1).await;
    let url = format!("http://{address}");
    let egress = egress(EgressLimits::default(), &url, true);
    for count in 1..=5 {
        let method = if count % 2 == 0 { "GET" } else { "DELETE" };
        assert_eq!(read(ask_once(&egress, &url, method).await).await.unwrap(), "hello");
        close.recv().await.unwrap();
        assert_eq!(connections.load(Ordering::Relaxed), count);
    }
}

/// A server that answers one request on each connection, and resets it when it has
/// read the next.
async fn resetting() -> SocketAddr {
    server(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        let _ = stream.read_u8().await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await
}

#[tokio::test]
async fn what_may_be_sent_twice_is_when_its_connection_is_reset() {
    let url = format!("http://{}", resetting().await);
    let egress = egress(EgressLimits::default(), &url, true);
    for _ in 1..=5 {
        assert_eq!(read(ask_once(&egress, &url, "GET").await).await.unwrap(), "hello");
        kept(&egress, &url).await;
    }
    let request = request(&url).method("POST").body(empty()).unwrap();
    let refused = ask(&egress, request, RequestOptions::default()).await;
    assert!(matches!(refused, Err(Error::ConnectionTerminated)), "a POST may not");
}

#[tokio::test]
async fn an_address_that_is_no_longer_good_is_left() {
    let (address, _, mut close) = counting(100).await;
    let url = format!("http://{address}");
    let egress = egress(EgressLimits::default(), &url, true);
    read(ask_once(&egress, &url, "GET").await).await.unwrap();
    kept(&egress, &url).await;
    let destination = Destination::of(&url.parse().unwrap()).unwrap();
    assert!(egress.pool.take(&destination, |used| used != address).is_none());
    tokio::time::timeout(SECOND, close.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_waits_too_long_is_closed() {
    let (address, _, mut close) = counting(100).await;
    let url = format!("http://{address}");
    let egress = egress(EgressLimits::default(), &url, true);
    read(ask_once(&egress, &url, "GET").await).await.unwrap();
    let start = Instant::now();
    tokio::time::timeout(10 * SECOND, close.recv()).await.unwrap().unwrap();
    assert!(start.elapsed() > 3 * SECOND, "{:?}", start.elapsed());
}
