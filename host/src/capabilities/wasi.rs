//! The WASI context of a guest: environment, standard streams, and nothing
//! else. No folder, no socket and no terminal is ever in it.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use super::body::BodyError;
use super::clocks::Clocks;
use super::log::GuestLog;
use super::pipe::PipeWriter;
use super::stdio::{GuestStdin, GuestStdout, LogWriter};
use crate::model::invocation::LogStream;

/// Most random bytes of one request, in bytes: the host allocates them.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

fn builder(
    environment: &[(String, String)],
    log: &Arc<GuestLog>,
    clocks: Clocks,
) -> WasiCtxBuilder {
    let mut builder = WasiCtx::builder();
    clocks.give(&mut builder);
    builder
        .max_random_size(RANDOM_BYTES_MAX)
        // A guest that sleeps must not put a thread of ours to sleep.
        .allow_blocking_current_thread(false)
        .allow_tcp(false)
        .allow_udp(false)
        .envs(environment)
        .stderr(LogWriter::new(log, LogStream::Stderr));
    builder
}

/// The context of an http guest: both output streams are its log.
#[must_use]
pub fn http_context(
    environment: &[(String, String)],
    log: &Arc<GuestLog>,
    clocks: Clocks,
) -> WasiCtx {
    builder(environment, log, clocks).stdout(LogWriter::new(log, LogStream::Stdout)).build()
}

/// What the context of a CGI guest is built from: the request in variables and
/// standard input, the response on standard output. The request's variables
/// come before the function's: where a name stands twice, guests take the first.
#[must_use]
pub fn cgi_builder<B>(
    environment: &[(String, String)],
    variables: &[(String, String)],
    stdin: B,
    stdout: PipeWriter,
    log: &Arc<GuestLog>,
    clocks: Clocks,
) -> WasiCtxBuilder
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let mut builder = builder(variables, log, clocks);
    builder.stdin(GuestStdin::new(stdin)).stdout(GuestStdout::new(stdout)).envs(environment);
    if let Some((_, script)) = variables.iter().find(|(name, _)| name == "SCRIPT_NAME") {
        builder.arg(script);
    }
    builder
}
