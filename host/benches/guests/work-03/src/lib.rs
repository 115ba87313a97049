//! `work.rs` as a guest of WASI 0.3 http: `POST /json` and `GET /primes`.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::rt::async_support::StreamResult;
use wasip3::{spawn_local, wit_future, wit_stream};

#[path = "../../work.rs"]
mod work;

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        Ok(match request.get_path_with_query().as_deref() {
            Some("/json") => match work::echo(&read(request).await) {
                Some(json) => respond(200, "application/json", json),
                None => respond(400, "text/plain", b"not JSON\n".to_vec()),
            },
            Some("/primes") => {
                let primes = format!("{}\n", work::count_primes());
                respond(200, "text/plain", primes.into_bytes())
            }
            _ => respond(404, "text/plain", b"not found\n".to_vec()),
        })
    }
}

async fn read(request: Request) -> Vec<u8> {
    let (_, request_read) = wit_future::new(|| Ok(()));
    let (mut stream, _trailers) = Request::consume_body(request, request_read);
    let mut bytes = Vec::new();
    loop {
        let (result, chunk) = stream.read(Vec::with_capacity(64 * 1024)).await;
        bytes.extend(chunk);
        if let StreamResult::Dropped | StreamResult::Cancelled = result {
            return bytes;
        }
    }
}

/// A response whose body is written after this has returned.
fn respond(status: u16, content_type: &str, content: Vec<u8>) -> Response {
    let fields = Fields::new();
    fields.append("content-type", content_type.as_bytes()).unwrap();
    let (mut body, body_reader) = wit_stream::new();
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(body_reader), trailers_reader);
    response.set_status_code(status).unwrap();
    spawn_local(async move {
        let unwritten = body.write_all(content).await;
        assert!(unwritten.is_empty(), "the client has left");
        drop(body);
        drop(trailers);
    });
    response
}
