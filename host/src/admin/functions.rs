//! `/v1/functions` and `/v1/functions/{name}`.

use std::ops::Bound;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use super::AdminState;
use super::extract::{ApiQuery, Document, FunctionPath, function_id, page_limit};
use super::precondition::{Precondition, etag};
use super::types::{
    FunctionView, ListQuery, Page, PublishQuery, PublishedView, RevisionView, SpecDocument,
};
use super::upload;
use crate::http_error::{Code, Problem};
use crate::model::function::Function;
use crate::model::spec::{FunctionSpec, SPEC_KEYS, SpecError};
use crate::registry::{Publish, Published, RegistryError};

/// Items of a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 100;
/// Most items of a page.
const PAGE_MAX: u32 = 1000;

/// Lists the functions by name.
#[utoipa::path(
    get, path = "/v1/functions", operation_id = "list_functions", tag = "functions",
    params(ListQuery),
    responses(
        (status = 200, body = Page<FunctionView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<FunctionView>>, Problem> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    // The cursor is the last name of the page before: a page is right also when
    // that function is gone by now.
    let start = match query.cursor.as_deref().map(function_id).transpose()? {
        Some(last) => Bound::Excluded(last),
        None => Bound::Unbounded,
    };
    let functions = state.registry.functions();
    let mut rest = functions.range((start, Bound::Unbounded)).map(|(_, function)| function);
    let items: Vec<FunctionView> = rest
        .by_ref()
        .take(limit)
        .map(|function| FunctionView::new(function, &state.data_address))
        .collect();
    let more = rest.next().is_some();
    let next = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(Page { items, next }))
}

/// Shows one function.
#[utoipa::path(
    get, path = "/v1/functions/{name}", operation_id = "get_function", tag = "functions",
    params(("name" = String, Path, description = "Name of the function")),
    responses(
        (status = 200, body = FunctionView, headers(("ETag" = String, description = "The active revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
) -> Result<Response, Problem> {
    let function = state.registry.function(&id)?;
    Ok(with_etag(&function, Json(FunctionView::new(&function, &state.data_address))))
}

/// Deploys a component: makes the function, or gives it a new revision.
///
/// The body is the wasm file, or `multipart/form-data` with the wasm file as
/// `component` and a spec as `spec`. Without a spec, that of the active
/// revision stays. The same component with the same spec is not published
/// twice.
#[utoipa::path(
    put, path = "/v1/functions/{name}", operation_id = "put_function", tag = "functions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        PublishQuery,
        ("If-Match" = Option<String>, Header, description = "The ETag that GET returned, or *"),
        ("If-None-Match" = Option<String>, Header, description = "*: only if there is no such function"),
    ),
    request_body(
        content(
            (Vec<u8> = "application/wasm"),
            (super::openapi::UploadForm = "multipart/form-data"),
        ),
    ),
    responses(
        (status = 201, description = "A revision was published", body = PublishedView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = 200, description = "It was there already", body = PublishedView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn put(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    ApiQuery(query): ApiQuery<PublishQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let precondition = Precondition::from_headers(&headers)?;
    let expected = precondition.expected(&state.registry, &id)?;
    let files = state.registry.files();
    let upload = upload::receive(request, files, state.component_bytes_max).await?;
    let publish = Publish {
        id,
        spec: upload.spec,
        component: upload.component,
        activate: query.activate.unwrap_or(true),
        expected,
    };
    // In a task of its own: a client that leaves now does not stop half-way
    // what it has asked for in full.
    let registry = Arc::clone(&state.registry);
    let published = tokio::spawn(async move { registry.publish(publish).await });
    let published = published.await.map_err(|error| Problem::internal(&error))??;
    published_response(&published, &state)
}

/// Changes the spec: a new revision with the active one's component.
///
/// The body is merged into the active revision's spec (RFC 7396): given fields
/// replace, null removes, what is not given stays.
#[utoipa::path(
    patch, path = "/v1/functions/{name}", operation_id = "patch_function", tag = "functions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "The ETag that GET returned, or *"),
    ),
    request_body(content = SpecDocument, content_type = "application/merge-patch+json"),
    responses(
        (status = 201, description = "A revision was published", body = PublishedView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = 200, description = "The spec was so already", body = PublishedView,
            headers(("ETag" = String, description = "The active revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn patch(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Problem> {
    let expected = Precondition::from_headers(&headers)?.expected(&state.registry, &id)?;
    let patch: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("The body must be a JSON object with spec fields: {error}.");
        Problem::new(Code::InvalidRequest, detail)
    })?;
    let registry = Arc::clone(&state.registry);
    let published = tokio::spawn(async move {
        let mut refused = None;
        // The merge happens under the registry's lock, on the spec as it is then.
        let change = |spec: &FunctionSpec| match merge(spec, patch) {
            Ok(spec) => spec,
            Err(error) => {
                refused = Some(error);
                spec.clone()
            }
        };
        let published = registry.publish_spec(&id, change, expected).await;
        match refused {
            Some(error) => Err(Problem::from(error)),
            None => published.map_err(|error| no_active_revision(error, &registry)),
        }
    });
    let published = published.await.map_err(|error| Problem::internal(&error))??;
    published_response(&published, &state)
}

/// `publish_spec` needs an active revision; say so where the function exists.
fn no_active_revision(error: RegistryError, registry: &crate::registry::Registry) -> Problem {
    if let RegistryError::NoFunction(id) = &error
        && registry.function(id).is_ok()
    {
        let detail = format!("Function {id} has no active revision to change; activate one first.");
        return Problem::new(Code::NotFound, detail);
    }
    error.into()
}

/// Removes a function with all its revisions. Requests in flight finish.
#[utoipa::path(
    delete, path = "/v1/functions/{name}", operation_id = "delete_function", tag = "functions",
    params(
        ("name" = String, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "The ETag that GET returned, or *"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = Precondition::from_headers(&headers)?.expected(&state.registry, &id)?;
    let registry = Arc::clone(&state.registry);
    let function = id.clone();
    let deleted = tokio::spawn(async move { registry.delete(&function, expected).await });
    deleted.await.map_err(|error| Problem::internal(&error))??;
    let telemetry = Arc::clone(&state.telemetry);
    let forgotten = tokio::task::spawn_blocking(move || telemetry.forget(&id));
    forgotten.await.map_err(|error| Problem::internal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Merges a patch into a spec (RFC 7396) and checks the result.
fn merge(spec: &FunctionSpec, patch: Map<String, Value>) -> Result<FunctionSpec, SpecError> {
    // Removing what no spec has would succeed silently: a slip, so it is named.
    if let Some(key) = patch.keys().find(|key| !SPEC_KEYS.contains(&key.as_str())) {
        let single = Value::Object([(key.clone(), Value::Null)].into_iter().collect());
        return FunctionSpec::from_json(single.to_string().as_bytes());
    }
    let as_syntax = |error: serde_json::Error| SpecError::Syntax(error.to_string());
    let mut merged = serde_json::to_value(spec).map_err(as_syntax)?;
    merge_value(&mut merged, Value::Object(patch));
    FunctionSpec::from_json(merged.to_string().as_bytes())
}

fn merge_value(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge_value(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// 201 or 200, with the function's ETag.
fn published_response(published: &Published, state: &AdminState) -> Result<Response, Problem> {
    let function = &published.function;
    let revision = function.revision(published.revision).ok_or_else(|| {
        RegistryError::NoRevision { function: function.id.clone(), revision: published.revision }
    })?;
    let view = PublishedView {
        created: published.created,
        revision: RevisionView::new(function, revision, &state.data_address),
        function: FunctionView::new(function, &state.data_address),
    };
    let status = if published.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(with_etag(function, (status, Json(view))))
}

/// A response about a function, with the function's ETag.
pub(super) fn with_etag(function: &Function, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    if let Some(etag) = etag(function) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(spec: &str, patch: &str) -> Result<String, String> {
        let spec = FunctionSpec::from_json(spec.as_bytes()).unwrap();
        let patch = serde_json::from_str(patch).unwrap();
        merge(&spec, patch)
            .map(|spec| serde_json::to_string(&spec).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn given_fields_replace_and_null_removes() {
        let spec = r#"{"memory":"64MiB","timeout":"5s","env":{"A":"1","B":"2"},"routes":["/x"]}"#;
        assert_eq!(
            merged(spec, r#"{"memory":"32MiB","timeout":null,"routes":["/y"]}"#).unwrap(),
            r#"{"routes":["/y"],"memory":"32MiB","env":{"A":"1","B":"2"}}"#
        );
        // Objects merge, as RFC 7396 has it.
        assert_eq!(
            merged(spec, r#"{"env":{"A":null,"C":"3"}}"#).unwrap(),
            r#"{"routes":["/x"],"memory":"64MiB","timeout":"5s","env":{"B":"2","C":"3"}}"#
        );
        assert_eq!(merged("{}", r#"{"cpu":null}"#).unwrap(), "{}");
        assert_eq!(merged("{}", r#"{"env":{"A":null,"C":"3"}}"#).unwrap(), r#"{"env":{"C":"3"}}"#);
    }

    #[test]
    fn a_bad_patch_is_named() {
        for (patch, expected) in [
            (r#"{"memroy":"1MiB"}"#, "did you mean \"memory\"?"),
            (r#"{"memroy":null}"#, "did you mean \"memory\"?"),
            (r#"{"memory":"9GiB"}"#, "memory: at most"),
            (r#"{"env":"x"}"#, "env: "),
        ] {
            let error = merged("{}", patch).unwrap_err();
            assert!(error.contains(expected), "{patch}: {error}");
        }
    }
}
