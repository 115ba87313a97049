//! Where the types of this crate meet those of WASI 0.2. Only built for the wasm target.

use std::io::{self, ErrorKind, Read, Write};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use wasip2::http::types::{Fields, HeaderError, IncomingBody};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

pub(crate) mod client;
pub(crate) mod readiness;
pub mod server;

/// The headers as WASI has them, `Content-Length` added where the length is known.
fn to_fields(headers: &HeaderMap, length: Option<u64>) -> Fields {
    let mut entries: Vec<(String, Vec<u8>)> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    if let Some(length) = length
        && !headers.contains_key(CONTENT_LENGTH)
    {
        entries.push((CONTENT_LENGTH.to_string(), length.to_string().into_bytes()));
    }
    Fields::from_list(&entries).unwrap_or_else(|_| {
        let fields = Fields::new();
        for (name, value) in &entries {
            match fields.append(name, value) {
                // Headers such as `Connection` are the host's; a handler that passes on what it
                // was given should not have to know which these are.
                Ok(()) | Err(HeaderError::Forbidden) => {}
                Err(error) => eprintln!("error: the header `{name}` was not sent: {error:?}"),
            }
        }
        fields
    })
}

fn from_fields(fields: &Fields) -> HeaderMap {
    fields
        .entries()
        .into_iter()
        .filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let value = HeaderValue::from_bytes(&value).ok()?;
            Some((name, value))
        })
        .collect()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body. The order of the fields is the order in which WASI wants them dropped.
struct BodyReader {
    stream: InputStream,
    _body: IncomingBody,
}

impl BodyReader {
    /// `None` when the body was taken before, which the callers here never do.
    fn new(body: IncomingBody) -> Option<Self> {
        let stream = body.stream().ok()?;
        Some(BodyReader {
            stream,
            _body: body,
        })
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.stream.blocking_read(buffer.len() as u64) {
            Ok(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Err(StreamError::Closed) => Ok(0),
            Err(error) => Err(to_io_error(error)),
        }
    }
}

/// Writes a body.
struct BodyWriter(OutputStream);

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let permitted = loop {
            match self.0.check_write().map_err(to_io_error)? {
                0 => self.0.subscribe().block(),
                permitted => break usize::try_from(permitted).unwrap_or(usize::MAX),
            }
        };
        let length = bytes.len().min(permitted);
        self.0.write(&bytes[..length]).map_err(to_io_error)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.blocking_flush().map_err(to_io_error)
    }
}

fn to_io_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(error) => io::Error::other(error.to_debug_string()),
    }
}
