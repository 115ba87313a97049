//! Outgoing HTTP requests of a guest. Nothing is allowed by default.

use std::sync::Arc;

use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

/// Where a function's outgoing requests may go.
#[derive(Debug, Default)]
pub struct Egress {}

/// The hooks of one store.
pub struct HttpHooks {
    egress: Arc<Egress>,
    timeout_ms: u64,
}

impl HttpHooks {
    /// Hooks that allow what `egress` allows.
    #[must_use]
    pub fn new(egress: Arc<Egress>, timeout_ms: u64) -> Self {
        Self { egress, timeout_ms }
    }
}

type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sending = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Sent), Error>> + Send>;

impl WasiHttpHooks for HttpHooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Sent,
    ) -> Sending {
        let _ = (&self.egress, self.timeout_ms);
        Box::new(async { Err(Error::HttpRequestDenied) })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }
}
