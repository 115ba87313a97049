//! Many clients in a process of their own, so that their descriptors and their
//! work are not the test's: `crowd KIND ADDRESS COUNT`. It says `open` once all
//! are connected, goes on until its standard input ends, and says then how many
//! `closed` connections it saw and how many were `answered` last.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

const HELLO: &[u8] = b"GET /hello/ HTTP/1.1\r\nhost: crowd\r\n\r\n";
/// Descriptors besides the connections.
const DESCRIPTORS_SPARE: u64 = 64;
/// Clients that connect at the same time.
const CONNECTING_MAX: usize = 64;

/// What a slow client does once it has sent what it sends.
#[derive(Clone, Copy)]
enum Then {
    /// Waits for the other side to close.
    Waits,
    /// Sends one more byte, so many milliseconds after the other.
    Drips(u64),
    /// Takes nothing of what comes, for so many seconds.
    TakesNothing(u64),
}

const BODY: &str = "POST /slow/echo HTTP/1.1\r\nhost: crowd\r\ncontent-length: 1000000\r\n\r\n";
const SLOW: [(&str, Then); 8] = [
    ("", Then::Waits),
    ("G", Then::Waits),
    ("GET /hello/ HTTP/1.1\r\nhost: crowd\r\nx-slow: ", Then::Drips(500)),
    ("GET /hel", Then::Drips(1500)),
    (BODY, Then::Waits),
    (BODY, Then::Drips(300)),
    ("GET /slow/big?bytes=30000000 HTTP/1.1\r\nhost: crowd\r\n\r\n", Then::TakesNothing(3)),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Then::Waits),
];

/// What all clients share.
struct Crowd {
    address: String,
    connecting: Semaphore,
    open: AtomicUsize,
    closed: AtomicUsize,
    answered: AtomicUsize,
    done: watch::Receiver<bool>,
}

impl Crowd {
    async fn connect(&self) -> TcpStream {
        let _turn = self.connecting.acquire().await.expect("a turn");
        let stream = TcpStream::connect(&self.address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    async fn done(&self) {
        self.done.clone().wait_for(|done| *done).await.expect("an end");
    }

    /// Asks once, waits, and asks once more.
    async fn idle(&self) {
        let mut stream = self.connect().await;
        assert!(ask(&mut stream).await, "the first answer");
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut more = [0];
        tokio::select! {
            _ = stream.read(&mut more) => {
                self.closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            () = self.done() => {}
        }
        let _turn = self.connecting.acquire().await.expect("a turn");
        self.answered.fetch_add(usize::from(ask(&mut stream).await), Ordering::Relaxed);
    }

    /// Is slow in one of the ways, again and again.
    async fn slow(&self, (start, then): (&str, Then)) {
        let mut first = true;
        while !*self.done.borrow() {
            let mut stream = self.connect().await;
            // The other side may close whenever it likes.
            let _ = stream.write_all(start.as_bytes()).await;
            if std::mem::take(&mut first) {
                self.open.fetch_add(1, Ordering::Relaxed);
            }
            tokio::select! {
                () = drag_on(&mut stream, then) => {
                    self.closed.fetch_add(1, Ordering::Relaxed);
                }
                () = self.done() => {}
            }
        }
    }
}

/// Returns when the other side has closed the connection, or it is time to.
async fn drag_on(stream: &mut TcpStream, then: Then) {
    match then {
        Then::Waits => while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {},
        Then::Drips(pause_ms) => {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        Then::TakesNothing(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
}

async fn ask(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let mut asked = stream.write_all(HELLO).await.is_ok();
    while asked && !answer.ends_with(b"hello") {
        asked = stream.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0);
    }
    asked && answer.starts_with(b"HTTP/1.1 200 ")
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, address, count] = arguments.as_slice() else { panic!("usage: see its source") };
    let count: usize = count.parse().expect("a count");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("descriptors");
    let possible = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        possible >= count as u64 + DESCRIPTORS_SPARE,
        "{count} connections need more than the {possible} open files that are allowed here"
    );
    let (end, done) = watch::channel(false);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.send(true)
    });
    let crowd = Arc::new(Crowd {
        address: address.clone(),
        connecting: Semaphore::new(CONNECTING_MAX),
        open: AtomicUsize::new(0),
        closed: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        done,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let clients = (0..count).map(|number| {
            let (crowd, is_idle) = (Arc::clone(&crowd), kind == "idle");
            tokio::spawn(async move {
                match is_idle {
                    true => crowd.idle().await,
                    false => crowd.slow(SLOW[number % SLOW.len()]).await,
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        while crowd.open.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("open");
        for client in clients {
            client.await.expect("a client");
        }
    });
    let [closed, answered] = [&crowd.closed, &crowd.answered].map(|n| n.load(Ordering::Relaxed));
    println!("{closed} {answered}");
}
