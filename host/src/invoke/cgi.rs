//! CGI (RFC 3875): a request as variables, a response read from what the guest
//! prints.
//!
//! Strict where it protects: header names and values are checked, framing
//! headers are ours, output before a header is an error. Lenient where scripts
//! are: bare line feeds, a missing Content-Type, `Status:` without a reason.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use http_body::{Body, Frame};

use crate::capabilities::pipe::PipeReader;

/// Most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most header fields of a response.
pub const FIELDS_MAX: usize = 100;

/// Headers that describe this connection: never the guest's to see or to send.
const CONNECTION_HEADERS: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why what a guest printed is not a CGI response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgiError {
    /// The first lines are not headers.
    #[error(
        "the output does not start with CGI headers: line {line} is {text:?}; print a header such \
         as \"Content-Type: text/plain\" and an empty line before the body"
    )]
    NotAHeader {
        /// From 1.
        line: usize,
        /// The line, cut.
        text: String,
    },
    /// The empty line never came.
    #[error("the output ended before the empty line that ends the CGI headers")]
    NoEnd,
    /// The head is too long.
    #[error("the CGI headers are over {HEAD_BYTES_MAX} bytes or {FIELDS_MAX} fields")]
    TooLong,
    /// `Status:` is not a status that a response can have.
    #[error("invalid CGI status {0:?}: use a number from 200 to 599")]
    Status(String),
}

/// The variables of a request. `prefix` is the part of the path that led to the
/// function; the path in `head` no longer has it.
#[must_use]
pub fn variables(
    head: &request::Parts,
    prefix: &str,
    authority: &str,
    peer: SocketAddr,
    secure: bool,
    body_bytes: Option<u64>,
) -> Vec<(String, String)> {
    let mut variables = Vec::with_capacity(16 + head.headers.len());
    let mut add = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    let (server_name, server_port) = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (authority, if secure { "443" } else { "80" }),
    };
    let path = head.uri.path();
    add("GATEWAY_INTERFACE", "CGI/1.1");
    add("SERVER_SOFTWARE", concat!("whit/", env!("CARGO_PKG_VERSION")));
    add("SERVER_PROTOCOL", "HTTP/1.1");
    add("REQUEST_SCHEME", if secure { "https" } else { "http" });
    if secure {
        // What programs ask for, though no standard has it.
        add("HTTPS", "on");
    }
    add("SERVER_NAME", server_name);
    add("SERVER_PORT", server_port);
    add("REQUEST_METHOD", head.method.as_str());
    add("SCRIPT_NAME", prefix);
    add("PATH_INFO", &percent_decode(path));
    add("QUERY_STRING", head.uri.query().unwrap_or(""));
    add("REQUEST_URI", head.uri.path_and_query().map_or(path, |uri| uri.as_str()));
    add("REMOTE_ADDR", &peer.ip().to_string());
    add("REMOTE_PORT", &peer.port().to_string());
    add("HTTP_HOST", authority);
    if let Some(content_type) = text(&head.headers, &CONTENT_TYPE) {
        add("CONTENT_TYPE", content_type);
    }
    if let Some(bytes) = body_bytes {
        add("CONTENT_LENGTH", &bytes.to_string());
    }
    for name in head.headers.keys() {
        // `Proxy` would become HTTP_PROXY, which programs take for their own
        // configuration (the "httpoxy" hole). With '_' for '-' a client could
        // name the variable of another header, one of ours too.
        if name.as_str().contains('_')
            || matches!(name.as_str(), "host" | "content-type" | "content-length" | "proxy")
            || CONNECTION_HEADERS.contains(&name.as_str())
        {
            continue;
        }
        let values: Vec<&str> =
            head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let separator = if name == http::header::COOKIE { "; " } else { ", " };
        let variable: String = name
            .as_str()
            .chars()
            .map(|character| if character == '-' { '_' } else { character.to_ascii_uppercase() })
            .collect();
        add(&format!("HTTP_{variable}"), &values.join(separator));
    }
    variables
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `PATH_INFO` is decoded (RFC 3875, 4.1.5); what is not an escape stays.
fn percent_decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let hex =
            |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) if (high, low) != (0, 0) => {
                    decoded.push(high * 16 + low);
                    rest = after;
                }
                _ => {
                    decoded.push(b'%');
                    rest = tail;
                }
            },
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Collects a guest's output until its head is complete.
#[derive(Debug, Default)]
pub struct HeadReader {
    buffer: BytesMut,
    scanned: usize,
}

/// A head, and the first bytes of the body that came with it.
pub type Head = (StatusCode, HeaderMap, Bytes);

impl HeadReader {
    /// Takes more output. Returns the head once it is complete.
    ///
    /// # Errors
    /// See [`CgiError`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<Option<Head>, CgiError> {
        self.buffer.extend_from_slice(chunk);
        let Some((head_bytes, body_start)) = self.find_end() else {
            return match self.buffer.len() {
                0..=HEAD_BYTES_MAX => self.check_first_line().map(|()| None),
                _ => Err(CgiError::TooLong),
            };
        };
        let mut buffer = std::mem::take(&mut self.buffer).freeze();
        let body = buffer.split_off(body_start);
        buffer.truncate(head_bytes);
        parse_head(&buffer).map(|(status, headers)| Some((status, headers, body)))
    }

    /// Finds an empty line: the length of what is before it and the start of
    /// what is after it. Looks at each byte once.
    fn find_end(&mut self) -> Option<(usize, usize)> {
        let mut line_start = self.scanned;
        while let Some(length) = memchr::memchr(b'\n', self.buffer.get(line_start..)?) {
            let line = self.buffer.get(line_start..line_start + length)?;
            if line.is_empty() || line == b"\r" {
                return Some((line_start, line_start + length + 1));
            }
            line_start += length + 1;
        }
        self.scanned = line_start;
        None
    }

    /// A guest that prints no headers at all is told so at its first line, not
    /// after 32 KiB.
    fn check_first_line(&self) -> Result<(), CgiError> {
        match memchr::memchr(b'\n', &self.buffer) {
            Some(end) => {
                let line = self.buffer.get(..end).unwrap_or_default();
                field(line).map(|_| ()).ok_or_else(|| not_a_header(1, line))
            }
            None => Ok(()),
        }
    }
}

fn not_a_header(line: usize, text: &[u8]) -> CgiError {
    CgiError::NotAHeader { line, text: String::from_utf8_lossy(text).chars().take(60).collect() }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.strip_prefix(b":")?.trim_ascii();
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fn parse_head(head: &[u8]) -> Result<(StatusCode, HeaderMap), CgiError> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    for (index, line) in head.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (name, value) = field(line).ok_or_else(|| not_a_header(index + 1, line))?;
        if name == "status" {
            status = Some(parse_status(value.as_bytes())?);
        } else if !CONNECTION_HEADERS.contains(&name.as_str()) {
            headers.append(name, value);
        }
        if headers.len() > FIELDS_MAX {
            return Err(CgiError::TooLong);
        }
    }
    if headers.is_empty() && status.is_none() {
        return Err(not_a_header(1, b""));
    }
    let redirect = headers.contains_key(LOCATION);
    if !redirect && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let default = if redirect { StatusCode::FOUND } else { StatusCode::OK };
    Ok((status.unwrap_or(default), headers))
}

fn parse_status(value: &[u8]) -> Result<StatusCode, CgiError> {
    let code = value.split(|byte| *byte == b' ').next().unwrap_or_default();
    match StatusCode::from_bytes(code) {
        Ok(status) if (200..600).contains(&status.as_u16()) => Ok(status),
        _ => Err(CgiError::Status(String::from_utf8_lossy(value).chars().take(60).collect())),
    }
}

/// The body of a CGI response: what follows the head, as it is printed.
pub struct CgiBody {
    first: Bytes,
    output: PipeReader,
}

impl CgiBody {
    /// The body that starts with `first` and goes on with `output`.
    #[must_use]
    pub fn new(first: Bytes, output: PipeReader) -> Self {
        Self { first, output }
    }
}

impl Body for CgiBody {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.output.poll_read(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The length that a guest declared, if it did.
#[must_use]
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Result<Option<Head>, CgiError> {
        HeadReader::default().push(output.as_bytes())
    }

    #[test]
    fn heads_read_as_scripts_print_them() {
        let (status, headers, body) =
            read("Content-Type: text/html\r\nX-A: 1\r\n\r\n<p>").unwrap().unwrap();
        assert_eq!(status, 200);
        assert_eq!(
            (headers["content-type"].as_bytes(), &headers["x-a"]),
            (&b"text/html"[..], &HeaderValue::from_static("1"))
        );
        assert_eq!(body, "<p>");
        let (status, headers, body) = read("Status: 404 Not Found\n\n").unwrap().unwrap();
        assert_eq!((status.as_u16(), body.len()), (404, 0));
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        let (status, headers, _) = read("Location: /there\n\n").unwrap().unwrap();
        assert_eq!((status.as_u16(), headers.contains_key(CONTENT_TYPE)), (302, false));
        let (_, headers, _) = read("A: b\nTransfer-Encoding: chunked\n\n").unwrap().unwrap();
        assert!(!headers.contains_key("transfer-encoding"));
    }

    #[test]
    fn heads_may_come_in_pieces() {
        let mut reader = HeadReader::default();
        for piece in ["Content-", "Type: a/b\r", "\n", "\r"] {
            assert_eq!(reader.push(piece.as_bytes()), Ok(None));
        }
        let (_, headers, body) = reader.push(b"\nrest").unwrap().unwrap();
        assert_eq!((headers["content-type"].as_bytes(), &body[..]), (&b"a/b"[..], &b"rest"[..]));
    }

    #[test]
    fn what_is_not_a_head_is_refused() {
        for output in ["hello\n", "\nbody", "hello world\n\n", "Bad Name: x\n\n", "a: \x01\n\n"] {
            assert!(matches!(read(output), Err(CgiError::NotAHeader { .. })), "{output:?}");
        }
        for status in ["Status: 99\n\n", "Status: abc\n\n", "Status: 101 Up\n\n", "Status: 999\n\n"]
        {
            assert!(matches!(read(status), Err(CgiError::Status(_))), "{status:?}");
        }
        assert_eq!(read(&format!("A: {}", "x".repeat(40_000))), Err(CgiError::TooLong));
        assert_eq!(read(&("A: b\n".repeat(101) + "\n")), Err(CgiError::TooLong));
    }

    #[test]
    fn variables_are_rfc_3875() {
        let request = http::Request::builder()
            .method("POST")
            .uri("/a%20b/%zz?q=1")
            .header("content-type", "x/y")
            .header("x-two", "1")
            .header("x-two", "2")
            .header("proxy", "evil")
            .header("x_forwarded_prefix", "/evil")
            .header("connection", "x-two")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let peer = "10.0.0.1:9".parse().unwrap();
        let variables = variables(&head, "/fn", "host:81", peer, false, Some(3));
        let get = |name: &str| {
            variables.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
        };
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("SCRIPT_NAME", "/fn"),
            ("PATH_INFO", "/a b/%zz"),
            ("QUERY_STRING", "q=1"),
            ("REQUEST_URI", "/a%20b/%zz?q=1"),
            ("CONTENT_TYPE", "x/y"),
            ("CONTENT_LENGTH", "3"),
            ("SERVER_NAME", "host"),
            ("SERVER_PORT", "81"),
            ("HTTP_X_TWO", "1, 2"),
            ("REMOTE_ADDR", "10.0.0.1"),
        ] {
            assert_eq!(get(name), Some(value), "{name}");
        }
        assert_eq!(get("HTTP_PROXY"), None);
        assert_eq!(get("HTTP_X_FORWARDED_PREFIX"), None);
        assert_eq!((get("REQUEST_SCHEME"), get("HTTPS")), (Some("http"), None));
    }
}
