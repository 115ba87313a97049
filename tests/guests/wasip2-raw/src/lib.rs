//! A guest of WASI 0.2 http with nothing but its bindings. ../../README.md lists the routes.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

wasip2::http::proxy::export!(Guest);

struct Guest;

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let url = request.path_with_query().unwrap_or_default();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        match path {
            "/" => text(out, "wasip2-raw\n"),
            "/counter" => {
                let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
                text(out, &format!("{count}\n"));
            }
            "/echo" => echo(&request, out),
            "/method" => text(out, &format!("{}\n", method(&request))),
            "/url" => text(out, &format!("{url}\n")),
            "/headers" => text(out, &headers(&request)),
            "/fields" => {
                let names: Vec<String> =
                    (0..number(query, "n")).map(|number| format!("x-{number}")).collect();
                let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
                respond(out, 200, &fields, |_| ());
            }
            "/call" => call(&request, out),
            "/env" => text(out, &environment()),
            "/stream" => respond(out, 200, &[], |body| {
                for line in 1..=number(query, "n") {
                    writeln!(body, "line {line}").unwrap();
                    body.flush().unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                }
            }),
            "/big" => respond(out, 200, &[], |body| {
                let mut left = number(query, "bytes");
                while left > 0 {
                    let length = left.min(64 * 1024);
                    body.write_all(&vec![b'x'; length as usize]).unwrap();
                    left -= length;
                }
            }),
            "/status" => respond(out, number(query, "code") as u16, &[], |_| ()),
            "/trailers" => trailers(out),
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(number(query, "ms")));
                text(out, "slept\n");
            }
            "/spin" => spin(),
            "/alloc" => {
                allocate(number(query, "mb"));
                text(out, "allocated\n");
            }
            "/stderr" => {
                write_to_stderr(number(query, "bytes"));
                text(out, "written\n");
            }
            "/exit" => std::process::exit(number(query, "code") as i32),
            "/trap" => panic!("this guest was asked to trap"),
            "/no-answer" => drop(out),
            "/refuse" => ResponseOutparam::set(out, Err(refusal(query))),
            "/short" => lie(out, "10"),
            "/long" => lie(out, "3"),
            _ => respond(out, 404, &[], |_| ()),
        }
    }
}

fn refusal(query: &str) -> ErrorCode {
    match query {
        "" => ErrorCode::ConfigurationError,
        why => ErrorCode::InternalError(Some(why.to_owned())),
    }
}

fn text(out: ResponseOutparam, text: &str) {
    let headers = [("content-type", "text/plain")];
    respond(out, 200, &headers, |body| {
        body.write_all(text.as_bytes()).unwrap();
    });
}

fn respond(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &str)],
    write: impl FnOnce(&mut OutputStream),
) {
    let body = start(out, status, headers);
    let mut stream = body.write().unwrap();
    write(&mut stream);
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn start(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    respond(out, 200, &[], |output| {
        loop {
            match input.blocking_read(64 * 1024) {
                Ok(chunk) => output.write_all(&chunk).unwrap(),
                Err(StreamError::Closed) => break,
                Err(error) => panic!("the request broke off: {error:?}"),
            }
            output.flush().unwrap();
        }
    });
}

fn trailers(out: ResponseOutparam) {
    let body = start(out, 200, &[("trailer", "x-checksum")]);
    let mut stream = body.write().unwrap();
    stream.write_all(b"body\n").unwrap();
    drop(stream);
    let trailers = Fields::new();
    trailers.append("x-checksum", b"7").unwrap();
    OutgoingBody::finish(body, Some(trailers)).unwrap();
}

/// Sends five bytes under another length. What the host says to that is ignored.
fn lie(out: ResponseOutparam, length: &str) {
    let body = start(out, 200, &[("content-length", length)]);
    let mut stream = body.write().unwrap();
    let _ = stream.write_all(b"12345");
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn method(request: &IncomingRequest) -> String {
    match request.method() {
        Method::Other(name) => name,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    }
}

fn headers(request: &IncomingRequest) -> String {
    let entries = request.headers().entries();
    let lines =
        entries.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
    lines.collect()
}

/// Calls the first of the paths in `x-call-paths`, with the list turned by one,
/// as often as `x-call-times` says, and answers what the last answered.
fn call(request: &IncomingRequest, out: ResponseOutparam) {
    let incoming = request.headers();
    let header = |name: &str| {
        let values = incoming.get(name);
        values.first().map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
    };
    let (authority, paths, times) =
        (header("x-call-authority"), header("x-call-paths"), header("x-call-times"));
    let (first, rest) = paths.split_once(',').unwrap_or((&paths, ""));
    let turned = if rest.is_empty() { first.to_owned() } else { format!("{rest},{first}") };
    let mut answer = (0, String::new());
    for _ in 0..times.parse().unwrap_or(1) {
        let fields = Fields::new();
        for (name, value) in
            [("x-call-authority", &authority), ("x-call-paths", &turned), ("x-call-times", &times)]
        {
            fields.append(name, value.as_bytes()).unwrap();
        }
        let forged = fields.append("x-whit-hops", b"0 00112233445566778899aabbccddeeff");
        assert!(forged.is_err(), "the guest set the host's own header");
        answer =
            fetch(&authority, first, fields).unwrap_or_else(|error| (599, format!("{error:?}")));
    }
    let (status, body) = answer;
    respond(out, status, &[], |output| output.write_all(body.as_bytes()).unwrap());
}

fn fetch(authority: &str, path: &str, fields: Fields) -> Result<(u16, String), ErrorCode> {
    let request = OutgoingRequest::new(fields);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    let answer = outgoing_handler::handle(request, None)?;
    answer.subscribe().block();
    let answer = answer.get().unwrap().unwrap()?;
    let status = answer.status();
    let incoming = answer.consume().unwrap();
    let input = incoming.stream().unwrap();
    let mut body = Vec::new();
    while let Ok(chunk) = input.blocking_read(64 * 1024) {
        body.extend(chunk);
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn environment() -> String {
    let lines = std::env::vars().map(|(name, value)| format!("{name}={value}\n"));
    lines.collect()
}

fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn allocate(mebibytes: u64) {
    let mut memory = vec![0_u8; (mebibytes as usize) << 20];
    for byte in memory.iter_mut().step_by(4096) {
        *byte = 1;
    }
    std::hint::black_box(memory);
}

fn write_to_stderr(bytes: u64) {
    for start in (0..bytes).step_by(100) {
        let length = (bytes - start).min(100) as usize;
        eprintln!("{}", "e".repeat(length - 1));
    }
}

/// The number of this name in the query, or 0.
fn number(query: &str, name: &str) -> u64 {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}
