//! Text, JSON, a stream and configuration: the whole of `whit-sdk` in one small function.

use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use whit_sdk::http::{Method, Request, Response};
use whit_sdk::{Body, Error, IntoResponse, Json, RequestExt, Result, config_or};

const LINES_MAX: u32 = 100;

#[whit_sdk::handler]
fn handle(request: Request<Body>) -> Result<Response<Body>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(greet(&request)?.into_response()),
        (&Method::POST, "/json") => Ok(shout(request.json()?).into_response()),
        (&Method::GET, "/count") => Ok(count(&request)?.into_response()),
        (_, "/" | "/json" | "/count") => Err(Error::method_not_allowed(
            "try GET /, POST /json or GET /count",
        )),
        (_, path) => Err(Error::not_found(format!("there is nothing at {path}"))),
    }
}

/// Text, with a word from the configuration.
fn greet(request: &Request<Body>) -> Result<String> {
    let greeting = config_or("GREETING", "Hello".to_string())?;
    let name = request.query("name").unwrap_or_else(|| "world".to_string());
    Ok(format!("{greeting}, {name}!\n"))
}

#[derive(Deserialize)]
struct Message {
    message: String,
    #[serde(default)]
    times: u8,
}

#[derive(Serialize)]
struct Shout {
    shout: String,
    length: usize,
}

/// JSON in, JSON out. What does not fit `Message` is a 400 that says why.
fn shout(message: Message) -> Json<Shout> {
    let length = message.message.chars().count();
    let exclamation = "!".repeat(usize::from(message.times));
    Json(Shout {
        shout: message.message.to_uppercase() + &exclamation,
        length,
    })
}

/// A stream: each line reaches the client when it is flushed.
fn count(request: &Request<Body>) -> Result<Body> {
    let lines = request.query_as("n")?.unwrap_or(5).min(LINES_MAX);
    Ok(Body::stream(move |writer| {
        for line in 1..=lines {
            writeln!(writer, "{line}")?;
            writer.flush()?;
            if line < lines {
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: Request<&str>) -> (u16, String) {
        let response = handle(request.map(Body::from)).into_response();
        let status = response.status().as_u16();
        (status, response.into_body().text(10_000).unwrap())
    }

    #[test]
    fn answers() {
        let request = Request::get("/?name=Ada").body("").unwrap();
        assert_eq!(answer(request), (200, "Hello, Ada!\n".to_string()));

        let request = Request::post("/json")
            .body(r#"{"message": "rust", "times": 2}"#)
            .unwrap();
        let expected = r#"{"shout":"RUST!!","length":4}"#.to_string();
        assert_eq!(answer(request), (200, expected));

        let request = Request::get("/count?n=2").body("").unwrap();
        assert_eq!(answer(request), (200, "1\n2\n".to_string()));
    }

    #[test]
    fn refuses() {
        let refused = |request| answer(request).0;
        assert_eq!(refused(Request::get("/x").body("").unwrap()), 404);
        assert_eq!(refused(Request::get("/json").body("").unwrap()), 405);
        assert_eq!(refused(Request::post("/json").body("{").unwrap()), 400);
        assert_eq!(refused(Request::get("/count?n=x").body("").unwrap()), 400);
    }
}
