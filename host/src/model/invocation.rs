//! One call of a function: how it ended, and its receipt.

use serde::{Deserialize, Serialize};

use super::ids::{FunctionId, InvocationId, RevisionNumber};

/// How an invocation ended: one closed list for metrics, logs, receipts and
/// problem codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest answered, whatever its status, and the client has all of it.
    Ok,
    /// No function or route matches. 404.
    NoRoute,
    /// The request is malformed. 400.
    BadRequest,
    /// The request body is over its limit. 413.
    BodyTooLarge,
    /// The function's or tenant's own quota is used up. 429.
    TenantLimited,
    /// The host's capacity is used up. 503 with Retry-After.
    Overloaded,
    /// The wall time is used up. 504.
    Timeout,
    /// The CPU time is used up. 504.
    CpuLimit,
    /// The guest failed after it was refused memory. 502.
    MemoryLimit,
    /// The guest trapped or exited with a failure. 502.
    Trapped,
    /// The guest ended without answering, or its answer was malformed. 502.
    NoResponse,
    /// The response body is over its limit. 502.
    OutputLimit,
    /// The function called itself too deeply. 508.
    Recursion,
    /// The client left before the end. 499, in logs and receipts only.
    ClientGone,
    /// A bug of ours. 500, and nothing else is.
    HostError,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::NoRoute,
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::TenantLimited,
        Self::Overloaded,
        Self::Timeout,
        Self::CpuLimit,
        Self::MemoryLimit,
        Self::Trapped,
        Self::NoResponse,
        Self::OutputLimit,
        Self::Recursion,
        Self::ClientGone,
        Self::HostError,
    ];

    /// The stable code, as in metrics and problem documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoRoute => "no_route",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::TenantLimited => "tenant_limited",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::CpuLimit => "cpu_limit",
            Self::MemoryLimit => "memory_limit",
            Self::Trapped => "trapped",
            Self::NoResponse => "no_response",
            Self::OutputLimit => "output_limit",
            Self::Recursion => "recursion",
            Self::ClientGone => "client_gone",
            Self::HostError => "host_error",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(())
    }
}

/// The record of one invocation: what it cost and how it ended.
///
/// Exactly one is written for each request that reached the data plane,
/// refused and cancelled ones included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Also the response's `X-Request-Id`. Its upper bits are the arrival time.
    pub id: InvocationId,
    /// The function called; none where no route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionId>,
    /// The revision that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status sent, or that would have been sent.
    pub status: u16,
    /// Whether the revision had to be loaded from disk first.
    pub cold: bool,
    /// Arrival to last byte, in microseconds.
    pub total_us: u64,
    /// Waiting for a permit, in microseconds.
    pub queue_us: u64,
    /// Loading the revision (cold starts only), in microseconds.
    pub load_us: u64,
    /// Making the store and the instance, in microseconds.
    pub init_us: u64,
    /// From the call of the guest to its end, in microseconds of wall time.
    pub run_us: u64,
    /// CPU time of instantiation and guest together, in microseconds.
    pub cpu_us: u64,
    /// Highest summed linear memory, in bytes.
    pub memory_peak_bytes: u64,
    /// Request body bytes that were read.
    pub request_bytes: u64,
    /// Response body bytes that were sent.
    pub response_bytes: u64,
    /// Log bytes that the guest wrote, kept or not.
    pub log_bytes: u64,
    /// What went wrong, for the function's owner; never sent to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which of a guest's two streams a line of log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output (http guests only: a CGI guest's stdout is its response).
    Stdout,
    /// Standard error.
    Stderr,
    /// The host itself, about this invocation: traps, truncation.
    Host,
}

/// One line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The function that wrote it.
    pub function: FunctionId,
    /// The revision that wrote it.
    pub revision: RevisionNumber,
    /// The invocation that wrote it.
    pub invocation: InvocationId,
    /// Where it was written.
    pub stream: LogStream,
    /// The text: valid UTF-8 without the line's end or control characters but tabs.
    pub text: String,
}
