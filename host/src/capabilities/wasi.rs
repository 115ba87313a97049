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

/// What a guest's context is made of, until the guest first uses it. Most http guests
/// never do, and it takes a dozen allocations and seeds of random numbers.
pub struct LazyContext {
    /// The function's own environment.
    pub environment: Arc<[(String, String)]>,
    /// Where its output goes.
    pub log: Arc<GuestLog>,
    /// Which clocks it sees.
    pub clocks: Clocks,
    /// The context, where it is there.
    pub context: Option<WasiCtx>,
}

impl LazyContext {
    /// The context. That of an http guest is made here: both output streams are its
    /// log.
    pub fn get(&mut self) -> &mut WasiCtx {
        let Self { environment, log, clocks, context } = self;
        context.get_or_insert_with(|| {
            let stdout = LogWriter::new(log, LogStream::Stdout);
            builder(environment, log, *clocks).stdout(stdout).build()
        })
    }
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
