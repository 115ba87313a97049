//! Step 7: one receipt for each invocation, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Problem;
use crate::capabilities::log::GuestLog;
use crate::engine::limits::Meter;
use crate::model::ids::{FunctionId, InvocationId, RevisionNumber};
use crate::model::invocation::{Outcome, Receipt};
use crate::telemetry::Telemetry;

/// Microseconds of a time, as receipts have them.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Longer than `Server-Timing` gets for requests of less than 1000 s, in bytes.
const SERVER_TIMING_BYTES: usize = 128;

/// Appends a time in milliseconds with three decimals. Each response has five of
/// them: by way of `f64` and `format!` they cost more than routing it.
fn push_duration(text: &mut Vec<u8>, name: &str, us: u64) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(itoa::Buffer::new().format(us / 1000).as_bytes());
    let digit = |place| b'0' + (us / place % 10) as u8;
    text.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

/// The record of an invocation that is under way. When it is dropped, the
/// receipt is written; an invocation that nobody ended was left by its client.
pub struct Record {
    /// Identity of the invocation.
    pub id: InvocationId,
    /// What it has used.
    pub meter: Arc<Meter>,
    telemetry: Arc<Telemetry>,
    arrived: Instant,
    called: Option<Instant>,
    log: Option<Arc<GuestLog>>,
    receipt: Receipt,
}

impl Record {
    /// Starts a record: the request has arrived.
    #[must_use]
    pub fn new(id: InvocationId, telemetry: Arc<Telemetry>) -> Self {
        let receipt = Receipt {
            id,
            function: None,
            revision: None,
            outcome: Outcome::ClientGone,
            status: 499,
            cold: false,
            total_us: 0,
            queue_us: 0,
            load_us: 0,
            init_us: 0,
            run_us: 0,
            cpu_us: 0,
            memory_peak_bytes: 0,
            request_bytes: 0,
            response_bytes: 0,
            log_bytes: 0,
            error: None,
        };
        let meter = Arc::default();
        Self { id, meter, telemetry, arrived: Instant::now(), called: None, log: None, receipt }
    }

    /// The route is known.
    pub fn routed(&mut self, function: &FunctionId, revision: RevisionNumber) {
        self.receipt.function = Some(function.clone());
        self.receipt.revision = Some(revision);
    }

    /// It waited for permits until now.
    pub fn waited(&mut self) {
        self.receipt.queue_us = micros(self.arrived.elapsed());
    }

    /// The revision was loaded from disk, which took this long.
    pub fn loaded_cold(&mut self, time: Duration) {
        self.receipt.cold = true;
        self.receipt.load_us = micros(time);
    }

    /// The guest is about to be polled for the first time. Returns when that is.
    pub fn called(&mut self, log: Arc<GuestLog>) -> Instant {
        self.log = Some(log);
        *self.called.insert(Instant::now())
    }

    /// The status that the client gets.
    pub fn answered(&mut self, status: u16) {
        self.receipt.status = status;
    }

    /// How it ended. The first word counts.
    pub fn ended(&mut self, outcome: Outcome, error: Option<String>) {
        if self.receipt.outcome != Outcome::ClientGone {
            return;
        }
        if let (Some(error), Some(log)) = (&error, &self.log) {
            log.flush();
            log.host_line(&format!("{}: {error}", outcome.as_str()));
        }
        self.receipt.outcome = outcome;
        self.receipt.error = error;
    }

    /// What was wrong with the request's body, if the guest has got that far.
    /// Whatever the guest makes of it, it is the request's fault; and a guest
    /// that did not notice must not have its answer taken for a good one.
    pub fn request_problem(&self) -> Option<Problem> {
        if self.meter.request_too_large.load(Ordering::Relaxed) {
            return Some((Outcome::BodyTooLarge, None));
        }
        let broken = self.meter.request_broken.load(Ordering::Relaxed);
        let error = "the request's body broke off or is malformed";
        broken.then(|| (Outcome::BadRequest, Some(error.to_owned())))
    }

    /// Adds a line to the function's log.
    pub fn note(&self, text: &str) {
        if let Some(log) = &self.log {
            log.host_line(text);
        }
    }

    /// Bytes of the response's body that went out.
    pub fn sent(&mut self, bytes: u64) {
        self.receipt.response_bytes = bytes;
    }

    /// `Server-Timing` (W3C) of what is known when the head goes out, in
    /// milliseconds.
    #[must_use]
    pub fn server_timing(&self) -> Bytes {
        let (total_us, called_us) = self.elapsed_us();
        let init_us = self.init_us();
        let guest_us = called_us.saturating_sub(init_us);
        let host_us = total_us
            .saturating_sub(self.receipt.queue_us + self.receipt.load_us + init_us + guest_us);
        let mut text = Vec::with_capacity(SERVER_TIMING_BYTES);
        push_duration(&mut text, "queue;dur=", self.receipt.queue_us);
        push_duration(&mut text, ", load;dur=", self.receipt.load_us);
        push_duration(&mut text, ", init;dur=", init_us);
        push_duration(&mut text, ", guest;dur=", guest_us);
        push_duration(&mut text, ", host;dur=", host_us);
        text.into()
    }

    /// The time since it arrived, and of that since the guest was called.
    fn elapsed_us(&self) -> (u64, u64) {
        let now = Instant::now();
        let called_us = self.called.map_or(0, |called| micros(now - called));
        (micros(now - self.arrived), called_us)
    }

    fn init_us(&self) -> u64 {
        self.meter.init_ns.load(Ordering::Relaxed) / 1000
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let meter = &self.meter;
        let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        let (total_us, called_us) = self.elapsed_us();
        self.receipt.total_us = total_us;
        self.receipt.init_us = self.init_us();
        self.receipt.run_us = called_us.saturating_sub(self.receipt.init_us);
        self.receipt.cpu_us = load(&meter.cpu_ns) / 1000;
        self.receipt.memory_peak_bytes = load(&meter.memory_peak_bytes);
        self.receipt.request_bytes = load(&meter.request_bytes);
        self.receipt.log_bytes = load(&meter.log_bytes);
        // Moved, not copied: what is left to clone needs no memory.
        let (function, error) = (self.receipt.function.take(), self.receipt.error.take());
        let receipt = Receipt { function, error, ..self.receipt.clone() };
        self.telemetry.receipts.record(receipt);
    }
}

#[cfg(test)]
mod tests {
    use super::push_duration;

    #[test]
    fn durations_have_three_decimals() {
        for us in
            [0, 7, 42, 111, 999, 1000, 1001, 1111, 9_999, 10_000, 123_456, 30_000_000, u64::MAX]
        {
            let mut text = Vec::new();
            push_duration(&mut text, "dur=", us);
            assert_eq!(text, format!("dur={}.{:03}", us / 1000, us % 1000).into_bytes());
        }
    }
}
