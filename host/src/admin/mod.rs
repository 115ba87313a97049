//! The control plane's HTTP: one thin file per resource.
//!
//! A handler reads its request, calls the registry or the telemetry, and shows
//! the answer. Decisions are made below; every error is a
//! [`Problem`].

mod auth;
mod drain;
mod extract;
mod functions;
mod invocations;
mod logs;
mod openapi;
mod precondition;
mod revisions;
mod system;
pub mod types;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post, put};
use tokio_util::sync::CancellationToken;

pub use auth::AdminToken;
pub use openapi::document as openapi_document;

use crate::http_error::{Code, Problem};
use crate::registry::Registry;
use crate::telemetry::Telemetry;

/// Largest JSON document that is read, in bytes.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// Largest upload unless configured otherwise, in bytes.
pub const COMPONENT_BYTES_DEFAULT: u64 = 100 << 20;

/// What the admin API works with.
pub struct AdminState {
    /// Functions and revisions.
    pub registry: Arc<Registry>,
    /// Receipts, logs and metrics.
    pub telemetry: Arc<Telemetry>,
    /// Who may use the API.
    pub token: Arc<AdminToken>,
    /// Whether functions can be called: `/readyz`.
    pub ready: Arc<AtomicBool>,
    /// Where the data plane answers, for the URLs in answers: `http://127.0.0.1:8080`.
    pub data_address: String,
    /// Largest upload, in bytes.
    pub component_bytes_max: u64,
    /// Cancelled when the server stops: ends the streams that would not end by
    /// themselves.
    pub closing: CancellationToken,
}

/// The admin API.
pub fn router(state: AdminState) -> axum::Router {
    let state = Arc::new(state);
    // An upload may be larger than a document; it counts its bytes itself.
    let upload = put(functions::put).layer(DefaultBodyLimit::disable());
    let guarded = axum::Router::new()
        .route("/metrics", get(system::metrics))
        .route("/v1/functions", get(functions::list))
        .route(
            "/v1/functions/{name}",
            upload.get(functions::get).patch(functions::patch).delete(functions::delete),
        )
        .route("/v1/functions/{name}/revisions", get(revisions::list))
        .route("/v1/functions/{name}/revisions/{number}", get(revisions::get))
        .route("/v1/functions/{name}/revisions/{number}/component", get(revisions::component))
        .route("/v1/functions/{name}/revisions/{number}/activate", post(revisions::activate))
        .route("/v1/functions/{name}/rollback", post(revisions::rollback))
        .route("/v1/functions/{name}/logs", get(logs::read))
        .route("/v1/invocations", get(invocations::list))
        .route("/v1/invocations/{id}", get(invocations::get))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), auth::require));
    axum::Router::new()
        .route("/healthz", get(system::healthz))
        .route("/readyz", get(system::readyz))
        .route("/openapi.json", get(system::openapi))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_request(drain::unread_body))
        .with_state(state)
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))
}

async fn not_found(uri: http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("The admin API has no {path}; GET /openapi.json describes what it has.");
    Problem::new(Code::NotFound, detail)
}

async fn method_not_allowed(method: http::Method, uri: http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!(
        "{path} does not take {method}; the Allow header and GET /openapi.json say what it takes."
    );
    Problem::new(Code::MethodNotAllowed, detail)
}
