//! Standard streams: a request's body as standard input, a CGI response as
//! standard output, the log as standard error. All of them stream; none of them
//! buffers more than a chunk.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::body::BodyError;
use super::log::GuestLog;
use super::pipe::{Closed, PipeWriter};
use crate::model::invocation::LogStream;

/// Most bytes that a guest may hand over in one write.
const CHUNK_BYTES_MAX: usize = 64 << 10;

type RequestBody = dyn Body<Data = Bytes, Error = BodyError> + Send;

/// What is left of a request's body. Every handle that the guest makes for its
/// standard input reads on from the same place.
struct Source {
    /// None after the end.
    body: Option<Pin<Box<RequestBody>>>,
    chunk: Bytes,
    error: Option<BodyError>,
}

impl Source {
    /// Ready when a chunk, an error or the end is there. Trailers are skipped:
    /// CGI has none.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.chunk.is_empty() && self.error.is_none() {
            let Some(body) = &mut self.body else { break };
            match ready!(body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.body = None;
                }
                None => self.body = None,
            }
        }
        Poll::Ready(())
    }
}

type SharedSource = Arc<Mutex<Source>>;

fn lock(source: &SharedSource) -> std::sync::MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's body as standard input.
pub struct GuestStdin(SharedSource);

impl GuestStdin {
    /// Reads from `body`.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        let body: Pin<Box<RequestBody>> = Box::pin(body);
        let source = Source { body: Some(body), chunk: Bytes::new(), error: None };
        Self(Arc::new(Mutex::new(source)))
    }
}

impl IsTerminal for GuestStdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for GuestStdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(StdinReader(Arc::clone(&self.0)))
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(StdinReader(Arc::clone(&self.0)))
    }
}

struct StdinReader(SharedSource);

#[async_trait]
impl Pollable for StdinReader {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| lock(&self.0).poll_fill(context)).await;
    }
}

#[async_trait]
impl InputStream for StdinReader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut source = lock(&self.0);
        // A chunk may be there without anybody having waited for it. Whoever
        // finds none waits in `ready`, which leaves a waker.
        let mut context = Context::from_waker(std::task::Waker::noop());
        let _ = source.poll_fill(&mut context);
        if let Some(error) = source.error {
            return Err(StreamError::LastOperationFailed(wasmtime::Error::new(error)));
        }
        if source.chunk.is_empty() && source.body.is_none() {
            return Err(StreamError::Closed);
        }
        let count = size.min(source.chunk.len());
        Ok(source.chunk.split_to(count))
    }
}

impl AsyncRead for StdinReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut source = lock(&self.0);
        ready!(source.poll_fill(context));
        if let Some(error) = source.error {
            return Poll::Ready(Err(std::io::Error::other(error)));
        }
        let count = buffer.remaining().min(source.chunk.len());
        buffer.put_slice(&source.chunk.split_to(count));
        Poll::Ready(Ok(()))
    }
}

/// A CGI guest's standard output. Who reads too slowly holds the guest back.
#[derive(Clone)]
pub struct GuestStdout(PipeWriter);

impl GuestStdout {
    /// Writes to `pipe`.
    #[must_use]
    pub fn new(pipe: PipeWriter) -> Self {
        Self(pipe)
    }
}

impl IsTerminal for GuestStdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for GuestStdout {
    async fn ready(&mut self) {
        // Ready with room, or when nobody reads any more.
        let _ = std::future::poll_fn(|context| self.0.poll_room(context)).await;
    }
}

impl OutputStream for GuestStdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.0.write(&bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(StreamError::Trap(wasmtime::Error::msg("write without permission"))),
            Err(Closed) => Err(StreamError::Closed),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What is written is on its way.
        self.0.room().map(|_| ()).map_err(|Closed| StreamError::Closed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.room().map_err(|Closed| StreamError::Closed)
    }
}

impl AsyncWrite for GuestStdout {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let closed = |Closed| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        ready!(self.0.poll_room(context)).map_err(closed)?;
        Poll::Ready(self.0.write(bytes).map_err(closed))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        // The end is when the last handle is gone.
        Poll::Ready(Ok(()))
    }
}

/// A stream that is a guest's log. Never holds the guest back.
#[derive(Clone)]
pub struct LogWriter {
    log: Arc<GuestLog>,
    stream: LogStream,
}

impl LogWriter {
    /// Writes to `log` as `stream`.
    #[must_use]
    pub fn new(log: &Arc<GuestLog>, stream: LogStream) -> Self {
        Self { log: Arc::clone(log), stream }
    }
}

impl IsTerminal for LogWriter {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogWriter {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for LogWriter {
    async fn ready(&mut self) {}
}

impl OutputStream for LogWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_BYTES_MAX)
    }
}

impl AsyncWrite for LogWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
