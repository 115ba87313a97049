//! What the admin API sends and takes. Shared with the CLI, and the source of
//! the OpenAPI document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::model::function::{Function, Revision};
use crate::model::invocation::{LogLine, LogStream, Receipt};
use crate::model::limits::Limits;
use crate::model::spec::FunctionSpec;

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// What to give as the cursor to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A function: its revisions in brief, and the active one in full.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    /// Owner of the function.
    #[schema(example = "default")]
    pub tenant: String,
    /// Name within the tenant.
    #[schema(example = "hello")]
    pub name: String,
    /// The function's own URL.
    #[schema(example = "http://127.0.0.1:8080/hello/")]
    pub url: String,
    /// Number of the revision that gets the traffic; null while none does.
    pub active: Option<u32>,
    /// Number of the revision that was active before.
    pub previous: Option<u32>,
    /// How many revisions there are.
    pub revisions: usize,
    /// The active revision; null while there is none.
    pub revision: Option<RevisionView>,
}

impl FunctionView {
    /// The view of `function` on a host whose data plane answers at `data_address`.
    #[must_use]
    pub fn new(function: &Function, data_address: &str) -> Self {
        Self {
            tenant: function.id.tenant.to_string(),
            name: function.id.name.to_string(),
            url: format!("{}/", own_url(function, data_address)),
            active: function.active.map(|number| number.0),
            previous: function.previous.map(|number| number.0),
            revisions: function.revisions.len(),
            revision: function
                .active_revision()
                .map(|revision| RevisionView::new(function, revision, data_address)),
        }
    }
}

/// `http://host/name`, or `http://host/@tenant/name` outside the default tenant.
fn own_url(function: &Function, data_address: &str) -> String {
    format!("{}/{}", data_address.trim_end_matches('/'), function.id)
}

/// An immutable pair of component and spec.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// Number within the function, from 1, never used twice.
    pub number: u32,
    /// Whether it gets the traffic.
    pub active: bool,
    /// URL that calls this revision, active or not.
    #[schema(example = "http://127.0.0.1:8080/hello:1/")]
    pub url: String,
    /// How the guest is called: `http-0.2`, `http-0.3`, `cgi-0.2` or `cgi-0.3`.
    #[schema(example = "http-0.2")]
    pub kind: String,
    /// Digest of the upload as it came.
    #[schema(example = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    pub digest: String,
    /// Size of the upload, in bytes.
    pub component_bytes: u64,
    /// When it was published, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The spec it was published with; only what it sets.
    #[schema(value_type = SpecDocument)]
    pub spec: FunctionSpec,
    /// What it may use, defaults filled in.
    pub limits: LimitsView,
}

impl RevisionView {
    /// The view of one of `function`'s revisions.
    #[must_use]
    pub fn new(function: &Function, revision: &Revision, data_address: &str) -> Self {
        Self {
            number: revision.number.0,
            active: function.active == Some(revision.number),
            url: format!("{}:{}/", own_url(function, data_address), revision.number),
            kind: revision.kind.as_str().to_owned(),
            digest: revision.digest.to_string(),
            component_bytes: revision.component_bytes,
            created_unix_ms: revision.created_unix_ms,
            spec: revision.spec.clone(),
            limits: revision.spec.limits().into(),
        }
    }
}

/// What a PUT or PATCH led to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PublishedView {
    /// False where the same component and spec were already active.
    pub created: bool,
    /// The revision that the upload is.
    pub revision: RevisionView,
    /// The function as it is now.
    pub function: FunctionView,
}

/// A function spec as it is written. Every field has a default; sizes are
/// `"256MiB"` or a number of bytes, times `"10s"` or a number of milliseconds.
///
/// Only for the OpenAPI document: it is read as a
/// [`FunctionSpec`].
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = FunctionSpec)]
pub struct SpecDocument {
    /// Routes besides the function's own URL.
    #[schema(example = json!(["POST /resize/{width}", "api.example.com/*"]))]
    pub routes: Vec<String>,
    /// Linear memory of one instance.
    #[schema(example = "128MiB")]
    pub memory: Option<String>,
    /// Wall time of one invocation.
    #[schema(example = "30s")]
    pub timeout: Option<String>,
    /// CPU time of one invocation.
    #[schema(example = "10s")]
    pub cpu: Option<String>,
    /// Largest request body.
    #[schema(example = "10MiB")]
    pub request_body: Option<String>,
    /// Largest response body.
    #[schema(example = "50MiB")]
    pub response_body: Option<String>,
    /// Log output of one invocation.
    #[schema(example = "64KiB")]
    pub logs: Option<String>,
    /// Invocations at the same time.
    #[schema(example = 100)]
    pub concurrency: Option<u32>,
    /// Environment variables that the guest sees.
    pub env: BTreeMap<String, String>,
    /// Where outgoing requests may go.
    #[schema(example = json!(["https://api.example.com"]))]
    pub allow_hosts: Vec<String>,
    /// Whether responses carry `Server-Timing`.
    pub server_timing: Option<bool>,
}

/// The bounds of one invocation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitsView {
    /// Wall time, in milliseconds.
    pub timeout_ms: u64,
    /// CPU time, in milliseconds.
    pub cpu_ms: u64,
    /// Linear memory, summed, in bytes.
    pub memory_bytes_max: u64,
    /// Request body, in bytes.
    pub request_body_bytes_max: u64,
    /// Response body, in bytes.
    pub response_body_bytes_max: u64,
    /// Log output, in bytes.
    pub log_bytes_max: u64,
    /// Invocations at the same time.
    pub concurrency: u32,
    /// Longest wait for a permit, in milliseconds.
    pub queue_wait_ms: u64,
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        Self {
            timeout_ms: limits.timeout_ms,
            cpu_ms: limits.cpu_ms,
            memory_bytes_max: limits.memory_bytes_max,
            request_body_bytes_max: limits.request_body_bytes_max,
            response_body_bytes_max: limits.response_body_bytes_max,
            log_bytes_max: limits.log_bytes_max,
            concurrency: limits.concurrency,
            queue_wait_ms: limits.queue_wait_ms,
        }
    }
}

/// Body of a rollback; may be left out.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRequest {
    /// The revision to go back to; the previously active one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

/// One line of a function's log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogLineView {
    /// When it was written, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Owner of the function.
    pub tenant: String,
    /// The function.
    pub function: String,
    /// The revision that wrote it; absent on lines about the log itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// The invocation that wrote it; absent on lines about the log itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// `stdout`, `stderr`, or `host` for what the host says about the invocation.
    pub stream: String,
    /// The text, without the line's end.
    pub text: String,
}

impl From<&LogLine> for LogLineView {
    fn from(line: &LogLine) -> Self {
        let stream = match line.stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Host => "host",
        };
        Self {
            unix_ms: line.unix_ms,
            tenant: line.function.tenant.to_string(),
            function: line.function.name.to_string(),
            revision: Some(line.revision.0),
            invocation: Some(line.invocation.to_string()),
            stream: stream.to_owned(),
            text: line.text.clone(),
        }
    }
}

/// The record of one invocation: what it cost and how it ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReceiptView {
    /// Also the response's `X-Request-Id`.
    pub id: String,
    /// When the request arrived, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Owner of the function; absent where no route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The function called; absent where no route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The revision that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// How it ended, by its stable code.
    #[schema(example = "ok")]
    pub outcome: String,
    /// The HTTP status sent, or that would have been sent.
    pub status: u16,
    /// Whether the revision had to be loaded from disk first.
    pub cold: bool,
    /// Arrival to last byte, in microseconds.
    pub total_us: u64,
    /// Waiting for a permit, in microseconds.
    pub queue_us: u64,
    /// Loading the revision, in microseconds.
    pub load_us: u64,
    /// Making the store and the instance, in microseconds.
    pub init_us: u64,
    /// From the call of the guest to its end, in microseconds of wall time.
    pub run_us: u64,
    /// CPU time of instantiation and guest together, in microseconds.
    pub cpu_us: u64,
    /// Highest summed linear memory, in bytes.
    pub memory_peak_bytes: u64,
    /// Request body bytes that were read.
    pub request_bytes: u64,
    /// Response body bytes that were sent.
    pub response_bytes: u64,
    /// Log bytes that the guest wrote, kept or not.
    pub log_bytes: u64,
    /// What went wrong, for the function's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        let (tenant, function) =
            receipt.function.map(|id| (id.tenant.to_string(), id.name.to_string())).unzip();
        Self {
            id: receipt.id.to_string(),
            unix_ms: receipt.id.unix_ms(),
            tenant,
            function,
            revision: receipt.revision.map(|number| number.0),
            outcome: receipt.outcome.as_str().to_owned(),
            status: receipt.status,
            cold: receipt.cold,
            total_us: receipt.total_us,
            queue_us: receipt.queue_us,
            load_us: receipt.load_us,
            init_us: receipt.init_us,
            run_us: receipt.run_us,
            cpu_us: receipt.cpu_us,
            memory_peak_bytes: receipt.memory_peak_bytes,
            request_bytes: receipt.request_bytes,
            response_bytes: receipt.response_bytes,
            log_bytes: receipt.log_bytes,
            error: receipt.error,
        }
    }
}

/// Query of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Most items of the page, 1 to 1000; 100 where absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Query of a PUT.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PublishQuery {
    /// Whether the revision gets the traffic at once; true where absent.
    pub activate: Option<bool>,
}

/// Query of a log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// Most of the last lines, 0 to 10000; 100 where absent.
    pub limit: Option<u32>,
    /// Only the lines of this invocation.
    pub invocation: Option<String>,
    /// Whether to go on with new lines as they are written.
    pub follow: Option<bool>,
}

/// Query of the invocations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InvocationsQuery {
    /// Only invocations of this function.
    pub function: Option<String>,
    /// Only invocations that ended so.
    pub outcome: Option<String>,
    /// Most items of the page, 1 to 1000; 100 where absent.
    pub limit: Option<u32>,
    /// Only invocations older than this id; `next` of the page before.
    pub before: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::SPEC_KEYS;

    #[test]
    fn the_documented_spec_has_the_keys_that_are_read() {
        let value = serde_json::to_value(SpecDocument::default()).unwrap();
        let mut documented: Vec<&String> = value.as_object().unwrap().keys().collect();
        let mut known = SPEC_KEYS.to_vec();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known);
    }

    #[test]
    fn urls_carry_the_tenant_where_it_is_not_the_default_one() {
        let mut function = Function {
            id: crate::model::ids::FunctionId {
                tenant: Default::default(),
                name: "hello".parse().unwrap(),
            },
            active: None,
            previous: None,
            revisions: vec![],
        };
        let url = |function: &Function| FunctionView::new(function, "http://127.0.0.1:1/").url;
        assert_eq!(url(&function), "http://127.0.0.1:1/hello/");
        function.id.tenant = "acme".parse().unwrap();
        assert_eq!(url(&function), "http://127.0.0.1:1/@acme/hello/");
    }
}
