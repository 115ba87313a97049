//! `/v1/invocations`: receipts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::extract::{ApiQuery, InvocationPath, function_id, page_limit};
use super::types::{InvocationsQuery, Page, ReceiptView};
use super::{AdminState, blocking};
use crate::http_error::{Code, Problem};
use crate::model::invocation::Outcome;
use crate::telemetry::receipts::{LIST_MAX, ReceiptQuery};

/// Items of a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 100;
/// Most items of a page.
const PAGE_MAX: u32 = 1000;
const _: () = assert!((PAGE_MAX as usize) < LIST_MAX, "the largest page has a next one, too");

/// Lists invocations, the latest first.
#[utoipa::path(
    get, path = "/v1/invocations", operation_id = "list_invocations", tag = "invocations",
    params(InvocationsQuery),
    responses(
        (status = 200, body = Page<ReceiptView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    ApiQuery(query): ApiQuery<InvocationsQuery>,
) -> Result<Json<Page<ReceiptView>>, Problem> {
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let query = ReceiptQuery {
        function: query.function.as_deref().map(function_id).transpose()?,
        outcome: query.outcome.as_deref().map(outcome).transpose()?,
        before: query.before.as_deref().map(str::parse).transpose()?,
        // One more than asked: whether there is a next page.
        limit: limit + 1,
    };
    let telemetry = Arc::clone(&state.telemetry);
    let mut receipts = blocking(move || telemetry.receipts.list(&query)).await?;
    let more = receipts.len() > limit;
    receipts.truncate(limit);
    let next = receipts.last().filter(|_| more).map(|last| last.id.to_string());
    let items = receipts.into_iter().map(ReceiptView::from).collect();
    Ok(Json(Page { items, next }))
}

/// Shows one invocation's receipt.
#[utoipa::path(
    get, path = "/v1/invocations/{id}", operation_id = "get_invocation", tag = "invocations",
    params(("id" = String, Path, description = "The response's X-Request-Id")),
    responses(
        (status = 200, body = ReceiptView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get(
    State(state): State<Arc<AdminState>>,
    InvocationPath(id): InvocationPath,
) -> Result<Json<ReceiptView>, Problem> {
    let telemetry = Arc::clone(&state.telemetry);
    let receipt = blocking(move || telemetry.receipts.get(id)).await?;
    receipt.map(|receipt| Json(receipt.into())).ok_or_else(|| {
        let detail = format!(
            "There is no receipt of invocation {id}. Receipts are written up to a second after \
             the invocation's end, and kept for a limited time."
        );
        Problem::new(Code::NotFound, detail)
    })
}

fn outcome(text: &str) -> Result<Outcome, Problem> {
    text.parse().map_err(|()| {
        let known: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let text: String = text.chars().take(80).collect();
        let detail = format!("There is no outcome {text:?}; known are {}.", known.join(", "));
        Problem::new(Code::InvalidRequest, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_by_their_code() {
        assert_eq!(outcome("cpu_limit").unwrap(), Outcome::CpuLimit);
        assert!(outcome("cpu").unwrap_err().detail.contains("cpu_limit"));
    }
}
