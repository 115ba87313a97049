//! Whether a host is as it was before somebody attacked it.

use std::time::{Duration, Instant};

use crate::host::Host;
use crate::http::Request;
use crate::wait::eventually;

/// The function that has to answer; see [`Health::watch`].
const HELLO: &str = "hello";
/// Longest time in which it has to answer, once the attack is over. A healthy
/// host takes a few milliseconds: this is for machines that do other things.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Descriptors that come and go: connections of the test, files of the logs.
const DESCRIPTORS_SLACK: usize = 8;
/// Memory that a host may have kept for the next time: pools, caches.
const MEMORY_SLACK_BYTES: u64 = 64 << 20;

/// A host before the attack.
#[derive(Debug)]
pub struct Health {
    pid: u32,
    descriptors: usize,
    memory_bytes: u64,
}

impl Health {
    /// Deploys a function that has to go on answering, and remembers the host as
    /// it is.
    #[must_use]
    #[track_caller]
    pub fn watch(host: &Host) -> Self {
        host.admin().deploy(HELLO, &crate::guests::answering("hello"));
        for _ in 0..20 {
            host.get("/hello/").assert_text("hello");
        }
        Self {
            pid: host.pid(),
            descriptors: descriptors(host),
            memory_bytes: host.memory_bytes("VmRSS"),
        }
    }

    /// The health check: the same process, which answers quickly, with nothing
    /// left in its pools, and with the descriptors and the memory that it had.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn check(&self, host: &Host, after: &str) {
        self.check_but_memory(host, after);
        // What was freed goes back to the system as others allocate.
        let cost = format!("less than {} MiB more, after {after}", MEMORY_SLACK_BYTES >> 20);
        eventually(&cost, || {
            self.answers(host, after);
            (self.grown_bytes(host) <= MEMORY_SLACK_BYTES).then_some(())
        });
    }

    /// As [`Self::check`], where a host may keep memory for as many the next time.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn check_but_memory(&self, host: &Host, after: &str) {
        self.answers(host, after);
        let empty =
            ["whit_invocations_running", "whit_pool_slots_in_use", "whit_guest_memory_bytes"];
        for gauge in empty {
            host.admin().metric_becomes(gauge, 0.0);
        }
        eventually(&format!("the descriptors of before, after {after}"), || {
            (descriptors(host) <= self.descriptors + DESCRIPTORS_SLACK).then_some(())
        });
    }

    /// The part of the check that holds during an attack, too.
    ///
    /// # Panics
    /// When the function does not answer, or not quickly.
    #[track_caller]
    pub fn answers(&self, host: &Host, after: &str) {
        let started = Instant::now();
        let mut connection = host.connect();
        connection.call(&Request::get("/hello/")).assert_text("hello");
        let took = started.elapsed();
        assert!(took <= ANSWER_MAX, "after {after} an answer took {took:?}");
        assert_eq!(host.pid(), self.pid);
    }

    /// Memory that the host has now and did not have before, in bytes.
    #[must_use]
    pub fn grown_bytes(&self, host: &Host) -> u64 {
        host.memory_bytes("VmRSS").saturating_sub(self.memory_bytes)
    }
}

/// Open descriptors of the host.
#[must_use]
pub fn descriptors(host: &Host) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", host.pid()));
    folder.expect("the host's descriptors").count()
}
