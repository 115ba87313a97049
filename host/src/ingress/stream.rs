//! A client's connection as bytes: with the checks and the timeouts that hyper
//! does not have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::Patience;
use super::flood::Flood;
use super::framing::Framing;
use crate::invoke::response::WriteDeadline;

/// What a client that speaks HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read to find out what a client speaks.
const FIRST_BYTES: usize = 4 << 10;

/// How long a connection that ends here is still read from: while something comes,
/// and once nothing does. A client that is sending finds the connection gone
/// otherwise, and may never look at the answer that tells it why (RFC 9112, 9.6).
const LINGER_MAX: Duration = Duration::from_secs(10);
const LINGER_SILENT_MAX: Duration = Duration::from_secs(1);
/// Bytes that are then thrown away at a time.
const DISCARDED_BYTES: usize = 16 << 10;

/// What a client speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// Reads until it is known what the client speaks; what was read is returned.
/// None if the client has closed the connection instead.
///
/// # Errors
/// When the connection fails.
pub(super) async fn first_bytes(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(Spoken, BytesMut)>> {
    let mut read = BytesMut::with_capacity(FIRST_BYTES);
    while stream.read_buf(&mut read).await? > 0 {
        if read.starts_with(PREFACE) {
            return Ok(Some((Spoken::Http2, read)));
        }
        if !PREFACE.starts_with(&read) {
            return Ok(Some((Spoken::Http1, read)));
        }
    }
    Ok(None)
}

/// What is looked at as bytes come in.
enum Check {
    Framing(Framing),
    Flood(Flood),
}

/// A stream whose reads and writes fail once the other side has kept this one
/// waiting for too long: in the middle of a head, or behind a response that
/// nobody takes. hyper has no timeout for the second, and its own for heads
/// also runs between requests, where a client may take its time; and behind a
/// response that nobody reads there is a guest that holds memory and a permit.
pub(super) struct ClientStream<S> {
    stream: S,
    /// What was read already, and not yet given out.
    ahead: BytesMut,
    check: Check,
    patience: Patience,
    /// Made when a head does not come at once: nearly all do.
    head_timer: Option<Pin<Box<Sleep>>>,
    guest_deadline: WriteDeadline,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Something was written since the client was last waited for.
    answered: bool,
    lingering: Option<Lingering>,
}

/// A connection that was ended on this side, and not yet on the other.
struct Lingering {
    end: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Lingering {
    fn new() -> Self {
        let end = Instant::now() + LINGER_MAX;
        Self { end, timer: Box::pin(sleep(LINGER_SILENT_MAX)) }
    }

    /// Throws away what comes, until the client ends the connection too, or the
    /// time is up.
    fn poll<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut bytes = [0; DISCARDED_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            match read {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= self.end {
                        return Poll::Ready(());
                    }
                    self.timer.as_mut().reset(self.end.min(now + LINGER_SILENT_MAX));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.as_mut().poll(context),
            }
        }
    }
}

impl<S> ClientStream<S> {
    /// A stream whose first bytes were read. It speaks HTTP/1, and fails at the
    /// latest when the guest behind the response in `guest_deadline` has to end.
    pub(super) fn http1(
        stream: S,
        ahead: BytesMut,
        patience: Patience,
        guest_deadline: WriteDeadline,
    ) -> Self {
        Self::new(stream, ahead, Check::Framing(Framing::new()), patience, guest_deadline)
    }

    /// A stream that speaks HTTP/2, for many guests at once: their deadlines
    /// are looked after elsewhere.
    pub(super) fn http2(stream: S, ahead: BytesMut, patience: Patience) -> Self {
        let check = Check::Flood(Flood::new(PREFACE.len()));
        Self::new(stream, ahead, check, patience, WriteDeadline::default())
    }

    fn new(
        stream: S,
        ahead: BytesMut,
        check: Check,
        patience: Patience,
        guest_deadline: WriteDeadline,
    ) -> Self {
        Self {
            stream,
            ahead,
            check,
            patience,
            head_timer: None,
            guest_deadline,
            stalled: None,
            answered: false,
            lingering: None,
        }
    }

    /// Whether the client may be sending still while the connection ends: not if it
    /// was waited for, and had sent nothing.
    fn may_be_sending(&self) -> bool {
        match &self.check {
            Check::Framing(framing) => self.answered || !framing.is_between_messages(),
            // A connection that ends has lost its client's streams in any case.
            Check::Flood(_) => false,
        }
    }

    /// Looks at bytes that are about to be given out.
    fn inspect(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.check {
            Check::Framing(framing) => {
                framing.check(bytes);
                if self.head_timer.is_some() && !framing.inside_a_head() {
                    self.head_timer = None;
                }
                Ok(())
            }
            Check::Flood(flood) => flood.check(bytes),
        }
    }

    /// Nothing to read: that may not last long in the middle of a head.
    fn wait_for_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inside_a_head = match &self.check {
            Check::Framing(framing) => framing.inside_a_head(),
            Check::Flood(_) => false,
        };
        if !inside_a_head {
            return Poll::Pending;
        }
        let patience = self.patience.head;
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timer = self.stalled.get_or_insert_with(|| {
            let until = Instant::now() + self.patience.response;
            let guest = self.guest_deadline.get();
            Box::pin(sleep_until(guest.map_or(until, |guest| guest.min(until))))
        });
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.answered = false;
                    return self.wait_for_head(context);
                }
            }
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(self.ahead.get(..length).unwrap_or_default());
            self.ahead.advance(length);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
        }
        let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        Poll::Ready(self.inspect(read))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answered = true;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answered = true;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut_down = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.watch(context, shut_down))?;
            if !this.may_be_sending() {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this.lingering.get_or_insert_with(Lingering::new);
        lingering.poll(&mut this.stream, context).map(Ok)
    }
}
