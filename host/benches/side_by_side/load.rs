//! The load generator: one thread that keeps some connections busy, each with
//! one request at a time, and notes how long every answer took.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http::Parser;

/// A server that answers nobody for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Where a connection's buffer starts; it grows to the largest response.
const BUFFER_BYTES: usize = 32 << 10;
/// More broken connections than this in a row end the run.
const BROKEN_MAX: u64 = 1000;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Answered(u64),
}

/// Which of several requests comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    InTurn,
    Random,
}

/// What was seen in one stretch of load.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// Broken connections, answers other than 200, bodies of another length.
    pub(crate) errors: u64,
    /// Of each good answer, in nanoseconds; sorted.
    latencies_ns: Vec<u32>,
}

impl Sample {
    /// Good answers.
    pub(crate) fn answered(&self) -> u64 {
        self.latencies_ns.len() as u64
    }

    /// Good answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this part of the answers did not exceed, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.latencies_ns.get(at).map_or(f64::NAN, |ns| f64::from(*ns) / 1e6)
    }
}

struct Connection {
    stream: TcpStream,
    /// Index of the request on its way.
    request: usize,
    written: usize,
    sent: Instant,
    buffer: Vec<u8>,
    filled: usize,
    parser: Parser,
    busy: bool,
}

/// The generator. Its connections stay open from one stretch to the next.
pub(crate) struct Load<'a> {
    address: SocketAddr,
    requests: &'a [Vec<u8>],
    /// Length of a right answer's body.
    body_bytes: usize,
    order: Order,
    next: usize,
    poll: Poll,
    connections: Vec<Connection>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        address: SocketAddr,
        requests: &'a [Vec<u8>],
        body_bytes: usize,
        order: Order,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..connections)
            .map(|index| connect(address, &poll, index))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { address, requests, body_bytes, order, next: 0, poll, connections })
    }

    /// Loads the server. Requests that are on their way at the end of a stretch
    /// of time are counted in the next one.
    pub(crate) fn run(&mut self, until: Until) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        let mut events = Events::with_capacity(1024);
        let started = Instant::now();
        let mut left = match until {
            Until::Elapsed(_) => u64::MAX,
            Until::Answered(count) => count,
        };
        for index in 0..self.connections.len() {
            self.send(index, &mut left, &mut sample)?;
        }
        loop {
            self.poll.poll(&mut events, Some(SILENCE_MAX))?;
            if events.is_empty() {
                bail!("{} answered nothing for {SILENCE_MAX:?}", self.address);
            }
            for event in &events {
                self.serve(event.token().0, &mut left, &mut sample)?;
            }
            if sample.errors > BROKEN_MAX && sample.errors > sample.answered() {
                bail!("{} answers with errors", self.address);
            }
            let done = match until {
                Until::Elapsed(time) => started.elapsed() >= time,
                Until::Answered(_) => left == 0 && self.connections.iter().all(|one| !one.busy),
            };
            if done {
                break;
            }
        }
        sample.elapsed = started.elapsed();
        sample.latencies_ns.sort_unstable();
        Ok(sample)
    }

    /// Starts a connection's next request, if it is idle and one is left.
    fn send(&mut self, index: usize, left: &mut u64, sample: &mut Sample) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        if connection.busy || *left == 0 {
            return Ok(());
        }
        *left -= 1;
        connection.request = match self.order {
            Order::InTurn => self.next % self.requests.len(),
            Order::Random => fastrand::usize(..self.requests.len()),
        };
        self.next += 1;
        connection.busy = true;
        connection.written = 0;
        connection.filled = 0;
        connection.parser.reset();
        connection.sent = Instant::now();
        if !connection.write(self.requests)? {
            self.reconnect(index, sample)?;
        }
        Ok(())
    }

    /// Goes on with a connection that may be written to or read from.
    fn serve(&mut self, index: usize, left: &mut u64, sample: &mut Sample) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        if !connection.busy {
            // A new one, after the old one broke.
            return self.send(index, left, sample);
        }
        if !connection.write(self.requests)? {
            return self.reconnect(index, sample);
        }
        match connection.read()? {
            Progress::Waiting => return Ok(()),
            Progress::Broken => self.reconnect(index, sample)?,
            Progress::Answered(status) => {
                connection.busy = false;
                if status == 200 && connection.parser.body_bytes() == self.body_bytes {
                    let nanoseconds = connection.sent.elapsed().as_nanos();
                    sample.latencies_ns.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
                } else {
                    sample.errors += 1;
                }
            }
        }
        self.send(index, left, sample)
    }

    fn reconnect(&mut self, index: usize, sample: &mut Sample) -> anyhow::Result<()> {
        sample.errors += 1;
        if sample.errors > BROKEN_MAX && sample.errors > sample.answered() {
            bail!("{} breaks connections off", self.address);
        }
        if let Some(connection) = self.connections.get_mut(index) {
            *connection = connect(self.address, &self.poll, index)?;
        }
        Ok(())
    }
}

fn connect(address: SocketAddr, poll: &Poll, index: usize) -> io::Result<Connection> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(index), interest)?;
    Ok(Connection {
        stream,
        request: 0,
        written: 0,
        sent: Instant::now(),
        buffer: vec![0; BUFFER_BYTES],
        filled: 0,
        parser: Parser::default(),
        busy: false,
    })
}

enum Progress {
    Waiting,
    Answered(u16),
    Broken,
}

impl Connection {
    /// Writes what is left of the request. False when the connection is broken.
    fn write(&mut self, requests: &[Vec<u8>]) -> anyhow::Result<bool> {
        let request = requests.get(self.request).map(Vec::as_slice).unwrap_or_default();
        while self.written < request.len() {
            match self.stream.write(request.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn read(&mut self) -> anyhow::Result<Progress> {
        loop {
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let room_bytes = room.len();
            let count = match self.stream.read(room) {
                Ok(0) => return Ok(Progress::Broken),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Progress::Broken),
            };
            self.filled += count;
            let read = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some(status) = self.parser.advance(read)? {
                return Ok(Progress::Answered(status));
            }
            // Less than there was room for: there is no more, and the next byte
            // will be an event.
            if count < room_bytes {
                return Ok(Progress::Waiting);
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}
