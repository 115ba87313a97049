//! Server-sent events: a stream that a browser reads with `EventSource`, and that
//! goes on where it broke off.

use std::thread::sleep;
use std::time::Duration;

use whit_sdk::http::{Request, Response};
use whit_sdk::{Body, Result, RequestExt};

const EVENTS_MAX: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(100);

#[whit_sdk::handler]
fn events(request: Request<Body>) -> Result<Response<Body>> {
    let count = request.query_as("n")?.unwrap_or(5).min(EVENTS_MAX);
    // A browser that connects again says what it has seen.
    let seen = request.headers().get("last-event-id");
    let seen: u32 = seen.and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    let body = Body::stream(move |writer| {
        // How long a browser waits before it connects again, in milliseconds.
        write!(writer, "retry: 1000\n\n")?;
        for number in seen.saturating_add(1)..=count {
            write!(writer, "id: {number}\nevent: tick\ndata: {{\"number\": {number}}}\n\n")?;
            // Each event is on its way at once.
            writer.flush()?;
            sleep(PAUSE);
        }
        write!(writer, "event: end\ndata:\n\n")
    });
    let response = Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store");
    Ok(response.body(body).expect("these headers are well formed"))
}
