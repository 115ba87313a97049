//! Thousands of clients that do next to nothing, and one that asks.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tests::health::Health;
use tests::latency::Latency;
use tests::{Host, guests};

use crate::{IDLE_CLIENTS, PART, SLOW_CLIENTS, alone, host};

const CROWD: &str = env!("CARGO_BIN_EXE_crowd");
/// Memory that the host has for a connection without a request, in bytes.
const CONNECTION_BYTES_MAX: u64 = 40 << 10;
/// Longest time of 99 in 100 answers beside connections without a request.
const ANSWER_MAX: Duration = Duration::from_millis(50);

/// Clients in a process of their own.
struct Crowd {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Crowd {
    /// So many, once all of them are connected.
    fn start(kind: &str, host: &Host, count: usize) -> Self {
        let mut command = Command::new(CROWD);
        command.args([kind, host.address(), &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("start the crowd");
        let said = BufReader::new(process.stdout.take().expect("its output"));
        let mut crowd = Self { process, said };
        assert_eq!(crowd.line(), "open");
        crowd
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Sends them home; returns how many connections were closed before, and how
    /// many were answered once more.
    fn end(mut self) -> (usize, usize) {
        drop(self.process.stdin.take());
        let line = self.line();
        assert!(self.process.wait().expect("its end").success(), "the crowd failed");
        let mut numbers = line.split(' ').filter_map(|number| number.parse().ok());
        (numbers.next().expect("a number"), numbers.next().expect("a number"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn idle_connections_cost_little_and_hinder_nobody() {
    let _alone = alone();
    let host = host().set("connections_max", 12_000).set("idle_time_max", "5m").start();
    let health = Health::watch(&host);
    let before = host.memory_bytes("VmRSS");
    let crowd = Crowd::start("idle", &host, IDLE_CLIENTS);
    let each = host.memory_bytes("VmRSS").saturating_sub(before) / IDLE_CLIENTS as u64;
    // 500 a second, half of them on new connections.
    let latency = Latency::measure(&host, "/hello/", "hello", 2000, Duration::from_millis(2));
    let (closed, answered) = crowd.end();
    println!("{IDLE_CLIENTS} idle: {each} bytes each, {closed} closed; meanwhile {latency}");
    assert_eq!((closed, answered), (0, IDLE_CLIENTS));
    assert!(each <= CONNECTION_BYTES_MAX, "a connection has {each} bytes");
    assert!(latency.percentile(PART) <= ANSWER_MAX, "{latency}");
    health.check_but_memory(&host, "the idle crowd");
}

#[test]
fn slow_clients_hinder_nobody() {
    let _alone = alone();
    // Shorter than by default, so that they come again.
    let patience = ["head_time_max", "body_stall_max", "response_stall_max", "idle_time_max"];
    let host = patience.iter().fold(host(), |host, name| host.set(name, "2s"));
    let host = host.set("instances_max", 256).start();
    let health = Health::watch(&host);
    host.admin().deploy_with_spec(
        "slow",
        guests::http_02(),
        &serde_json::json!({
            "timeout": "3s",
        }),
    );
    let measure = || Latency::measure(&host, "/hello/", "hello", 300, Duration::from_millis(20));
    let quiet = measure();
    let crowd = Crowd::start("slow", &host, SLOW_CLIENTS);
    let beside = measure();
    let (closed, _) = crowd.end();
    println!("{SLOW_CLIENTS} slow, {closed} closed. quiet: {quiet}; beside them: {beside}");
    assert!(closed >= SLOW_CLIENTS / 4, "only {closed} were closed");
    let allowed = quiet.percentile(0.99) * 2 + Duration::from_millis(20);
    assert!(beside.percentile(PART) <= allowed, "quiet {quiet}, beside them {beside}");
    health.check_but_memory(&host, "the slow crowd");
}
