//! A pipe of bytes: what a guest prints, on its way to whoever reads it.
//!
//! Bounded by bytes, not by writes: a program that prints a line at a time is
//! held back no sooner than one that prints all at once, and what it has printed
//! when it waits goes out as one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

/// Most bytes that have been written and not read, as Linux has it for its pipes.
const PIPE_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
struct State {
    bytes: BytesMut,
    reader: Option<Waker>,
    /// A guest may hold many handles and wait at each.
    writers: Vec<Waker>,
    writer_gone: bool,
    reader_gone: bool,
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a pipe.
#[must_use]
pub fn pipe() -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared::default());
    (PipeWriter(Arc::new(WriterEnd(Arc::clone(&shared)))), PipeReader(shared))
}

/// The end that a guest writes to. Clones are the same end.
#[derive(Clone)]
pub struct PipeWriter(Arc<WriterEnd>);

/// Nobody reads what is written to a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

struct WriterEnd(Arc<Shared>);

impl PipeWriter {
    /// How many bytes may be written now.
    ///
    /// # Errors
    /// [`Closed`] when the reader is gone.
    pub fn room(&self) -> Result<usize, Closed> {
        let state = self.0.0.lock();
        if state.reader_gone { Err(Closed) } else { Ok(room(&state)) }
    }

    /// Ready with how many bytes may be written, at least one.
    ///
    /// # Errors
    /// [`Closed`] when the reader is gone.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        let mut state = self.0.0.lock();
        if state.reader_gone {
            return Poll::Ready(Err(Closed));
        }
        match room(&state) {
            0 => {
                if !state.writers.iter().any(|waiting| waiting.will_wake(context.waker())) {
                    state.writers.push(context.waker().clone());
                }
                Poll::Pending
            }
            bytes => Poll::Ready(Ok(bytes)),
        }
    }

    /// Writes as much as there is room for. Returns how many bytes that is.
    ///
    /// # Errors
    /// [`Closed`] when the reader is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Closed> {
        let mut state = self.0.0.lock();
        if state.reader_gone {
            return Err(Closed);
        }
        let fits = bytes.get(..room(&state)).unwrap_or(bytes);
        state.bytes.extend_from_slice(fits);
        if let Some(reader) = state.reader.take_if(|_| !fits.is_empty()) {
            drop(state);
            reader.wake();
        }
        Ok(fits.len())
    }
}

fn room(state: &State) -> usize {
    PIPE_BYTES_MAX.saturating_sub(state.bytes.len())
}

impl Drop for WriterEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writer_gone = true;
        if let Some(reader) = state.reader.take() {
            drop(state);
            reader.wake();
        }
    }
}

/// The end that the response is read from.
pub struct PipeReader(Arc<Shared>);

impl PipeReader {
    /// Ready with all that has been written and not read, or with `None` when
    /// the last writer is gone and all is read.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        if state.bytes.is_empty() {
            if state.writer_gone {
                return Poll::Ready(None);
            }
            match &mut state.reader {
                Some(reader) => reader.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        let bytes = std::mem::take(&mut state.bytes).freeze();
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(bytes))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        state.bytes = BytesMut::new();
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        writers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn now<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let mut poll = poll;
        poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_is_written_comes_out_as_one_and_then_the_end() {
        let (writer, mut reader) = pipe();
        let other = writer.clone();
        assert!(now(|context| reader.poll_read(context)).is_pending());
        assert_eq!((writer.write(b"one "), other.write(b"two")), (Ok(4), Ok(3)));
        drop(writer);
        assert_eq!(now(|context| reader.poll_read(context)), Poll::Ready(Some("one two".into())));
        assert!(now(|context| reader.poll_read(context)).is_pending());
        drop(other);
        assert_eq!(now(|context| reader.poll_read(context)), Poll::Ready(None));
    }

    #[test]
    fn a_full_pipe_holds_its_writers_back() {
        let (writer, mut reader) = pipe();
        let bytes = vec![7; PIPE_BYTES_MAX + 1];
        assert_eq!(writer.write(&bytes), Ok(PIPE_BYTES_MAX));
        assert_eq!((writer.room(), writer.write(b"x")), (Ok(0), Ok(0)));
        assert!(now(|context| writer.poll_room(context)).is_pending());
        let read = now(|context| reader.poll_read(context));
        assert_eq!(read.map(|bytes| bytes.map(|bytes| bytes.len())), Poll::Ready(Some(65_536)));
        assert_eq!(now(|context| writer.poll_room(context)), Poll::Ready(Ok(PIPE_BYTES_MAX)));
    }

    #[test]
    fn who_writes_to_nobody_is_told() {
        let (writer, reader) = pipe();
        drop(reader);
        assert_eq!((writer.room(), writer.write(b"x")), (Err(Closed), Err(Closed)));
        assert_eq!(now(|context| writer.poll_room(context)), Poll::Ready(Err(Closed)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_end_wakes_the_other() {
        let (writer, mut reader) = pipe();
        let writing = tokio::spawn(async move {
            let (piece, mut left) = (vec![1; 5000], 10 * PIPE_BYTES_MAX);
            while left > 0 {
                let room = poll_fn(|context| writer.poll_room(context)).await.unwrap();
                left -= writer.write(&piece[..piece.len().min(room).min(left)]).unwrap();
            }
        });
        let mut read = 0;
        while let Some(bytes) = poll_fn(|context| reader.poll_read(context)).await {
            read += bytes.len();
        }
        writing.await.unwrap();
        assert_eq!(read, 10 * PIPE_BYTES_MAX);
    }
}
