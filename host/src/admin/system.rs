//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::AdminState;
use crate::http_error::{Code, Problem};

/// What the metrics are written in; Prometheus has read it since version 2.5.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says that the process is alive.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "system", security(()),
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain")),
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Says whether functions can be called.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "system", security(()),
    responses(
        (status = 200, description = "Ready", body = String, content_type = "text/plain"),
        (status = 503, description = "Starting or stopping", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn readyz(State(state): State<Arc<AdminState>>) -> Result<&'static str, Problem> {
    if state.ready.load(Ordering::Acquire) && !state.closing.is_cancelled() {
        return Ok("ready\n");
    }
    Err(Problem::new(Code::NotReady, "This host is starting or stopping; try again shortly."))
}

/// Shows the metrics.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "system",
    responses((status = 200, body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")),
)]
pub(super) async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    let kind = HeaderValue::from_static(OPENMETRICS);
    ([(header::CONTENT_TYPE, kind)], state.telemetry.metrics.render()).into_response()
}

/// Describes this API.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "system", security(()),
    responses((status = 200, body = Object, content_type = "application/json")),
)]
pub(super) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], super::openapi::document()).into_response()
}
