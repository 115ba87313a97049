//! What everything is compared with: an axum handler in Rust, without a sandbox.
//! It runs in a process of its own, which is this program again.

use std::io::{self, Read as _};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use crate::work;

/// The argument that makes this program the native server.
pub(crate) const ARGUMENT: &str = "--native-server";

/// Serves until standard input ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind")?;
        println!("{}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            // Without it a connection is only slower.
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new()
            .route("/", get(async || "axum-native\n"))
            .route("/json", post(async |body: Bytes| echo(&body)))
            .route("/primes", get(async || format!("{}\n", work::count_primes())));
        Ok(axum::serve(listener, router).await?)
    })
}

fn echo(body: &[u8]) -> Response {
    match work::echo(body) {
        Some(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}
