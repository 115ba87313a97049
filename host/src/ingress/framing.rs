//! What HTTP/1 bytes have to look like before they are parsed.
//!
//! hyper reads leniently where the standard allows it, and where it is strict
//! says so in its answer. What it lets pass, another server in front of this one
//! may read differently, and then a request can hide inside another: line feeds
//! alone, two lengths, both framings at once, spaces around a chunk's size. The
//! bytes are looked at once, as they are read from the connection, and the line
//! that breaks a rule loses its end: hyper then refuses it in its turn, after
//! the answers to the requests before it, and closes the connection.

/// Beginning of a line that is kept when the line comes in pieces, in bytes.
/// Lengths and chunk sizes are shorter.
const LINE_BYTES_KEPT: usize = 64;
/// Digits of the largest length and, in hexadecimal, of the largest chunk.
const LENGTH_DIGITS_MAX: usize = 18;
const CHUNK_DIGITS_MAX: usize = 15;
/// In place of the end of a line that breaks a rule: no parser takes it.
const REFUSED: u8 = 0;

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct Framing {
    expected: Expected,
    /// How the current message's body is framed, as far as its head has said.
    body: Body,
    /// The current line, if its beginning was in an earlier piece.
    line: Line,
    /// The request line has a fragment, which a target does not have, and which
    /// would silently be cut off.
    fragment: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    RequestLine,
    Field,
    ChunkSize,
    ChunkEnd,
    Trailer,
    /// Bytes of a body, and what comes after them.
    Data(u64, After),
    /// Nothing more: the connection is about to be closed.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Message,
    Chunk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
    /// Nobody here can tell where it ends; the request is refused.
    Unknown,
}

/// A rule was broken.
#[derive(Debug)]
struct Broken;

impl Default for Framing {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            expected: Expected::RequestLine,
            body: Body::None,
            line: Line::default(),
            fragment: false,
        }
    }

    /// Whether some of a head is there, but not all.
    #[must_use]
    pub fn inside_a_head(&self) -> bool {
        match self.expected {
            Expected::RequestLine => !self.line.is_empty(),
            Expected::Field => true,
            _ => false,
        }
    }

    /// Whether a message has ended, and nothing of another one is there.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.expected == Expected::RequestLine && self.line.is_empty()
    }

    /// Looks at what was read, and spoils it if it breaks a rule.
    pub fn check(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match self.expected {
                Expected::Nothing => return,
                Expected::Data(left, after) => {
                    let length = rest.len() as u64;
                    if length < left {
                        self.expected = Expected::Data(left - length, after);
                        return;
                    }
                    // It fits: it is less than what was read.
                    at += usize::try_from(left).unwrap_or(usize::MAX);
                    self.expected = after.expected();
                }
                _ => {
                    let end = memchr::memchr(b'\n', rest);
                    let piece = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
                    if self.expected == Expected::RequestLine {
                        self.fragment |= memchr::memchr(b'#', piece).is_some();
                    }
                    let Some(end) = end else {
                        self.line.push(piece);
                        return;
                    };
                    let before = piece.last().copied().unwrap_or(self.line.last);
                    if self.take_line(piece).is_err() {
                        // In a chunk's extension hyper takes anything but this.
                        let is_refused_as_it_is =
                            self.expected == Expected::ChunkSize && before != b'\r';
                        if let Some(line_feed) = rest.get_mut(end).filter(|_| !is_refused_as_it_is)
                        {
                            *line_feed = REFUSED;
                        }
                        self.expected = Expected::Nothing;
                        return;
                    }
                    at += end + 1;
                }
            }
        }
    }

    /// Takes a line without its line feed.
    fn take_line(&mut self, piece: &[u8]) -> Result<(), Broken> {
        if self.line.is_empty() {
            let cut = piece.len() > LINE_BYTES_KEPT;
            return self.line_ended(piece.strip_suffix(b"\r").ok_or(Broken)?, cut);
        }
        self.line.push(piece);
        let line = std::mem::take(&mut self.line);
        if line.last != b'\r' {
            return Err(Broken);
        }
        let kept = line.kept();
        self.line_ended(kept.strip_suffix(b"\r").unwrap_or(kept), line.bytes > kept.len())
    }

    /// `cut`: the line is longer than what is kept of one that comes in pieces. It
    /// means the same however it came.
    fn line_ended(&mut self, line: &[u8], cut: bool) -> Result<(), Broken> {
        self.expected = match self.expected {
            // Empty lines before a request are passed over, as by the standard.
            Expected::RequestLine if line.is_empty() => Expected::RequestLine,
            Expected::RequestLine if self.fragment => return Err(Broken),
            Expected::RequestLine => {
                self.body = Body::None;
                Expected::Field
            }
            Expected::Field if line.is_empty() => match self.body {
                Body::None | Body::Length(0) => Expected::RequestLine,
                Body::Length(bytes) => Expected::Data(bytes, After::Message),
                Body::Chunked => Expected::ChunkSize,
                Body::Unknown => Expected::Nothing,
            },
            Expected::Field => {
                self.take_field(line, cut)?;
                Expected::Field
            }
            Expected::ChunkSize => match chunk_bytes(line, cut)? {
                0 => Expected::Trailer,
                bytes => Expected::Data(bytes, After::Chunk),
            },
            Expected::ChunkEnd if line.is_empty() => Expected::ChunkSize,
            Expected::ChunkEnd => return Err(Broken),
            Expected::Trailer if line.is_empty() => Expected::RequestLine,
            Expected::Trailer => Expected::Trailer,
            // Neither has lines.
            expected @ (Expected::Data(..) | Expected::Nothing) => expected,
        };
        Ok(())
    }

    /// Only the fields that frame the body matter.
    fn take_field(&mut self, line: &[u8], cut: bool) -> Result<(), Broken> {
        let framed = |own: &mut Body, body| {
            let first = std::mem::replace(own, body) == Body::None;
            // Twice the same, too: not everybody takes the same one of two.
            if first && !cut { Ok(()) } else { Err(Broken) }
        };
        // Most fields begin with another letter.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => match value(line, b"content-length") {
                Some(value) => framed(&mut self.body, Body::Length(length(value)?)),
                None => Ok(()),
            },
            Some(b't') => match value(line, b"transfer-encoding") {
                Some(value) if value.eq_ignore_ascii_case(b"chunked") => {
                    framed(&mut self.body, Body::Chunked)
                }
                Some(_) => framed(&mut self.body, Body::Unknown),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl After {
    fn expected(self) -> Expected {
        match self {
            Self::Message => Expected::RequestLine,
            Self::Chunk => Expected::ChunkEnd,
        }
    }
}

/// The value of a field, if this is its line.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn length(value: &[u8]) -> Result<u64, Broken> {
    number(value, 10, LENGTH_DIGITS_MAX)
}

/// The size of a chunk: digits, and perhaps an extension, which nobody reads.
fn chunk_bytes(line: &[u8], cut: bool) -> Result<u64, Broken> {
    let digits = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (size, extension) = line.split_at_checked(digits).ok_or(Broken)?;
    if cut || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Broken);
    }
    number(size, 16, CHUNK_DIGITS_MAX)
}

fn number(digits: &[u8], radix: u32, digits_max: usize) -> Result<u64, Broken> {
    if digits.is_empty() || digits.len() > digits_max {
        return Err(Broken);
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(radix).ok_or(Broken)?;
        Ok(number * u64::from(radix) + u64::from(digit))
    })
}

/// A line that comes in pieces.
#[derive(Debug)]
struct Line {
    beginning: [u8; LINE_BYTES_KEPT],
    bytes: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Self { beginning: [0; LINE_BYTES_KEPT], bytes: 0, last: 0 }
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, piece: &[u8]) {
        if let Some(free) = self.beginning.get_mut(self.bytes..) {
            for (place, byte) in free.iter_mut().zip(piece) {
                *place = *byte;
            }
        }
        self.bytes = self.bytes.saturating_add(piece.len());
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn kept(&self) -> &[u8] {
        self.beginning.get(..self.bytes).unwrap_or(&self.beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of bytes that come in pieces of this size.
    fn checked(bytes: &str, piece: usize) -> (String, Framing) {
        let mut framing = Framing::new();
        let mut bytes = bytes.as_bytes().to_vec();
        for piece in bytes.chunks_mut(piece) {
            framing.check(piece);
        }
        (String::from_utf8(bytes).unwrap(), framing)
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\n";

    #[test]
    fn what_is_right_passes_in_pieces_of_any_size() {
        let long = "x".repeat(200);
        let messages = [
            format!("{HEAD}\r\n"),
            format!("\r\n\r\n{HEAD}x-long: {long}\r\n\r\n"),
            format!("{HEAD}Content-Length:\t 5 \r\n\r\na\nb\nc"),
            format!("{HEAD}content-length: 0\r\ncontent-type: x\r\n\r\n"),
            format!(
                "{HEAD}Transfer-Encoding: Chunked\r\n\r\n3\r\na\nb\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n"
            ),
        ];
        let all = messages.concat();
        for piece in [1, 2, 3, 7, 63, 64, 65, 1000] {
            let (after, framing) = checked(&all, piece);
            assert_eq!(after, all, "{piece}");
            assert_eq!(framing.expected, Expected::RequestLine, "{piece}");
            assert!(!framing.inside_a_head());
        }
    }

    #[test]
    fn a_head_that_is_not_whole_is_known() {
        for (bytes, inside) in [
            ("", false),
            ("G", true),
            ("GET / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r", true),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\r\ncontent-length: 3\r\n\r\n1", false),
            ("GET / HTTP/1.1\r\ncontent-length: 1\r\n\r\n1P", true),
        ] {
            assert_eq!(checked(bytes, 1000).1.inside_a_head(), inside, "{bytes:?}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_spoilt_in_pieces_of_any_size() {
        let zeros = "0".repeat(100);
        let after_head = |fields: &str| format!("{HEAD}{fields}\r\n\r\n");
        let chunked = |body: &str| format!("{HEAD}transfer-encoding: chunked\r\n\r\n{body}");
        let broken = [
            "POST / HTTP/1.1\nhost: a\r\n\r\n".to_owned(),
            format!("{HEAD}x: y\n\r\n"),
            format!("{HEAD}\n"),
            "\nGET / HTTP/1.1\r\n".to_owned(),
            "GET /a#b HTTP/1.1\r\n".to_owned(),
            after_head("content-length: 1\r\ncontent-length: 1"),
            after_head("content-length: 1\r\ntransfer-encoding: chunked"),
            after_head("transfer-encoding: chunked\r\ncontent-length: 1"),
            after_head("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            after_head("transfer-encoding: gzip\r\ncontent-length: 1"),
            after_head("content-length: +1"),
            after_head("content-length: 1, 1"),
            after_head("content-length: 0x1"),
            after_head("content-length:"),
            after_head("content-length: 99999999999999999999"),
            after_head(&format!("content-length: {zeros}1")),
            chunked("5 \r\n"),
            chunked(" 5\r\n"),
            chunked("0x5\r\n"),
            chunked("+5\r\n"),
            chunked("\r\n"),
            chunked("5\n"),
            chunked("5;a\rb\r\n"),
            chunked("ffffffffffffffff\r\n"),
            chunked(&format!("{zeros}5\r\n")),
            chunked("1\r\nab\r\n"),
            chunked("1\r\na\n"),
            chunked("0\r\nx: y\n"),
        ];
        for bytes in broken {
            for piece in [1, 2, 3, 7, 64, 1000] {
                let (after, framing) = checked(&bytes, piece);
                assert_eq!(framing.expected, Expected::Nothing, "{bytes:?} in {piece}s");
                let is_refused_as_it_is = bytes.ends_with("chunked\r\n\r\n5\n");
                assert_eq!(after == bytes, is_refused_as_it_is, "{bytes:?} in {piece}s");
            }
        }
    }

    #[test]
    fn bodies_may_hold_anything() {
        let smuggled = "POST / HTTP/1.1\ncontent-length: 1\ncontent-length: 2\n\n";
        let length = smuggled.len();
        let bytes = format!("{HEAD}content-length: {length}\r\n\r\n{smuggled}{HEAD}\r\n");
        assert_eq!(checked(&bytes, 10).0, bytes);
    }
}
