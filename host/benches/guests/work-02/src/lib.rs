//! `work.rs` as a guest of WASI 0.2 http: `POST /json` and `GET /primes`.

use std::io::Write;

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

#[path = "../../work.rs"]
mod work;

wasip2::http::proxy::export!(Guest);

struct Guest;

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match request.path_with_query().as_deref() {
            Some("/json") => match work::echo(&read(&request)) {
                Some(json) => respond(out, 200, "application/json", &json),
                None => respond(out, 400, "text/plain", b"not JSON\n"),
            },
            Some("/primes") => {
                let primes = format!("{}\n", work::count_primes());
                respond(out, 200, "text/plain", primes.as_bytes());
            }
            _ => respond(out, 404, "text/plain", b"not found\n"),
        }
    }
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return bytes,
            Err(error) => panic!("the request broke off: {error:?}"),
        }
    }
}

fn respond(out: ResponseOutparam, status: u16, content_type: &str, content: &[u8]) {
    let fields = Fields::new();
    fields.append("content-type", content_type.as_bytes()).unwrap();
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().unwrap();
    stream.write_all(content).unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}
