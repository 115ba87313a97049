//! The admin API, as a program would use it.

use serde_json::Value;

use crate::http::{Connection, Request, Response};
use crate::wait::eventually;

/// A client of one host's admin API.
#[derive(Debug, Clone, Copy)]
pub struct Admin<'a> {
    address: &'a str,
    token: &'a str,
}

impl<'a> Admin<'a> {
    /// A client that sends this token.
    #[must_use]
    pub fn new(address: &'a str, token: &'a str) -> Self {
        Self { address, token }
    }

    /// Sends a request with the token.
    #[track_caller]
    pub fn call(&self, request: &Request) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let request = request.clone().header("authorization", &bearer);
        Connection::open(self.address).call(&request)
    }

    /// As [`Self::call`], for a host that may be killed meanwhile.
    ///
    /// # Errors
    /// When the connection ends before the answer.
    pub fn try_call(&self, request: &Request) -> std::io::Result<Response> {
        let bearer = format!("Bearer {}", self.token);
        let mut connection = Connection::try_open(self.address)?;
        connection.send(&request.clone().header("authorization", &bearer))?;
        connection.response()
    }

    /// `GET path`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.call(&Request::get(path))
    }

    /// `GET path`, which has to be there, as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status(), 200, "GET {path}: {}", response.text());
        response.json()
    }

    /// Uploads a component without a spec.
    #[track_caller]
    pub fn put(&self, name: &str, component: &[u8]) -> Response {
        self.call(&put_request(name, component))
    }

    /// Uploads a component with a spec, as multipart/form-data.
    #[track_caller]
    pub fn put_with_spec(&self, name: &str, component: &[u8], spec: &Value) -> Response {
        self.call(&form_request(name, component, spec))
    }

    /// Deploys a component that has to be taken.
    #[track_caller]
    pub fn deploy(&self, name: &str, component: &[u8]) -> Value {
        created(&self.put(name, component))
    }

    /// Deploys a component with a spec, both of which have to be taken.
    #[track_caller]
    pub fn deploy_with_spec(&self, name: &str, component: &[u8], spec: &Value) -> Value {
        created(&self.put_with_spec(name, component, spec))
    }

    /// Changes the spec.
    #[track_caller]
    pub fn patch(&self, name: &str, spec: &Value) -> Response {
        let request = Request::new("PATCH", &format!("/v1/functions/{name}"));
        let request = request.header("content-type", "application/merge-patch+json");
        self.call(&request.body(spec.to_string()))
    }

    /// Changes the spec; the change has to be taken.
    #[track_caller]
    pub fn change(&self, name: &str, spec: &Value) -> Value {
        created(&self.patch(name, spec))
    }

    /// `POST path` with a JSON body.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Response {
        let request = Request::post(path, body).header("content-type", "application/json");
        self.call(&request)
    }

    /// `DELETE path`.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.call(&Request::new("DELETE", path))
    }

    /// The receipt of an invocation; waits until it is written.
    #[must_use]
    #[track_caller]
    pub fn receipt(&self, id: &str) -> Value {
        eventually(&format!("the receipt of {id}"), || {
            let response = self.get(&format!("/v1/invocations/{id}"));
            (response.status() == 200).then(|| response.json())
        })
    }

    /// The receipts of a function with this outcome; waits until there are `count`.
    #[must_use]
    #[track_caller]
    pub fn receipts(&self, function: &str, outcome: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/invocations?function={function}&outcome={outcome}&limit=1000");
        eventually(&format!("{count} receipts with {outcome}"), || {
            let page = self.json(&path);
            let items = page["items"].as_array().cloned().unwrap_or_default();
            (items.len() >= count).then_some(items)
        })
    }

    /// The lines of a function's log now.
    #[must_use]
    #[track_caller]
    pub fn logs(&self, function: &str, query: &str) -> Vec<Value> {
        let response = self.get(&format!("/v1/functions/{function}/logs?{query}"));
        assert_eq!(response.status(), 200, "{}", response.text());
        let text = response.text();
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("NDJSON"));
        lines.collect()
    }

    /// One sample of `/metrics`; 0 where it is not there.
    #[must_use]
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let response = self.get("/metrics");
        assert_eq!(response.status(), 200, "{}", response.text());
        let text = response.text();
        let value = text.lines().find_map(|line| {
            let value = line.strip_prefix(sample)?.strip_prefix(' ')?;
            value.parse().ok()
        });
        value.unwrap_or(0.0)
    }

    /// Waits until a sample of `/metrics` has a value.
    #[track_caller]
    pub fn metric_becomes(&self, sample: &str, value: f64) {
        let mut seen = f64::NAN;
        eventually(&format!("{sample} is {value}"), || {
            seen = self.metric(sample);
            ((seen - value).abs() < f64::EPSILON).then_some(())
        });
    }
}

/// The request that uploads a component without a spec.
#[must_use]
pub fn put_request(name: &str, component: &[u8]) -> Request {
    let request = Request::new("PUT", &format!("/v1/functions/{name}"));
    request.header("content-type", "application/wasm").body(component)
}

/// The request that uploads a component with a spec.
#[must_use]
pub fn form_request(name: &str, component: &[u8], spec: &Value) -> Request {
    const BOUNDARY: &str = "a-boundary-that-is-in-no-component";
    let part = |name: &str, kind: &str| {
        format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; \
             filename=\"{name}\"\r\ncontent-type: {kind}\r\n\r\n"
        )
    };
    let mut body = part("spec", "application/json").into_bytes();
    body.extend_from_slice(format!("{spec}\r\n").as_bytes());
    body.extend_from_slice(part("component", "application/wasm").as_bytes());
    body.extend_from_slice(component);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let request = Request::new("PUT", &format!("/v1/functions/{name}"));
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    request.header("content-type", &kind).body(body)
}

#[track_caller]
fn created(response: &Response) -> Value {
    assert_eq!(response.status(), 201, "deploy: {}", response.text());
    response.json()
}
