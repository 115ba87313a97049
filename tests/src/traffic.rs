//! Clients that do what clients do while a host stops, dies and starts again.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http::{Connection, Request, Response};
use crate::wait::eventually;

/// Pause before a client tries to connect again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// A client that sends the same request again and again. It connects anew where
/// nobody listens, where the last answer said that the connection closes, and
/// where the server closed it before anything was sent: no request is sent twice.
#[derive(Debug, Clone)]
pub struct Client {
    /// What it sends.
    pub request: Request,
    /// The body of every answer.
    pub expected: String,
    /// From one request to the next.
    pub pause: Duration,
    /// Whether it keeps its connection.
    pub keeps: bool,
}

impl Client {
    /// A client that keeps its connection.
    #[must_use]
    pub fn new(path: &str, expected: &str, pause: Duration) -> Self {
        Self { request: Request::get(path), expected: expected.to_owned(), pause, keeps: true }
    }

    /// The same with a new connection for each request.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.keeps = false;
        self
    }

    fn run(&self, address: &str, progress: &Progress) -> Seen {
        let mut seen = Seen::default();
        let mut kept: Option<Connection> = None;
        while !progress.done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let open = kept.take().filter(|kept| !kept.has_ended());
            let opened = open.map_or_else(|| Connection::try_open(address), Ok);
            let mut connection = match opened {
                Ok(connection) => connection,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    seen.refused += 1;
                    std::thread::park_timeout(RETRY_PAUSE);
                    continue;
                }
                Err(error) => {
                    seen.lost.push(format!("connect: {error}"));
                    continue;
                }
            };
            let sent = connection.send(&self.request);
            match sent.and_then(|()| connection.response()) {
                Err(error) => seen.lost.push(format!("{}: {error}", self.request.path)),
                Ok(answer) => {
                    seen.take(self, &answer);
                    progress.answers.fetch_add(1, Ordering::Relaxed);
                    let stays = self.keeps && answer.header("connection") != Some("close");
                    kept = (stays && answer.complete).then_some(connection);
                }
            }
            std::thread::park_timeout(self.pause.saturating_sub(begun.elapsed()));
        }
        seen
    }
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The id of each request that was answered as it should, and when.
    pub answered: Vec<(Instant, String)>,
    /// How often nobody listened.
    pub refused: u64,
    /// Requests that were not answered, or not to the end.
    pub lost: Vec<String>,
    /// Answers that were whole and not what they should be.
    pub wrong: Vec<String>,
}

impl Seen {
    fn take(&mut self, client: &Client, answer: &Response) {
        let path = &client.request.path;
        if !answer.complete {
            self.lost.push(format!("{path}: cut after {:?}", answer.text()));
        } else if (answer.status(), answer.text()) == (200, client.expected.clone()) {
            self.answered.push((Instant::now(), answer.request_id()));
        } else {
            self.wrong.push(format!("{path}: {} {}", answer.status(), answer.text()));
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.answered.extend(other.answered);
        self.refused += other.refused;
        self.lost.extend(other.lost);
        self.wrong.extend(other.wrong);
        self
    }
}

/// How far the clients are.
#[derive(Debug, Default)]
pub struct Progress {
    answers: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    /// Waits until there are so many more answers.
    pub fn wait_for(&self, answers: u64) {
        let until = self.answers.load(Ordering::Relaxed) + answers;
        eventually("more answers", || {
            (self.answers.load(Ordering::Relaxed) >= until).then_some(())
        });
    }
}

/// Sets the clients on a server while `work` is done, and returns what they saw
/// and what came of the work.
///
/// # Panics
/// When a client does, or `work`.
pub fn during<T>(
    address: &str,
    clients: &[Client],
    work: impl FnOnce(&Progress) -> T,
) -> (Seen, T) {
    /// Ends the clients, also when `work` has failed.
    struct End<'a>(&'a Progress);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.done.store(true, Ordering::Relaxed);
        }
    }
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let run = |client: &'_ Client| {
            let (client, progress) = (client.clone(), &progress);
            scope.spawn(move || client.run(address, progress))
        };
        let running: Vec<_> = clients.iter().map(run).collect();
        let end = End(&progress);
        let worked = work(&progress);
        drop(end);
        let ended = running.into_iter().map(|client| client.join().expect("a client"));
        (ended.fold(Seen::default(), Seen::add), worked)
    })
}
