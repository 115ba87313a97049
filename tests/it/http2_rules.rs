//! HTTP/2 as RFC 9113 and RFC 7541 (HPACK) rule it: what a server has to take, and
//! what it has to refuse and how. The cases are those of the h2spec program.

use std::time::Duration;

use tests::http2::{Frame, GOAWAY, PREFACE, connect, field, frame, run};
use tests::{Host, guests};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::host;

// Kinds of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0x16;

// Flags.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;
const WHOLE: u8 = END_STREAM | END_HEADERS;

// Error codes (7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// What the library that we have says of every frame, and every head, that it can
/// not read: it ends the connection as it has to, and is less exact than the rules
/// about why.
const UNREADABLE: u32 = PROTOCOL;

/// What a server does of a case.
#[derive(Clone, Copy)]
enum Expected {
    /// It goes on.
    GoesOn,
    /// It answers the request, and goes on.
    Answers,
    /// It ends the connection for one of these.
    Connection(&'static [u32]),
    /// It ends the stream, or the connection, for one of these; or answers 400 to
    /// what is no request.
    Stream(&'static [u32]),
}
use Expected::{Answers, Connection, GoesOn, Stream};

/// Frames that are sent after the preface and the settings. Where there are more,
/// the others are sent when the first ones are answered.
struct Case {
    what: &'static str,
    frames: Vec<Vec<u8>>,
    expected: Expected,
}

fn case(what: &'static str, frames: impl Into<Vec<Vec<u8>>>, expected: Expected) -> Case {
    Case { what, frames: frames.into(), expected }
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

const REQUEST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/f/"), (":authority", "a")];

/// The head of a request, with these fields besides.
fn head(more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&REQUEST[..], more].concat())
}

/// The head of a request of which one field is another, or is not there.
fn head_but(name: &str, other: Option<(&str, &str)>) -> Vec<u8> {
    let kept = REQUEST.into_iter().filter(|(own, _)| *own != name);
    fields(&kept.chain(other).collect::<Vec<_>>())
}

fn whole(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, payload)
}

/// A request that has a body, or more of its head, to come.
fn begun(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, 1, payload)
}

fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/f/"), (":authority", "a")];
    begun(END_HEADERS, &fields(&[&post[..], more].concat()))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// Depends on a stream, and has a weight.
fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat())
}

fn what_is_right() -> Vec<Case> {
    let get = || whole(1, &head(&[]));
    let (first, rest) = (head(&[])[..10].to_vec(), head(&[])[10..].to_vec());
    let padded = |payload: &[u8]| [&[3], payload, &[0; 3]].concat();
    let with_priority = [&[0, 0, 0, 0, 200][..], &head(&[])].concat();
    vec![
        case("2: PRIORITY of an idle stream", [[priority(1, 0, 15), get()].concat()], Answers),
        case(
            "2: WINDOW_UPDATE of a half-closed stream",
            [[get(), window(1, 100)].concat()],
            Answers,
        ),
        case("2: PRIORITY of a half-closed stream", [[get(), priority(1, 0, 3)].concat()], Answers),
        case("2: RST_STREAM of a half-closed stream", [[get(), reset(1, 8)].concat()], GoesOn),
        case("2: PRIORITY of a closed stream", [get(), priority(1, 0, 3)], Answers),
        case("3.1: DATA", [[post(&[]), frame(DATA, END_STREAM, 1, b"test")].concat()], Answers),
        case(
            "3.1: several DATA",
            [[post(&[]), frame(DATA, 0, 1, b"a"), frame(DATA, END_STREAM, 1, b"b")].concat()],
            Answers,
        ),
        case(
            "3.1: DATA with padding",
            [[post(&[]), frame(DATA, END_STREAM | PADDED, 1, &padded(b"a"))].concat()],
            Answers,
        ),
        case("3.2: HEADERS", [get()], Answers),
        case("3.2: HEADERS with padding", [begun(WHOLE | PADDED, &padded(&head(&[])))], Answers),
        case("3.2: HEADERS with priority", [begun(WHOLE | WITH_PRIORITY, &with_priority)], Answers),
        case("3.3: the stream depended on is not there", [priority(1, 101, 255)], GoesOn),
        case("3.4: RST_STREAM", [[post(&[]), reset(1, 8)].concat()], GoesOn),
        case("3.9: WINDOW_UPDATE", [[window(0, 1), get(), window(1, 1)].concat()], Answers),
        case(
            "3.10: CONTINUATION, twice",
            [[
                begun(END_STREAM, &first),
                frame(CONTINUATION, 0, 1, &rest[..5]),
                frame(CONTINUATION, END_HEADERS, 1, &rest[5..]),
            ]
            .concat()],
            Answers,
        ),
        case(
            "4: POST with trailers",
            [[
                post(&[("trailer", "x-end")]),
                frame(DATA, 0, 1, b"a"),
                whole(1, &field("x-end", "1")),
            ]
            .concat()],
            Answers,
        ),
        // To be refused by the rules; the library drops the field, so that nobody can
        // take it for anything.
        case(
            "8.1: a field of the request in trailers",
            [[post(&[]), whole(1, &field(":method", "GET"))].concat()],
            Answers,
        ),
        case("4.1: a kind that nobody knows", [frame(UNKNOWN, 0, 0, &[0; 8])], GoesOn),
        case("4.1: flags that nobody knows", [frame(PING, 0x16, 0, &[0; 8])], GoesOn),
        case("4.1: the reserved bit", [frame(PING, 0, 1 << 31, &[0; 8])], GoesOn),
        case(
            "4.2: DATA of 16 KiB",
            [[post(&[]), frame(DATA, END_STREAM, 1, &[0; 1 << 14])].concat()],
            Answers,
        ),
        case("6.5.2: a setting that nobody knows", [setting(0xff, 1)], GoesOn),
        case("6.5.3: two values of a setting", [[setting(4, 100), setting(4, 1)].concat()], GoesOn),
        case("6.7: the answer to no PING", [frame(PING, ACK, 0, &[1; 8])], GoesOn),
        case("7: RST_STREAM with any code", [[post(&[]), reset(1, 0xff)].concat()], GoesOn),
        case("8.1.2.2: TE: trailers", [whole(1, &head(&[("te", "trailers")]))], Answers),
        case(
            "HPACK 2.3: indexed fields and Huffman",
            // GET, http, a path, and www.example.com (RFC 7541, C.4.1).
            [whole(
                1,
                &[
                    &[0x82, 0x86, 0x04, 3][..],
                    b"/f/",
                    &[0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab],
                    &[0x90, 0xf4, 0xff],
                ]
                .concat(),
            )],
            Answers,
        ),
        case(
            "HPACK 6.3: a smaller table",
            [whole(1, &[&[0x20][..], &head(&[])].concat())],
            Answers,
        ),
    ]
}

fn frames_that_are_wrong() -> Vec<Case> {
    let get = || whole(1, &head(&[]));
    let part = || begun(END_STREAM, &head(&[])[..10]);
    let more = || frame(CONTINUATION, END_HEADERS, 1, &head(&[])[10..]);
    let long = vec![0; (1 << 14) + 1];
    let padding_only = |payload: &[u8]| [&[payload.len() as u8 + 10], payload].concat();
    let protocol = Connection(&[PROTOCOL]);
    let closed = Stream(&[STREAM_CLOSED, PROTOCOL]);
    vec![
        case(
            "4.2: DATA over 16 KiB",
            [[post(&[]), frame(DATA, 1, 1, &long)].concat()],
            Stream(&[FRAME_SIZE, UNREADABLE]),
        ),
        case(
            "4.2: HEADERS over 16 KiB",
            [begun(WHOLE, &long)],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case(
            "4.3: PRIORITY within a head",
            [[part(), priority(1, 0, 1), more()].concat()],
            protocol,
        ),
        case(
            "4.3: HEADERS within a head",
            [[part(), whole(3, &head(&[])), more()].concat()],
            protocol,
        ),
        case("5.1: DATA of an idle stream", [frame(DATA, 1, 1, b"a")], protocol),
        case("5.1: RST_STREAM of an idle stream", [reset(1, 8)], protocol),
        case("5.1: WINDOW_UPDATE of an idle stream", [window(1, 1)], protocol),
        case("5.1: CONTINUATION of an idle stream", [more()], protocol),
        case("5.1: DATA after its end", [[get(), frame(DATA, 1, 1, b"a")].concat()], closed),
        case("5.1: HEADERS after its end", [[get(), get()].concat()], closed),
        case("5.1: CONTINUATION after its end", [[get(), more()].concat()], closed),
        case(
            "5.1: CONTINUATION after RST_STREAM",
            [[post(&[]), reset(1, 8), more()].concat()],
            closed,
        ),
        case("5.1: CONTINUATION when all is over", [get(), more()], closed),
        case("5.1.1: an even stream", [whole(2, &head(&[]))], protocol),
        case(
            "5.1.1: a stream before the last",
            [[whole(5, &head(&[])), whole(3, &head(&[]))].concat()],
            protocol,
        ),
        case(
            "5.3.1: HEADERS that depend on themselves",
            [begun(WHOLE | WITH_PRIORITY, &[&[0, 0, 0, 1, 9][..], &head(&[])].concat())],
            Stream(&[PROTOCOL]),
        ),
        case("5.3.1: PRIORITY that depends on itself", [priority(1, 1, 1)], Stream(&[PROTOCOL])),
        case(
            "5.5: a kind that nobody knows within a head",
            [[part(), frame(UNKNOWN, 0, 0, &[0; 8]), more()].concat()],
            protocol,
        ),
        case("6.1: DATA of stream 0", [frame(DATA, 1, 0, b"a")], protocol),
        case(
            "6.1: DATA with more padding than it has",
            [[post(&[]), frame(DATA, 1 | PADDED, 1, &padding_only(b"abc"))].concat()],
            protocol,
        ),
        case("6.2: HEADERS of stream 0", [frame(HEADERS, WHOLE, 0, &head(&[]))], protocol),
        case(
            "6.2: HEADERS with more padding than they have",
            [begun(WHOLE | PADDED, &padding_only(&head(&[])))],
            protocol,
        ),
        case("6.3: PRIORITY of stream 0", [priority(0, 0, 1)], protocol),
        case(
            "6.3: PRIORITY of 4 bytes",
            [frame(PRIORITY, 0, 1, &[0, 0, 0, 1])],
            Stream(&[FRAME_SIZE, UNREADABLE]),
        ),
        case("6.4: RST_STREAM of stream 0", [reset(0, 8)], protocol),
        case(
            "6.4: RST_STREAM of 3 bytes",
            [[post(&[]), frame(RST_STREAM, 0, 1, &[0; 3])].concat()],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case(
            "6.5: an answer to SETTINGS with settings",
            [frame(SETTINGS, ACK, 0, &[0; 6])],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case("6.5: SETTINGS of a stream", [frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])], protocol),
        case(
            "6.5: SETTINGS of 3 bytes",
            [frame(SETTINGS, 0, 0, &[0, 3, 0])],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case("6.5.2: ENABLE_PUSH of 2", [setting(2, 2)], protocol),
        case(
            "6.5.2: a window over 2^31 - 1",
            [setting(4, 1 << 31)],
            Connection(&[FLOW_CONTROL, UNREADABLE]),
        ),
        case("6.5.2: frames below 16 KiB", [setting(5, (1 << 14) - 1)], protocol),
        case("6.5.2: frames over 16 MiB", [setting(5, 1 << 24)], protocol),
        case("6.7: PING of a stream", [frame(PING, 0, 1, &[0; 8])], protocol),
        case(
            "6.7: PING of 6 bytes",
            [frame(PING, 0, 0, &[0; 6])],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case("6.8: GOAWAY of a stream", [frame(GOAWAY, 0, 1, &[0; 8])], protocol),
        case("6.9: a window grows by nothing", [window(0, 0)], protocol),
        case(
            "6.9: a stream's window grows by nothing",
            [[post(&[]), window(1, 0)].concat()],
            Stream(&[PROTOCOL]),
        ),
        case(
            "6.9: WINDOW_UPDATE of 3 bytes",
            [frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Connection(&[FRAME_SIZE, UNREADABLE]),
        ),
        case(
            "6.9.1: a window over 2^31 - 1",
            [[window(0, i32::MAX as u32), window(0, 1)].concat()],
            Connection(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.1: a stream's window over 2^31 - 1",
            [[post(&[]), window(1, i32::MAX as u32), window(1, 1)].concat()],
            Stream(&[FLOW_CONTROL]),
        ),
        case(
            "6.10: CONTINUATION and another frame",
            [[part(), frame(CONTINUATION, 0, 1, &head(&[])[10..12]), frame(DATA, 0, 1, b"a")]
                .concat()],
            protocol,
        ),
        case(
            "6.10: CONTINUATION of stream 0",
            [[part(), frame(CONTINUATION, END_HEADERS, 0, &head(&[])[10..])].concat()],
            protocol,
        ),
        case("6.10: CONTINUATION of a whole head", [[post(&[]), more()].concat()], protocol),
        case("6.10: CONTINUATION after the last", [[part(), more(), more()].concat()], closed),
        case(
            "6.10: CONTINUATION after DATA",
            [[post(&[]), frame(DATA, 0, 1, b"a"), more()].concat()],
            protocol,
        ),
        case(
            "8.4: PUSH_PROMISE of a client",
            [frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head(&[])].concat())],
            protocol,
        ),
    ]
}

fn heads_that_are_wrong() -> Vec<Case> {
    let malformed = Stream(&[PROTOCOL]);
    let compression = Connection(&[COMPRESSION, UNREADABLE]);
    let with = |what, more: &[(&str, &str)]| case(what, [whole(1, &head(more))], malformed);
    let but = |what, name: &str, other| case(what, [whole(1, &head_but(name, other))], malformed);
    let encoded =
        |what, more: &[u8]| case(what, [whole(1, &[&head(&[]), more].concat())], compression);
    vec![
        case(
            "8.1: a second head that does not end",
            [[post(&[]), begun(END_HEADERS, &field("x", "y"))].concat()],
            malformed,
        ),
        with("8.2.1: a name in capitals", &[("X-TEST", "ok")]),
        with("8.2.1: a line's end in a value", &[("x-test", "a\r\nb: c")]),
        with("8.2.1: a name with a space", &[("x test", "ok")]),
        with("8.2.2: Connection", &[("connection", "keep-alive")]),
        with("8.2.2: Transfer-Encoding", &[("transfer-encoding", "chunked")]),
        with("8.2.2: TE that is not trailers", &[("te", "trailers, deflate")]),
        with("8.3: a field of the request that nobody knows", &[(":test", "ok")]),
        with("8.3: a field of responses", &[(":status", "200")]),
        with("8.3: a field of the request after another", &[("x", "y"), (":path", "/f/")]),
        with("8.3.1: two methods", &[(":method", "GET")]),
        with("8.3.1: two schemes", &[(":scheme", "http")]),
        with("8.3.1: two paths", &[(":path", "/f/")]),
        but("8.3.1: an empty path", ":path", Some((":path", ""))),
        but("8.3.1: no path", ":path", None),
        but("8.3.1: no method", ":method", None),
        but("8.3.1: no scheme", ":scheme", None),
        case(
            "8.1.1: more than Content-Length says",
            [[post(&[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"test")].concat()],
            malformed,
        ),
        case(
            "8.1.1: less than Content-Length says",
            [[post(&[("content-length", "9")]), frame(DATA, END_STREAM, 1, b"test")].concat()],
            malformed,
        ),
        case("4.3: what is no head", [whole(1, &[0x00, 0x85, 0xf2, 0xb2])], compression),
        encoded("HPACK 2.3.3: an index that is not there", &[0xff, 0x20]),
        encoded("HPACK 4.2: a new size at the end", &[0x20]),
        encoded("HPACK 5.2: too much padding", b"\x00\x82\xff\xff\x01a"),
        encoded("HPACK 5.2: padding with zeros", b"\x00\x85\xf2\xb2\x4a\x84\x00\x01a"),
        encoded("HPACK 5.2: the end of strings", b"\x00\x84\xff\xff\xff\xff\x01a"),
        encoded("HPACK 6.1: index 0", &[0x80]),
        case(
            "HPACK 6.3: a table larger than allowed",
            [whole(1, &[&[0x3f, 0xe1, 0xff, 0x03][..], &head(&[])].concat())],
            compression,
        ),
    ]
}

/// What was heard of a server.
#[derive(Debug, Default)]
struct Heard {
    answered: Vec<u8>,
    pong: bool,
    reset: Option<u32>,
    goaway: Option<u32>,
    closed: bool,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Of the PING that comes after everything else.
const LAST: [u8; 8] = *b"the last";

struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    heard: Heard,
}

impl Wire {
    async fn open(host: &Host) -> Self {
        let mut stream = connect(host.address()).await.expect("connect");
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
        stream.write_all(&[PREFACE, &settings].concat()).await.expect("send");
        Self { stream, unread: Vec::new(), heard: Heard::default() }
    }

    /// Listens until that is heard, or the end.
    async fn hear(&mut self, enough: impl Fn(&Heard) -> bool) {
        while !self.heard.closed && !enough(&self.heard) {
            match self.stream.read_buf(&mut self.unread).await {
                Ok(1..) => {}
                _ => self.heard.closed = true,
            }
            while let Some(frame) = Frame::take(&mut self.unread) {
                match frame.kind {
                    // The first field of a response is its status, indexed.
                    HEADERS => self.heard.answered.push(frame.payload[0]),
                    RST_STREAM => self.heard.reset = frame.code(0),
                    GOAWAY => self.heard.goaway = frame.code(4),
                    PING if frame.flags == ACK => self.heard.pong |= frame.payload == LAST,
                    _ => {}
                }
            }
        }
    }
}

// In HPACK's table of what is frequent (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
const STATUS_400: u8 = 0x8c;

/// Returns what is wrong, if anything.
async fn try_out(host: &Host, case: &Case) -> Result<(), String> {
    let mut wire = Wire::open(host).await;
    for (number, frames) in case.frames.iter().enumerate() {
        wire.hear(|heard| heard.answered.len() >= number).await;
        // The other side may have closed by now.
        let _ = wire.stream.write_all(frames).await;
    }
    let _ = wire.stream.write_all(&frame(PING, 0, 0, &LAST)).await;
    let as_ruled = |heard: &Heard| match case.expected {
        GoesOn => heard.pong && heard.goaway.is_none(),
        Answers => heard.pong && heard.answered == [STATUS_200],
        Connection(codes) => heard.goaway.is_some_and(|code| codes.contains(&code)),
        Stream(codes) => {
            let told = [heard.goaway, heard.reset].into_iter().flatten();
            told.into_iter().any(|code| codes.contains(&code)) || heard.answered == [STATUS_400]
        }
    };
    // What is not told by then is not told at all.
    let _ = tokio::time::timeout(PATIENCE, wire.hear(as_ruled)).await;
    as_ruled(&wire.heard).then_some(()).ok_or_else(|| format!("{}: {:?}", case.what, wire.heard))
}

#[track_caller]
fn all_as_ruled(cases: &[Case]) {
    let host = host().start();
    host.admin().deploy("f", &guests::answering("hello"));
    let failures = run(async {
        let mut failures = Vec::new();
        for case in cases {
            failures.extend(try_out(&host, case).await.err());
        }
        failures
    });
    host.get("/f/").assert_text("hello");
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn what_is_allowed_is_taken() {
    all_as_ruled(&what_is_right());
}

#[test]
fn frames_that_break_the_rules_are_refused() {
    all_as_ruled(&frames_that_are_wrong());
}

#[test]
fn heads_that_break_the_rules_are_refused() {
    all_as_ruled(&heads_that_are_wrong());
}
