//! A guest of WASI 0.2 http made with `wstd` and axum. ../../README.md lists the routes.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::any;
use futures_lite::stream;
use serde::Deserialize;
use wstd::task::sleep;
use wstd::time::Duration;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The numbers that the routes take.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Numbers {
    n: u64,
    ms: u64,
    mb: usize,
    bytes: u64,
    code: u16,
}

#[wstd_axum::http_server]
fn main() -> Router {
    Router::new()
        .route("/", any(|| async { "wstd-axum\n" }))
        .route("/counter", any(counter))
        .route(
            "/echo",
            any(|request: Request| async { request.into_body() }),
        )
        .route(
            "/method",
            any(|method: Method| async move { format!("{method}\n") }),
        )
        .route("/url", any(url))
        .route("/headers", any(headers))
        .route("/env", any(environment))
        .route("/stream", any(lines))
        .route("/big", any(big))
        .route("/status", any(status))
        .route("/sleep", any(slow))
        .route("/spin", any(spin))
        .route("/alloc", any(allocate))
        .route("/stderr", any(write_to_stderr))
        .route("/exit", any(exit))
        .route("/trap", any(trap))
}

async fn counter() -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    format!("{count}\n")
}

async fn url(uri: Uri) -> String {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    format!("{path}\n")
}

async fn headers(headers: HeaderMap) -> String {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    lines.collect()
}

async fn environment() -> String {
    let lines = std::env::vars().map(|(name, value)| format!("{name}={value}\n"));
    lines.collect()
}

async fn lines(Query(Numbers { n, .. }): Query<Numbers>) -> Body {
    Body::from_stream(stream::unfold(1, move |line| async move {
        if line > 1 {
            sleep(Duration::from_millis(100)).await;
        }
        (line <= n).then(|| (Ok::<_, Infallible>(format!("line {line}\n")), line + 1))
    }))
}

async fn big(Query(Numbers { bytes, .. }): Query<Numbers>) -> Body {
    Body::from_stream(stream::unfold(bytes, |left| async move {
        let length = left.min(64 * 1024);
        let chunk = vec![b'x'; length as usize];
        (length > 0).then(|| (Ok::<_, Infallible>(chunk), left - length))
    }))
}

async fn status(Query(Numbers { code, .. }): Query<Numbers>) -> StatusCode {
    StatusCode::from_u16(code).unwrap()
}

async fn slow(Query(Numbers { ms, .. }): Query<Numbers>) -> &'static str {
    sleep(Duration::from_millis(ms)).await;
    "slept\n"
}

async fn spin() {
    loop {
        std::hint::black_box(());
    }
}

async fn allocate(Query(Numbers { mb, .. }): Query<Numbers>) -> &'static str {
    let mut memory = vec![0_u8; mb << 20];
    for byte in memory.iter_mut().step_by(4096) {
        *byte = 1;
    }
    std::hint::black_box(memory);
    "allocated\n"
}

async fn write_to_stderr(Query(Numbers { bytes, .. }): Query<Numbers>) -> &'static str {
    for start in (0..bytes).step_by(100) {
        let length = (bytes - start).min(100) as usize;
        eprintln!("{}", "e".repeat(length - 1));
    }
    "written\n"
}

async fn exit(Query(Numbers { code, .. }): Query<Numbers>) {
    std::process::exit(code.into())
}

async fn trap() {
    panic!("this guest was asked to trap")
}
