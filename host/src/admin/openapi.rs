//! The OpenAPI document, made from the handlers and their types.

use std::sync::OnceLock;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::types::{
    FunctionView, LimitsView, LogLineView, PublishedView, ReceiptView, RevisionView,
    RollbackRequest, SpecDocument,
};
use super::{functions, invocations, logs, revisions, system};
use crate::http_error::Problem;

/// A PUT with a spec.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only describes what upload.rs reads")]
pub(super) struct UploadForm {
    /// The wasm file.
    #[schema(value_type = String, format = Binary, content_media_type = "application/wasm")]
    component: Vec<u8>,
    /// How it is to run; the active revision's spec where absent.
    spec: Option<SpecDocument>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Whit admin API",
        description = "Deploys functions to a Whit host, rolls them back, and reads their logs \
            and receipts. Errors are RFC 9457 problem documents with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        functions::list,
        functions::get,
        functions::put,
        functions::patch,
        functions::delete,
        revisions::list,
        revisions::get,
        revisions::component,
        revisions::activate,
        revisions::rollback,
        logs::read,
        invocations::list,
        invocations::get,
        system::healthz,
        system::readyz,
        system::metrics,
        system::openapi,
    ),
    components(schemas(
        FunctionView,
        RevisionView,
        PublishedView,
        SpecDocument,
        LimitsView,
        RollbackRequest,
        LogLineView,
        ReceiptView,
        UploadForm,
        Problem,
    )),
    tags(
        (name = "functions", description = "What is deployed"),
        (name = "revisions", description = "What was deployed, and going back to it"),
        (name = "logs", description = "What functions write"),
        (name = "invocations", description = "Receipts: what each request cost and how it ended"),
        (name = "system", description = "The host itself"),
    ),
    security(("token" = [])),
    modifiers(&BearerToken),
)]
struct AdminApi;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The content of admin.token in the host's data folder"))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The document as JSON.
#[must_use]
pub fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        // Made of strings, lists and maps with string keys: it serialises.
        let mut text = AdminApi::openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_one_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("WHIT_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == document(),
            "host/openapi.json is not what the code says; if the change is meant, run \
             `WHIT_BLESS=1 cargo test -p whit openapi` and commit the file"
        );
    }

    #[test]
    fn every_operation_says_how_it_fails_and_who_may_call_it() {
        let document: serde_json::Value = serde_json::from_str(document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let open = ["/healthz", "/readyz", "/openapi.json"].contains(&path.as_str());
                assert_eq!(operation.get("security").is_some(), open, "{method} {path}");
                if path.starts_with("/v1") {
                    assert!(operation["responses"].get("4XX").is_some(), "{method} {path}");
                }
            }
        }
    }
}
