//! A small blocking HTTP/1.1 client. It sends exactly what it is given, broken or
//! not, and hands out a body as it arrives.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest silence of a server before a test is told that it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 << 10;

/// A request with a body of known length.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A request without headers of its own or body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// `POST path` with a body.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", path).body(body)
    }

    /// Adds a header. A `host` replaces the one that is sent by default.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The head as it goes over the wire; `framing` is the header that announces
    /// the body.
    fn head(&self, address: &str, framing: &str) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let has_host = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        if !has_host {
            let _ = write!(head, "host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head + framing + "\r\n"
    }
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// A whole response, or as much of it as came.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    /// False where the server closed the connection before the body's end.
    pub complete: bool,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The `code` of a problem document, whose form is checked on the way.
    #[must_use]
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "an error is a problem document: {self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status(), "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        assert!(problem["detail"].is_string(), "{problem}");
        let code = problem["code"].as_str();
        code.unwrap_or_else(|| panic!("a problem has a code: {problem}")).to_owned()
    }

    /// Checks status and problem code at once, and returns the detail.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status(), self.text().contains(code)),
            (status, true),
            "expected {status} {code}, got {} {}",
            self.status(),
            self.text()
        );
        assert_eq!((self.status(), self.code().as_str()), (status, code));
        let problem = self.json();
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Checks that it is a whole response with status 200 and this body.
    #[track_caller]
    pub fn assert_text(&self, expected: &str) {
        assert_eq!((self.status(), self.text().as_str(), self.complete), (200, expected, true));
    }

    /// `X-Request-Id`, which every response of the data plane has.
    #[must_use]
    #[track_caller]
    pub fn request_id(&self) -> String {
        let id = self.header("x-request-id");
        id.unwrap_or_else(|| panic!("no X-Request-Id: {self:?}")).to_owned()
    }
}

/// How the body that follows a head ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    /// Bytes left of the current chunk; none before its size was read.
    Chunked(Option<u64>),
    Close,
    Done,
}

/// One connection to a server.
pub struct Connection {
    stream: TcpStream,
    address: String,
    buffer: Vec<u8>,
    framing: Framing,
    bodyless: bool,
    trailers: Vec<(String, String)>,
}

impl Connection {
    /// Connects to `127.0.0.1:port`.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    #[track_caller]
    pub fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// As [`Self::open`].
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn try_open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            buffer: Vec::new(),
            framing: Framing::Done,
            bodyless: false,
            trailers: Vec::new(),
        })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole request, its body with a `Content-Length`.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.bodyless = request.method == "HEAD";
        let framing = match request.body.len() {
            0 if matches!(request.method.as_str(), "GET" | "HEAD" | "DELETE") => String::new(),
            length => format!("content-length: {length}\r\n"),
        };
        let mut bytes = request.head(&self.address, &framing).into_bytes();
        bytes.extend_from_slice(&request.body);
        self.write(&bytes)
    }

    /// Sends the head of a request whose headers say how its body comes, or that
    /// it has none.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn send_head(&mut self, request: &Request) -> io::Result<()> {
        self.bodyless = request.method == "HEAD";
        let head = request.head(&self.address, "");
        self.write(head.as_bytes())
    }

    /// Sends the head of a request whose body follows in [`Self::chunk`]s.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn send_chunked(&mut self, request: &Request) -> io::Result<()> {
        self.bodyless = request.method == "HEAD";
        let head = request.head(&self.address, "transfer-encoding: chunked\r\n");
        self.write(head.as_bytes())
    }

    /// Sends one chunk of a body; an empty one ends it.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.write(bytes)?;
        self.write(b"\r\n")
    }

    /// Ends what is sent; the answer can still be read.
    pub fn half_close(&self) {
        // The other side may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// A second handle for the writing side, for a thread of its own.
    #[must_use]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("clone the socket")
    }

    /// Reads the status of an interim response, such as 100.
    ///
    /// # Errors
    /// When the connection ends before it, or what comes is the final one.
    pub fn interim(&mut self) -> io::Result<u16> {
        match self.any_head()?.status {
            status @ 100..200 => Ok(status),
            status => Err(io::Error::other(format!("the final response: {status}"))),
        }
    }

    /// Reads the head of a response; interim ones are passed over.
    ///
    /// # Errors
    /// When the connection ends before or within it.
    pub fn head(&mut self) -> io::Result<Head> {
        let head = loop {
            let head = self.any_head()?;
            if head.status >= 200 {
                break head;
            }
        };
        let length = head.header("content-length").and_then(|length| length.parse().ok());
        self.trailers.clear();
        self.framing = if self.bodyless || matches!(head.status, 204 | 304) {
            Framing::Done
        } else if head.header("transfer-encoding") == Some("chunked") {
            Framing::Chunked(None)
        } else {
            length.map_or(Framing::Close, Framing::Length)
        };
        Ok(head)
    }

    fn any_head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a response: {text:?}")))?;
        Ok(Head { status, headers: lines.filter_map(field).collect() })
    }

    /// The next piece of the body, as it arrives; none at its end.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => return Ok(None),
                Framing::Length(left) => {
                    let piece = self.take(left)?;
                    self.framing = Framing::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Framing::Chunked(None) => {
                    let line = self.raw_line()?;
                    let size = line.split(';').next().unwrap_or_default();
                    let size = u64::from_str_radix(size.trim(), 16)
                        .map_err(|_| io::Error::other(format!("not a chunk size: {line:?}")))?;
                    self.framing = Framing::Chunked(Some(size));
                    if size == 0 {
                        self.read_trailers()?;
                        self.framing = Framing::Done;
                    }
                }
                Framing::Chunked(Some(0)) => {
                    self.raw_line()?;
                    self.framing = Framing::Chunked(None);
                }
                Framing::Chunked(Some(left)) => {
                    let piece = self.take(left)?;
                    self.framing = Framing::Chunked(Some(left - piece.len() as u64));
                    return Ok(Some(piece));
                }
                Framing::Close => {
                    if self.buffer.is_empty() && self.fill()? == 0 {
                        self.framing = Framing::Done;
                        return Ok(None);
                    }
                    return Ok(Some(std::mem::take(&mut self.buffer)));
                }
            }
        }
    }

    fn read_trailers(&mut self) -> io::Result<()> {
        loop {
            let line = self.raw_line()?;
            if line.is_empty() {
                return Ok(());
            }
            self.trailers.extend(field(&line));
        }
    }

    /// Reads the rest of the response whose head has been read.
    #[must_use]
    pub fn rest(&mut self, head: Head) -> Response {
        let mut body = Vec::new();
        let complete = loop {
            match self.piece() {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break true,
                Err(error) if is_timeout(&error) => panic!("the server hangs in a body: {error}"),
                Err(_) => break false,
            }
        };
        Response { head, body, complete, trailers: std::mem::take(&mut self.trailers) }
    }

    /// Reads a whole response.
    ///
    /// # Errors
    /// When there is not even a head.
    pub fn response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        Ok(self.rest(head))
    }

    /// Sends a request and reads its response.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn call(&mut self, request: &Request) -> Response {
        // A server may answer and close before it has read everything.
        let sent = self.send(request);
        self.response().unwrap_or_else(|error| panic!("no answer: {error} (sent: {sent:?})"))
    }

    /// Whether the server has closed the connection; waits for it.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        match self.fill() {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !is_timeout(&error),
        }
    }

    /// Whether the server has closed the connection by now.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let look = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            let seen = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            seen
        };
        match look(&self.stream) {
            Ok(bytes) => bytes == 0,
            Err(error) => !is_timeout(&error),
        }
    }

    /// Reads the body line by line: each line with the time at which it came.
    pub fn lines(&mut self) -> Lines<'_> {
        Lines { connection: self, text: Vec::new() }
    }

    fn raw_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let length = self.buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        // Copies blocks, not bytes: this is not an optimised build.
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// See [`Connection::lines`].
pub struct Lines<'a> {
    connection: &'a mut Connection,
    text: Vec<u8>,
}

impl Iterator for Lines<'_> {
    type Item = (Instant, String);

    fn next(&mut self) -> Option<(Instant, String)> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                return Some((Instant::now(), line));
            }
            let piece = self.connection.piece().expect("the stream broke off")?;
            self.text.extend_from_slice(&piece);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}
