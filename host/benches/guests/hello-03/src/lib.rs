//! Says hello by WASI 0.3 http, and can do nothing else.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        let fields = Fields::new();
        fields.append("content-type", b"text/plain").unwrap();
        let (mut body, body_reader) = wit_stream::new();
        let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(fields, Some(body_reader), trailers_reader);
        spawn_local(async move {
            let unwritten = body.write_all(b"hello\n".to_vec()).await;
            assert!(unwritten.is_empty(), "the client has left");
            drop(body);
            drop(trailers);
        });
        Ok(response)
    }
}
