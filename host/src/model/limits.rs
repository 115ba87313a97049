//! The bounds of one invocation, with their defaults and the most a spec may ask for.

use serde::{Deserialize, Serialize};

/// Wall time of one invocation unless its spec says otherwise, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// CPU time of one invocation unless its spec says otherwise, in milliseconds.
pub const CPU_MS_DEFAULT: u64 = 10_000;
/// Linear memory of one instance, summed over its memories, in bytes.
pub const MEMORY_BYTES_DEFAULT: u64 = 128 << 20;
/// Request body, in bytes.
pub const REQUEST_BODY_BYTES_DEFAULT: u64 = 10 << 20;
/// Response body, in bytes.
pub const RESPONSE_BODY_BYTES_DEFAULT: u64 = 50 << 20;
/// Log output of one invocation, in bytes; the rest is cut and marked.
pub const LOG_BYTES_DEFAULT: u64 = 64 << 10;
/// Invocations of one function at the same time.
pub const CONCURRENCY_DEFAULT: u32 = 100;
/// Longest wait for a permit, in milliseconds.
pub const QUEUE_WAIT_MS_DEFAULT: u64 = 1000;

/// Most that a spec may ask for: longer invocations belong to a queue, not to a
/// request that a client waits for.
pub const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Most memory that a spec may ask for: what a 32-bit linear memory can hold.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Largest body limit that a spec may ask for.
pub const BODY_BYTES_MAX: u64 = 1 << 40;
/// Largest log limit that a spec may ask for.
pub const LOG_BYTES_MAX: u64 = 16 << 20;
/// Most concurrent invocations that a spec may ask for.
pub const CONCURRENCY_MAX: u32 = 100_000;

/// What one invocation may use. Every field has a typed outcome when it is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time, in milliseconds: outcome `timeout`.
    pub timeout_ms: u64,
    /// CPU time, in milliseconds: outcome `cpu_limit`.
    pub cpu_ms: u64,
    /// Linear memory summed over the instance's memories, in bytes: growth
    /// fails, and a guest that traps after it ends as `memory_limit`.
    pub memory_bytes_max: u64,
    /// Request body, in bytes: outcome `body_too_large`.
    pub request_body_bytes_max: u64,
    /// Response body, in bytes: outcome `output_limit`.
    pub response_body_bytes_max: u64,
    /// Log output, in bytes: cut with a marker, the invocation goes on.
    pub log_bytes_max: u64,
    /// Invocations of the function at the same time: outcome `tenant_limited`
    /// after `queue_wait_ms`.
    pub concurrency: u32,
    /// Longest wait for a permit, in milliseconds.
    pub queue_wait_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_ms: TIMEOUT_MS_DEFAULT,
            cpu_ms: CPU_MS_DEFAULT,
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            request_body_bytes_max: REQUEST_BODY_BYTES_DEFAULT,
            response_body_bytes_max: RESPONSE_BODY_BYTES_DEFAULT,
            log_bytes_max: LOG_BYTES_DEFAULT,
            concurrency: CONCURRENCY_DEFAULT,
            queue_wait_ms: QUEUE_WAIT_MS_DEFAULT,
        }
    }
}
