//! Real servers on loopback, good and bad.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::capabilities::http::egress::{Destination, HostEgress, OwnListeners};
use crate::capabilities::http::hops::HopKey;

mod faults;
mod pool;
mod tls;

const SECOND: Duration = Duration::from_secs(1);

/// A server that answers each connection with what `serve` does.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that reads the head of a request, writes this, and stays.
async fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = Arc::new(answer.into());
    server(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            read_head(&mut stream).await;
            // The client may leave before the end.
            let _ = stream.write_all(&answer).await;
            std::future::pending::<()>().await;
        }
    })
    .await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn host(private: bool, own: OwnListeners) -> Arc<HostEgress> {
    HostEgress::new(private, own, Arc::new(HopKey::unused()))
}

fn egress(limits: EgressLimits, allow: &str, private: bool) -> Egress {
    let host = host(private, OwnListeners::default());
    Egress::with_limits(&[allow.parse().unwrap()], &host, limits)
}

fn request(url: &str) -> http::request::Builder {
    Request::builder().uri(url)
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn ask(
    egress: &Egress,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<WasiBody>, Sending), Error> {
    let destination = Destination::of(request.uri()).unwrap();
    let grant = egress.grant(&destination).unwrap();
    send(egress, &grant, request, Some(options)).await
}

/// Asks a loopback server with these limits.
async fn get(
    address: SocketAddr,
    limits: EgressLimits,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let url = format!("http://{address}");
    let request = request(&url).body(empty()).unwrap();
    let answer = ask(&egress(limits, &url, true), request, options).await;
    answer.map(|(response, _)| response)
}

async fn read(response: Response<WasiBody>) -> Result<Bytes, Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

#[track_caller]
fn named<T>(result: Result<T, Error>) -> String {
    format!("{:?}", result.err().expect("an error"))
}

fn streamed() -> (mpsc::Sender<&'static str>, WasiBody) {
    let (sender, mut chunks) = mpsc::channel::<&'static str>(1);
    let frames = futures::stream::poll_fn(move |context| {
        let chunk = chunks.poll_recv(context);
        chunk.map(|chunk| chunk.map(|text| Ok(Frame::data(Bytes::from(text)))))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let (seen, mut head) = mpsc::channel(1);
    let address = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            seen.send(read_head(&mut stream).await).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            // Chunks go back as they are, the last one included.
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    })
    .await;
    let (sender, body) = streamed();
    let url = format!("http://{address}/path?query");
    let request = request(&url)
        .method("POST")
        .header("host", address.to_string())
        .header("x-forwarded-for", "1.2.3.4")
        .header("forwarded", "for=1.2.3.4")
        .header("cdn-loop", "edge")
        .body(body)
        .unwrap();
    let egress = egress(EgressLimits::default(), &format!("http://{address}"), true);
    let (response, sending) = ask(&egress, request, RequestOptions::default()).await.unwrap();
    let head = head.recv().await.unwrap();
    assert!(head.starts_with("POST /path?query HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("cdn-loop: edge\r\n"), "{head}");
    assert!(!head.contains("forwarded"), "{head}");
    let mut body = response.into_body();
    for text in ["one", "two"] {
        sender.send(text).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    assert!(sending.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_is_dropped_is_closed() {
    // Tells when a connection is there, and when the client has closed it.
    let (opened, mut open) = mpsc::channel(1);
    let (closed, mut close) = mpsc::channel(1);
    let address = server(move |mut stream| {
        let (opened, closed) = (opened.clone(), closed.clone());
        async move {
            let head = read_head(&mut stream).await;
            if head.starts_with("POST") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.unwrap();
            }
            opened.send(()).await.unwrap();
            if head.contains("unread") {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let mut buffer = vec![0; 64 << 10];
            while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let url = format!("http://{address}");
    let egress = Arc::new(egress(EgressLimits::default(), &url, true));
    let options = RequestOptions::default();

    // While it waits for the head.
    let get = request(&url).body(empty()).unwrap();
    let asked = Arc::clone(&egress);
    let waiting = tokio::spawn(async move { ask(&asked, get, options).await.map(drop) });
    open.recv().await.unwrap();
    waiting.abort();
    tokio::time::timeout(SECOND, close.recv()).await.unwrap().unwrap();

    // With a response that nobody reads, and a request body without an end that
    // the server reads, or reads too late.
    for path in ["read", "unread"] {
        let chunk = Bytes::from_static(&[0; 64 << 10]);
        let endless = futures::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
        let body = StreamBody::new(endless).boxed_unsync();
        let post = request(&format!("{url}/{path}")).method("POST").body(body).unwrap();
        let (response, sending) = ask(&egress, post, options).await.unwrap();
        open.recv().await.unwrap();
        drop(response);
        tokio::time::timeout(SECOND, close.recv()).await.unwrap().unwrap();
        assert!(sending.await.is_err(), "the task was aborted");
    }
}

#[tokio::test]
async fn private_and_own_addresses_see_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port();
    let own = host(true, OwnListeners { admin: vec![address], ..Default::default() });
    let closed = host(false, OwnListeners::default());
    for host in [&own, &closed] {
        for name in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let url = format!("http://{name}:{port}");
            let limits = EgressLimits::default();
            let egress = Egress::with_limits(&[url.parse().unwrap()], host, limits);
            let request = request(&url).body(empty()).unwrap();
            let error = named(ask(&egress, request, RequestOptions::default()).await);
            assert_eq!(error, "DestinationIpProhibited", "{url}");
        }
    }
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
    drop(listener);
    let refused = get(address, EgressLimits::default(), RequestOptions::default()).await;
    assert_eq!(named(refused), "ConnectionRefused");
}

#[tokio::test]
async fn names_that_do_not_exist_are_told() {
    let url = "http://no-such-host.invalid";
    let request = request(url).body(empty()).unwrap();
    let egress = egress(EgressLimits::default(), url, true);
    let start = Instant::now();
    let error = named(ask(&egress, request, RequestOptions::default()).await);
    // The second one where the machine's resolver does not answer.
    assert!(error.starts_with("DnsError") || error == "DnsTimeout", "{error}");
    assert!(start.elapsed() < 3 * SECOND);
}
