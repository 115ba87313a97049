//! As much of an HTTP/1.1 client as a benchmark needs: it knows where a response
//! ends, and little else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, bail};
use memchr::memmem;

/// A server that says nothing for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 128 << 10;

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}");
    if !body.is_empty() || matches!(method, "POST" | "PUT") {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// `GET path`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    request("GET", path, "", b"")
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

/// Finds the end of one response in what has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    head: Option<(u16, Framing)>,
    head_bytes: usize,
    /// From where to go on.
    at: usize,
    /// Where the pieces of the body are.
    parts: Vec<Range<usize>>,
}

impl Parser {
    /// Forgets the response that was read.
    pub(crate) fn reset(&mut self) {
        self.head = None;
        self.at = 0;
        self.parts.clear();
    }

    /// The status of the response in `read`, once all of it is there.
    pub(crate) fn advance(&mut self, read: &[u8]) -> anyhow::Result<Option<u16>> {
        let (status, framing) = match self.head {
            Some(head) => head,
            None => match self.head(read)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let ended = match framing {
            Framing::Length(bytes) => {
                let end = self.head_bytes + bytes;
                if self.parts.is_empty() && read.len() >= end {
                    self.parts.push(self.head_bytes..end);
                }
                read.len() >= end
            }
            Framing::Chunked => self.chunks(read)?,
        };
        Ok(ended.then_some(status))
    }

    fn head(&mut self, read: &[u8]) -> anyhow::Result<Option<(u16, Framing)>> {
        let Some(end) = memmem::find(read, b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, _) = read.split_at(end);
        let head = std::str::from_utf8(head).context("a head that is not text")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.with_context(|| format!("no status in {head:?}"))?;
        let mut framing = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                framing = Some(Framing::Length(value.trim().parse().context("its length")?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Some(Framing::Chunked);
            }
        }
        let framing = framing.with_context(|| format!("no framing in {head:?}"))?;
        self.head_bytes = end + 4;
        self.at = self.head_bytes;
        self.head = Some((status, framing));
        Ok(self.head)
    }

    /// Whether the last chunk is there. Trailers are passed over.
    fn chunks(&mut self, read: &[u8]) -> anyhow::Result<bool> {
        loop {
            let rest = read.get(self.at..).unwrap_or_default();
            let Some(line_end) = memmem::find(rest, b"\r\n") else {
                return Ok(false);
            };
            let (size, _) = rest.split_at(line_end);
            let size = std::str::from_utf8(size).ok().and_then(|size| size.split(';').next());
            let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            let size = size.context("a chunk without a size")?;
            let start = self.at + line_end + 2;
            if size == 0 {
                // Either the empty line at once, or trailers before it.
                let end = read.get(start - 2..).unwrap_or_default();
                return Ok(memmem::find(end, b"\r\n\r\n").is_some());
            }
            if read.len() < start + size + 2 {
                return Ok(false);
            }
            self.parts.push(start..start + size);
            self.at = start + size + 2;
        }
    }

    /// The body of the response that was read.
    pub(crate) fn body(&self, read: &[u8]) -> Vec<u8> {
        self.parts
            .iter()
            .flat_map(|part| read.get(part.clone()).unwrap_or_default())
            .copied()
            .collect()
    }

    /// Bytes of the body that was read.
    pub(crate) fn body_bytes(&self) -> usize {
        self.parts.iter().map(Range::len).sum()
    }
}

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One connection that waits for each response.
pub(crate) struct Client {
    stream: TcpStream,
    parser: Parser,
    read: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        Ok(Self { stream, parser: Parser::default(), read: Vec::new() })
    }

    pub(crate) fn call(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        self.stream.write_all(request)?;
        self.parser.reset();
        self.read.clear();
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                bail!("the server ended the connection");
            }
            self.read.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if let Some(status) = self.parser.advance(&self.read)? {
                let head = self.read.get(..self.parser.head_bytes).unwrap_or_default();
                let head = String::from_utf8_lossy(head).into_owned();
                return Ok(Response { status, head, body: self.parser.body(&self.read) });
            }
        }
    }
}
