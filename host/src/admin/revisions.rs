//! `/v1/functions/{name}/revisions…` and `/v1/functions/{name}/rollback`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use tokio_util::io::ReaderStream;

use super::AdminState;
use super::extract::{ApiQuery, Document, FunctionPath, RevisionPath, page_limit};
use super::functions::with_etag;
use super::precondition::Precondition;
use super::types::{FunctionView, ListQuery, Page, RevisionView, RollbackRequest};
use crate::http_error::{Code, Problem};
use crate::model::function::{Function, Revision};
use crate::model::ids::RevisionNumber;
use crate::registry::RegistryError;

/// Items of a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 100;
/// Most items of a page.
const PAGE_MAX: u32 = 1000;
/// Bytes read from a component at a time.
const DOWNLOAD_CHUNK_BYTES: usize = 64 << 10;

/// Lists a function's revisions, the newest first.
#[utoipa::path(
    get, path = "/v1/functions/{name}/revisions", operation_id = "list_revisions", tag = "revisions",
    params(("name" = String, Path, description = "Name of the function"), ListQuery),
    responses(
        (status = 200, body = Page<RevisionView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<RevisionView>>, Problem> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    // The cursor is the lowest number of the page before.
    let below = query.cursor.as_deref().map(str::parse::<RevisionNumber>).transpose()?;
    let function = state.registry.function(&id)?;
    let mut rest = function
        .revisions
        .iter()
        .rev()
        .filter(|revision| below.is_none_or(|below| revision.number < below));
    let items: Vec<RevisionView> = rest
        .by_ref()
        .take(limit)
        .map(|revision| RevisionView::new(&function, revision, &state.data_address))
        .collect();
    let more = rest.next().is_some();
    let next = items.last().filter(|_| more).map(|last| last.number.to_string());
    Ok(Json(Page { items, next }))
}

/// Shows one revision.
#[utoipa::path(
    get, path = "/v1/functions/{name}/revisions/{number}", operation_id = "get_revision",
    tag = "revisions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("number" = u32, Path, description = "Number of the revision"),
    ),
    responses(
        (status = 200, body = RevisionView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(state): State<Arc<AdminState>>,
    RevisionPath(id, number): RevisionPath,
) -> Result<Json<RevisionView>, Problem> {
    let function = state.registry.function(&id)?;
    let revision = find(&function, number)?;
    Ok(Json(RevisionView::new(&function, revision, &state.data_address)))
}

fn find(function: &Function, number: RevisionNumber) -> Result<&Revision, Problem> {
    let missing =
        || RegistryError::NoRevision { function: function.id.clone(), revision: number }.into();
    function.revision(number).ok_or_else(missing)
}

/// Downloads a revision's component, byte for byte as it was uploaded.
#[utoipa::path(
    get, path = "/v1/functions/{name}/revisions/{number}/component",
    operation_id = "get_component", tag = "revisions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("number" = u32, Path, description = "Number of the revision"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of a copy"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/wasm",
            headers(("ETag" = String, description = "The component's digest"))),
        (status = 304, description = "The copy is this component"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn component(
    State(state): State<Arc<AdminState>>,
    RevisionPath(id, number): RevisionPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let function = state.registry.function(&id)?;
    let revision = find(&function, number)?;
    let etag = format!("\"{}\"", revision.digest);
    let tag = HeaderValue::try_from(&etag).map_err(|error| Problem::internal(&error))?;
    if is_cached(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let path = state.registry.component_path(revision.digest);
    let file = tokio::fs::File::open(&path).await.map_err(|error| Problem::internal(&error))?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, DOWNLOAD_CHUNK_BYTES));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/wasm")),
        (header::CONTENT_LENGTH, HeaderValue::from(revision.component_bytes)),
        (header::ETAG, tag),
    ];
    Ok((headers, body).into_response())
}

/// Whether the client's copy is the component (RFC 9110, 13.1.2).
fn is_cached(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |tags| {
            tags.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
        },
    )
}

/// Gives the traffic to a revision.
#[utoipa::path(
    post, path = "/v1/functions/{name}/revisions/{number}/activate",
    operation_id = "activate_revision", tag = "revisions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("number" = u32, Path, description = "Number of the revision"),
        ("If-Match" = Option<String>, Header, description = "The ETag that GET returned, or *"),
    ),
    responses(
        (status = 200, body = FunctionView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn activate(
    State(state): State<Arc<AdminState>>,
    RevisionPath(id, number): RevisionPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = Precondition::from_headers(&headers)?.expected(&state.registry, &id)?;
    let registry = Arc::clone(&state.registry);
    let done = tokio::spawn(async move { registry.activate(&id, number, expected).await });
    let function = done.await.map_err(|error| Problem::internal(&error))??;
    Ok(function_response(&function, &state))
}

/// Goes back to an earlier revision: the one named, or the one that was active
/// before.
#[utoipa::path(
    post, path = "/v1/functions/{name}/rollback", operation_id = "rollback_function",
    tag = "revisions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "The ETag that GET returned, or *"),
    ),
    request_body(content = Option<RollbackRequest>, content_type = "application/json"),
    responses(
        (status = 200, body = FunctionView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn rollback(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Problem> {
    let expected = Precondition::from_headers(&headers)?.expected(&state.registry, &id)?;
    let to = rollback_target(&body)?;
    let registry = Arc::clone(&state.registry);
    let done = tokio::spawn(async move { registry.roll_back(&id, to, expected).await });
    let function = done.await.map_err(|error| Problem::internal(&error))??;
    Ok(function_response(&function, &state))
}

fn rollback_target(body: &[u8]) -> Result<Option<RevisionNumber>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    // By way of a map: serde would also take an array for the struct.
    let request = serde_json::from_slice::<Map<String, Value>>(body)
        .and_then(|fields| serde_json::from_value::<RollbackRequest>(Value::Object(fields)))
        .map_err(|error| {
            let detail =
                format!("The body must be {{\"revision\": NUMBER}} or nothing at all: {error}.");
            Problem::new(Code::InvalidRequest, detail)
        })?;
    match request.revision {
        Some(number) => Ok(Some(number.to_string().parse()?)),
        None => Ok(None),
    }
}

fn function_response(function: &Function, state: &AdminState) -> Response {
    with_etag(function, Json(FunctionView::new(function, &state.data_address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_names_a_revision_or_nothing() {
        assert_eq!(rollback_target(b" ").unwrap(), None);
        assert_eq!(rollback_target(b"{}").unwrap(), None);
        assert_eq!(rollback_target(br#"{"revision":2}"#).unwrap(), Some(RevisionNumber(2)));
        for bad in [&b"{\"revision\":0}"[..], b"{\"revison\":1}", b"[]", b"{\"revision\":\"1\"}"] {
            assert!(rollback_target(bad).is_err());
        }
    }

    #[test]
    fn copies_are_recognised() {
        let mut headers = HeaderMap::new();
        assert!(!is_cached(&headers, "\"sha256:ab\""));
        headers.insert("if-none-match", HeaderValue::from_static("\"x\", W/\"sha256:ab\""));
        assert!(is_cached(&headers, "\"sha256:ab\""));
        assert!(!is_cached(&headers, "\"sha256:cd\""));
    }
}
