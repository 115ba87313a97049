//! A guest's log: lines, bounded for each invocation.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::limits::Meter;
use crate::model::ids::{FunctionId, InvocationId, RevisionNumber};
use crate::model::invocation::{LogLine, LogStream};
use crate::telemetry::Telemetry;
use crate::telemetry::clock::unix_ms;

/// Longest line, in bytes; a longer one is broken into several.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Whose log it is.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// The function.
    pub function: FunctionId,
    /// Its revision.
    pub revision: RevisionNumber,
    /// The invocation.
    pub invocation: InvocationId,
}

/// Turns what a guest writes into lines of its function's log.
pub struct GuestLog {
    source: LogSource,
    telemetry: Arc<Telemetry>,
    meter: Arc<Meter>,
    bytes_max: u64,
    /// Lines without an end so far: of standard output, of standard error.
    partial: Mutex<[Vec<u8>; 2]>,
}

impl GuestLog {
    /// An empty log that keeps at most `bytes_max` bytes.
    #[must_use]
    pub fn new(
        source: LogSource,
        telemetry: Arc<Telemetry>,
        meter: Arc<Meter>,
        bytes_max: u64,
    ) -> Self {
        Self { source, telemetry, meter, bytes_max, partial: Mutex::default() }
    }

    /// Takes what the guest wrote to a stream. Never waits.
    pub fn write(&self, stream: LogStream, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let before = self.meter.log_bytes.fetch_add(length, Ordering::Relaxed);
        let room = usize::try_from(self.bytes_max.saturating_sub(before)).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *partial;
        let line = if stream == LogStream::Stdout { stdout } else { stderr };
        for piece in kept.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX {
                self.line(stream, line);
                line.clear();
            }
        }
        if before <= self.bytes_max && before + length > self.bytes_max {
            self.line(stream, line);
            line.clear();
            let limit = self.bytes_max;
            self.host_line(&format!("log truncated: the invocation's limit is {limit} bytes"));
        }
    }

    /// Adds a line of the host's own: a trap, a limit.
    pub fn host_line(&self, text: &str) {
        for line in text.lines() {
            self.append(LogStream::Host, line.to_owned());
        }
    }

    fn line(&self, stream: LogStream, line: &[u8]) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !line.is_empty() {
            self.append(stream, String::from_utf8_lossy(text).into_owned());
        }
    }

    fn append(&self, stream: LogStream, text: String) {
        let LogSource { function, revision, invocation } = self.source.clone();
        let unix_ms = unix_ms();
        self.telemetry.logs.append(LogLine {
            unix_ms,
            function,
            revision,
            invocation,
            stream,
            text,
        });
    }

    /// Ends lines that have no end.
    pub fn flush(&self) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = std::mem::take(&mut *partial);
        self.line(LogStream::Stdout, &stdout);
        self.line(LogStream::Stderr, &stderr);
    }
}

impl Drop for GuestLog {
    fn drop(&mut self) {
        self.flush();
    }
}
