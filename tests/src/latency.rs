//! How long a victim waits while somebody else has the host.

use std::time::{Duration, Instant};

use crate::host::Host;
use crate::http::Request;

/// Times of answers, all of which were right.
#[derive(Debug, Clone)]
pub struct Latency(Vec<Duration>);

impl Latency {
    /// Sends a request every `pause`, `count` times, from several clients, half of
    /// them on connections that stay and half on new ones, and expects this answer.
    /// Requests that are due are sent whether the last was slow or not: the
    /// time of each counts from when it was due.
    ///
    /// # Panics
    /// When an answer is not as expected.
    #[must_use]
    #[track_caller]
    pub fn measure(host: &Host, path: &str, expected: &str, count: u32, pause: Duration) -> Self {
        const CLIENTS: u32 = 8;
        let each = |client: u32| {
            let late = pause * client;
            Self::one(host, path, expected, count / CLIENTS, pause * CLIENTS, late)
        };
        let times = std::thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|client| scope.spawn(move || each(client)));
            let clients: Vec<_> = clients.collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        Self::of(times)
    }

    /// Of times that were measured elsewhere.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn one(
        host: &Host,
        path: &str,
        expected: &str,
        count: u32,
        pause: Duration,
        late: Duration,
    ) -> Vec<Duration> {
        let request = Request::get(path);
        let mut connection = host.connect();
        let started = Instant::now() + late;
        let times = (0..count).map(|number| {
            let due = started + pause * number;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(early);
            }
            let answer = match number % 2 {
                0 => connection.call(&request),
                _ => host.call(&request),
            };
            answer.assert_text(expected);
            due.elapsed()
        });
        times.collect()
    }

    /// The time that this part of all stayed below.
    #[must_use]
    pub fn percentile(&self, part: f64) -> Duration {
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "an index")]
        let at = (self.0.len() as f64 * part) as usize;
        self.0[at.min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most, worst] = [0.5, 0.99, 1.0].map(|part| self.percentile(part));
        write!(formatter, "median {half:.1?}, p99 {most:.1?}, worst {worst:.1?}")
    }
}
