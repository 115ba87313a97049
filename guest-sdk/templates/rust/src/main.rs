use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let name = match request.uri().path().trim_start_matches('/') {
        "" => "world",
        name => name,
    };
    let response = Response::builder()
        .header("content-type", "text/plain; charset=utf-8")
        .body(format!("Hello, {name}, from Rust!\n").into())?;
    Ok(response)
}
