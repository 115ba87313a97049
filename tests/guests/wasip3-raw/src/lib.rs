//! A guest of WASI 0.3 http with nothing but its bindings. ../../README.md lists the routes.

use std::sync::atomic::{AtomicU64, Ordering};

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::rt::async_support::{FutureWriter, StreamResult, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Guest);

struct Guest;

static COUNTER: AtomicU64 = AtomicU64::new(0);

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let url = request.get_path_with_query().unwrap_or_default();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        Ok(match path {
            "/" => text("wasip3-raw\n"),
            "/counter" => {
                let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
                text(format!("{count}\n"))
            }
            "/echo" => echo(request),
            "/method" => text(format!("{}\n", method(&request))),
            "/url" => text(format!("{url}\n")),
            "/headers" => text(headers(&request)),
            "/fields" => {
                let names: Vec<String> =
                    (0..number(query, "n")).map(|number| format!("x-{number}")).collect();
                let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
                respond(200, &fields, async |_| ())
            }
            "/call" => call(&request).await,
            "/env" => text(environment()),
            "/stream" => {
                let lines = number(query, "n");
                respond(200, &[], async move |body| {
                    for line in 1..=lines {
                        write(body, format!("line {line}\n")).await;
                        monotonic_clock::wait_for(100 * NANOSECONDS_PER_MILLISECOND).await;
                    }
                })
            }
            "/big" => {
                let mut left = number(query, "bytes");
                respond(200, &[], async move |body| {
                    while left > 0 {
                        let length = left.min(64 * 1024);
                        write(body, vec![b'x'; length as usize]).await;
                        left -= length;
                    }
                })
            }
            "/status" => respond(number(query, "code") as u16, &[], async |_| ()),
            "/trailers" => with_trailers(),
            "/sleep" => {
                let nanoseconds = number(query, "ms") * NANOSECONDS_PER_MILLISECOND;
                monotonic_clock::wait_for(nanoseconds).await;
                text("slept\n")
            }
            "/spin" => spin(),
            "/alloc" => {
                allocate(number(query, "mb"));
                text("allocated\n")
            }
            "/stderr" => {
                write_to_stderr(number(query, "bytes"));
                text("written\n")
            }
            "/exit" => std::process::exit(number(query, "code") as i32),
            "/trap" => panic!("this guest was asked to trap"),
            "/refuse" => return Err(refusal(query)),
            _ => respond(404, &[], async |_| ()),
        })
    }
}

fn refusal(query: &str) -> ErrorCode {
    match query {
        "" => ErrorCode::ConfigurationError,
        why => ErrorCode::InternalError(Some(why.to_owned())),
    }
}

fn text(text: impl Into<Vec<u8>>) -> Response {
    let bytes = text.into();
    respond(200, &[("content-type", "text/plain")], async move |body| {
        write(body, bytes).await;
    })
}

/// A response whose body is written after this has returned.
fn respond(
    status: u16,
    headers: &[(&str, &str)],
    write_body: impl AsyncFnOnce(&mut StreamWriter<u8>) + 'static,
) -> Response {
    let (response, mut body, trailers) = start(status, headers);
    spawn_local(async move {
        write_body(&mut body).await;
        drop(body);
        drop(trailers);
    });
    response
}

type TrailersWriter = FutureWriter<Result<Option<Trailers>, ErrorCode>>;

fn start(status: u16, headers: &[(&str, &str)]) -> (Response, StreamWriter<u8>, TrailersWriter) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let (body, body_reader) = wit_stream::new();
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(body_reader), trailers_reader);
    response.set_status_code(status).unwrap();
    (response, body, trailers)
}

async fn write(body: &mut StreamWriter<u8>, bytes: impl Into<Vec<u8>>) {
    let unwritten = body.write_all(bytes.into()).await;
    assert!(unwritten.is_empty(), "the client has left");
}

fn echo(request: Request) -> Response {
    let (_, request_read) = wit_future::new(|| Ok(()));
    let (mut input, _trailers) = Request::consume_body(request, request_read);
    respond(200, &[], async move |output| {
        loop {
            let (result, chunk) = input.read(Vec::with_capacity(64 * 1024)).await;
            match result {
                StreamResult::Complete(_) => write(output, chunk).await,
                StreamResult::Dropped | StreamResult::Cancelled => break,
            }
        }
    })
}

fn with_trailers() -> Response {
    let (response, mut body, trailers) = start(200, &[("trailer", "x-checksum")]);
    spawn_local(async move {
        write(&mut body, "body\n").await;
        drop(body);
        let fields = Fields::new();
        fields.append("x-checksum", b"7").unwrap();
        // The host does not read the trailers when the client has left.
        let _ = trailers.write(Ok(Some(fields))).await;
    });
    response
}

fn method(request: &Request) -> String {
    match request.get_method() {
        Method::Other(name) => name,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    }
}

fn headers(request: &Request) -> String {
    let entries = request.get_headers().copy_all();
    let lines =
        entries.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
    lines.collect()
}

/// Calls the first of the paths in `x-call-paths`, with the list turned by one,
/// as often as `x-call-times` says, and answers what the last answered.
async fn call(request: &Request) -> Response {
    let incoming = request.get_headers();
    let header = |name: &str| {
        let values = incoming.get(name);
        values.first().map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
    };
    let (authority, paths, times) =
        (header("x-call-authority"), header("x-call-paths"), header("x-call-times"));
    let (first, rest) = paths.split_once(',').unwrap_or((&paths, ""));
    let turned = if rest.is_empty() { first.to_owned() } else { format!("{rest},{first}") };
    let mut answer = (0, Vec::new());
    for _ in 0..times.parse().unwrap_or(1) {
        let fields = Fields::new();
        for (name, value) in
            [("x-call-authority", &authority), ("x-call-paths", &turned), ("x-call-times", &times)]
        {
            fields.append(name, value.as_bytes()).unwrap();
        }
        let forged = fields.append("x-whit-hops", b"0 00112233445566778899aabbccddeeff");
        assert!(forged.is_err(), "the guest set the host's own header");
        answer = fetch(&authority, first, fields)
            .await
            .unwrap_or_else(|error| (599, format!("{error:?}").into()));
    }
    let (status, body) = answer;
    respond(status, &[], async move |output| write(output, body).await)
}

async fn fetch(authority: &str, path: &str, fields: Fields) -> Result<(u16, Vec<u8>), ErrorCode> {
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (request, sent) = Request::new(fields, None, trailers_reader, None);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    // They are the host's own too, but not to be had.
    let fields = Fields::new();
    assert!(fields.append("x-whit-hops", b"0").is_err(), "the guest set a trailer of the host's");
    spawn_local(async move {
        let _ = trailers.write(Ok(Some(fields))).await;
    });
    let answer = client::send(request).await?;
    let status = answer.get_status_code();
    let (_, read) = wit_future::new(|| Ok(()));
    let (mut input, _trailers) = Response::consume_body(answer, read);
    let mut body = Vec::new();
    loop {
        let (result, chunk) = input.read(Vec::with_capacity(64 * 1024)).await;
        match result {
            StreamResult::Complete(_) => body.extend(chunk),
            StreamResult::Dropped | StreamResult::Cancelled => break,
        }
    }
    // Told once the request is sent, also where its connection stays open.
    sent.await?;
    Ok((status, body))
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
