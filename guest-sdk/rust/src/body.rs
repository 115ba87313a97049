//! Bodies, streamed in both directions.

use std::fmt;
use std::io::{self, BufWriter, Cursor, Read, Write};

use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// How much is moved at once: large enough to cost few calls to the host, small beside the memory
/// that a function has.
const CHUNK_BYTES: usize = 64 * 1024;

/// The body of a request or a response.
///
/// Nothing is read before it is asked for, so a function can take or give more than its memory
/// holds. A body is a [`std::io::Read`]; there are shorter ways for the common cases:
///
/// ```
/// use whit_sdk::Body;
///
/// // The whole of it, with a limit: more is a 413.
/// assert_eq!(Body::from("hello").text(100).unwrap(), "hello");
/// assert_eq!(Body::from("hello").read_all(3).unwrap_err().status(), 413);
///
/// // Chunk by chunk, as it arrives.
/// let mut body = Body::from("hello");
/// let mut bytes = 0;
/// while let Some(chunk) = body.chunk().unwrap() {
///     bytes += chunk.len();
/// }
/// assert_eq!(bytes, 5);
/// ```
///
/// A request's body is also a response's: `Response::new(request.into_body())` is an echo of any
/// size.
pub struct Body {
    content: Content,
    /// Of what is not in memory: the length that the sender declared.
    declared_length: Option<u64>,
    sender: Sender,
}

enum Content {
    Memory(Cursor<Vec<u8>>),
    Reader(Box<dyn Read>),
    Writer(WriteBody),
}

type WriteBody = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()>>;

/// Whose fault it is when a body is too large or makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    /// The server that [`crate::fetch`] asked.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    Upstream,
}

impl Sender {
    fn error(self, status: StatusCode, message: impl Into<String>) -> Error {
        match self {
            Sender::Client => Error::new(status, message),
            Sender::Upstream => Error::new(
                StatusCode::BAD_GATEWAY,
                "the upstream server's answer cannot be used",
            )
            .caused_by(message.into()),
        }
    }
}

impl Body {
    /// A body of no bytes.
    pub fn empty() -> Self {
        Body::from(Vec::new())
    }

    /// A body that is written while it is sent. Small writes are collected; each flush reaches the
    /// client at once.
    ///
    /// An error from the closure ends the response where it is, so that the client sees that it
    /// is incomplete, and is logged. When the client has left, writing fails.
    ///
    /// ```
    /// use std::io::Write;
    /// use whit_sdk::Body;
    ///
    /// let body = Body::stream(|writer| {
    ///     for number in 1..=3 {
    ///         writeln!(writer, "{number}")?;
    ///         writer.flush()?;
    ///     }
    ///     Ok(())
    /// });
    /// # assert_eq!({ body }.text(10).unwrap(), "1\n2\n3\n");
    /// ```
    pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'static) -> Self {
        Body::with_content(Content::Writer(Box::new(write)))
    }

    /// A body that is read from elsewhere while it is sent.
    pub fn from_reader(reader: impl Read + 'static) -> Self {
        Body::with_content(Content::Reader(Box::new(reader)))
    }

    /// A body that arrives from the network.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn received(
        reader: impl Read + 'static,
        declared_length: Option<u64>,
        sender: Sender,
    ) -> Self {
        Body {
            declared_length,
            sender,
            ..Body::from_reader(reader)
        }
    }

    fn with_content(content: Content) -> Self {
        Body {
            content,
            declared_length: None,
            sender: Sender::Client,
        }
    }

    /// How many bytes are left to read, if that is known. Of a body from the network this is what
    /// its sender declared, less what was read.
    pub fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Memory(bytes) => {
                Some((bytes.get_ref().len() as u64).saturating_sub(bytes.position()))
            }
            Content::Reader(_) | Content::Writer(_) => self.declared_length,
        }
    }

    /// The next bytes as they arrive, at most 64 KiB; `None` at the end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let bytes = self.read(&mut chunk)?;
        chunk.truncate(bytes);
        Ok((bytes > 0).then_some(chunk))
    }

    /// All that is left of the body. More than `bytes_max` is a 413, before it is read where the
    /// sender declared it.
    pub fn read_all(&mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let sender = self.sender;
        let too_large = || {
            sender.error(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {bytes_max} bytes"),
            )
        };
        let limit = bytes_max as u64;
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        self.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| {
                sender
                    .error(StatusCode::BAD_REQUEST, "the body ended before its end")
                    .caused_by(error)
            })?;
        if bytes.len() > bytes_max {
            return Err(too_large());
        }
        Ok(bytes)
    }

    /// All that is left of the body, as text: more than `bytes_max` is a 413, not UTF-8 a 400.
    pub fn text(mut self, bytes_max: usize) -> Result<String> {
        String::from_utf8(self.read_all(bytes_max)?).map_err(|_| {
            self.sender
                .error(StatusCode::BAD_REQUEST, "the body is not UTF-8 text")
        })
    }

    /// All that is left of the body, as a value through serde: more than `bytes_max` is a 413,
    /// what does not fit the type a 400 that says where.
    pub fn json<T: DeserializeOwned>(mut self, bytes_max: usize) -> Result<T> {
        let bytes = self.read_all(bytes_max)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            self.sender.error(
                StatusCode::BAD_REQUEST,
                format!("the body is not the JSON that is expected here: {error}"),
            )
        })
    }

    /// Sends all of the body, each chunk as soon as it is there.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) fn send_to(mut self, destination: &mut dyn Write) -> io::Result<()> {
        match self.content {
            Content::Memory(bytes) => {
                let position = usize::try_from(bytes.position()).unwrap_or(usize::MAX);
                destination.write_all(bytes.get_ref().get(position..).unwrap_or_default())?;
            }
            Content::Writer(write) => {
                let mut writer = BufWriter::new(&mut *destination);
                write(&mut writer)?;
                writer.flush()?;
            }
            Content::Reader(_) => {
                while let Some(chunk) = self.chunk()? {
                    destination.write_all(&chunk)?;
                    destination.flush()?;
                }
            }
        }
        destination.flush()
    }
}

/// A body made by [`Body::stream`] is written to memory when it is read; that is meant for tests.
impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Memory(bytes) => bytes.read(buffer),
            Content::Reader(reader) => {
                let bytes = reader.read(buffer)?;
                if let Some(length) = &mut self.declared_length {
                    *length = length.saturating_sub(bytes as u64);
                }
                Ok(bytes)
            }
            Content::Writer(_) => {
                let content = std::mem::replace(&mut self.content, Body::empty().content);
                if let Content::Writer(write) = content {
                    let mut bytes = Vec::new();
                    write(&mut bytes)?;
                    self.content = Content::Memory(Cursor::new(bytes));
                }
                self.read(buffer)
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Body")
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Body::with_content(Content::Memory(Cursor::new(bytes)))
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Body::from(bytes.to_vec())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Body::from(text.into_bytes())
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Body::from(text.as_bytes())
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Body::empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as a slow client does, and then perhaps fails.
    struct Slow {
        bytes_left: usize,
        fails: bool,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.bytes_left, self.fails) {
                (0, false) => Ok(0),
                (0, true) => Err(io::ErrorKind::ConnectionReset.into()),
                _ => {
                    self.bytes_left -= 1;
                    buffer[0] = b'x';
                    Ok(1)
                }
            }
        }
    }

    fn slow(bytes_left: usize, fails: bool) -> Body {
        Body::from_reader(Slow { bytes_left, fails })
    }

    #[test]
    fn a_limit_holds_without_a_declared_length() {
        assert_eq!(slow(5, false).read_all(5).unwrap(), b"xxxxx");
        assert_eq!(slow(6, false).read_all(5).unwrap_err().status(), 413);
    }

    #[test]
    fn a_declared_length_is_refused_before_reading() {
        let mut body = slow(0, true);
        body.declared_length = Some(6);
        assert_eq!(body.read_all(5).unwrap_err().status(), 413);
    }

    #[test]
    fn what_breaks_off_is_a_400() {
        assert_eq!(slow(3, true).read_all(5).unwrap_err().status(), 400);
    }

    #[test]
    fn an_upstream_body_is_not_the_clients_fault() {
        let mut body = slow(6, false);
        body.sender = Sender::Upstream;
        assert_eq!(body.read_all(5).unwrap_err().status(), 502);
    }

    #[test]
    fn each_chunk_is_sent_as_it_arrives() {
        /// Records what was between two flushes.
        #[derive(Default)]
        struct Flushes(Vec<String>, String);
        impl Write for Flushes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1.push_str(&String::from_utf8_lossy(bytes));
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                self.0.push(std::mem::take(&mut self.1));
                Ok(())
            }
        }

        let mut sent = Flushes::default();
        slow(2, false).send_to(&mut sent).unwrap();
        assert_eq!(sent.0, ["x", "x", ""]);

        let mut sent = Flushes::default();
        let body = Body::stream(|writer| {
            write!(writer, "a{}", 1)?;
            writer.flush()?;
            write!(writer, "b{}", 2)
        });
        body.send_to(&mut sent).unwrap();
        assert_eq!(sent.0, ["a1", "b2", ""]);
    }

    #[test]
    fn length_counts_down() {
        let mut body = Body::from("hello");
        body.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(body.length(), Some(3));
        let mut rest = Vec::new();
        body.send_to(&mut rest).unwrap();
        assert_eq!(rest, b"llo");
    }
}
