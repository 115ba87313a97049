//! `/v1/functions/{name}/logs`: the last lines, and on request the next ones.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::extract::{ApiQuery, FunctionPath};
use super::types::{LogLineView, LogsQuery};
use super::{AdminState, blocking};
use crate::http_error::{Code, Problem};
use crate::model::ids::{FunctionId, InvocationId};
use crate::model::invocation::LogLine;
use crate::telemetry::clock;

/// Lines unless asked otherwise.
const LINES_DEFAULT: u32 = 100;
/// Most lines at once.
const LINES_MAX: u32 = 10_000;

/// Reads a function's log as NDJSON, one line of JSON for each line of log.
///
/// With `follow=true` the answer goes on with new lines until the client
/// leaves. A client that reads too slowly gets a line with stream `host` that
/// says how many it has missed.
#[utoipa::path(
    get, path = "/v1/functions/{name}/logs", operation_id = "get_logs", tag = "logs",
    params(("name" = String, Path, description = "Name of the function"), LogsQuery),
    responses(
        (status = 200, body = LogLineView, content_type = "application/x-ndjson"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read(
    State(state): State<Arc<AdminState>>,
    FunctionPath(id): FunctionPath,
    ApiQuery(query): ApiQuery<LogsQuery>,
) -> Result<Response, Problem> {
    // Also when it is gone its lines may still be there; but a slip in the name
    // must not look like silence.
    state.registry.function(&id)?;
    let limit = query.limit.unwrap_or(LINES_DEFAULT);
    if limit > LINES_MAX {
        let detail = format!("limit={limit} is out of bounds; give a number up to {LINES_MAX}.");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let invocation: Option<InvocationId> =
        query.invocation.as_deref().map(str::parse).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (telemetry, function) = (Arc::clone(&state.telemetry), id.clone());
    let follow = query.follow.unwrap_or(false);
    let (tail, receiver) = blocking(move || {
        if follow {
            let (tail, receiver) = telemetry.logs.tail_and_follow(&function, limit, invocation);
            (tail, Some(receiver))
        } else {
            (telemetry.logs.tail(&function, limit, invocation), None)
        }
    })
    .await?;
    let tail = stream::iter(tail).map(|line| ndjson(&LogLineView::from(&line)));
    let closing = state.closing.clone();
    let follower =
        receiver.map(|receiver| Follower { receiver, function: id, invocation, closing });
    let next = stream::iter(follower).flat_map(Follower::lines);
    let body = Body::from_stream(tail.chain(next).map(Ok::<_, std::convert::Infallible>));
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// A client that waits for new lines.
struct Follower {
    receiver: Receiver<Arc<LogLine>>,
    function: FunctionId,
    invocation: Option<InvocationId>,
    closing: CancellationToken,
}

impl Follower {
    fn lines(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut follower| async move {
            let line = follower.next().await?;
            Some((ndjson(&line), follower))
        })
    }

    /// The next line; none when the server stops.
    async fn next(&mut self) -> Option<LogLineView> {
        loop {
            let received = tokio::select! {
                () = self.closing.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(line) => {
                    let wanted = self.invocation.is_none_or(|wanted| line.invocation == wanted);
                    if wanted {
                        return Some(LogLineView::from(&*line));
                    }
                }
                Err(RecvError::Lagged(count)) => return Some(self.skipped(count)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn skipped(&self, count: u64) -> LogLineView {
        LogLineView {
            unix_ms: clock::unix_ms(),
            tenant: self.function.tenant.to_string(),
            function: self.function.name.to_string(),
            revision: None,
            invocation: None,
            stream: "host".to_owned(),
            text: format!("{count} lines were skipped here: they came faster than they were read"),
        }
    }
}

fn ndjson(line: &LogLineView) -> Bytes {
    // Strings and numbers always serialise.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;
    use crate::model::ids::RevisionNumber;
    use crate::model::invocation::LogStream;

    fn line(text: &str) -> Arc<LogLine> {
        Arc::new(LogLine {
            unix_ms: 1,
            function: super::super::extract::function_id("hello").unwrap(),
            revision: RevisionNumber(1),
            invocation: InvocationId(7),
            stream: LogStream::Stdout,
            text: text.into(),
        })
    }

    fn follower(receiver: Receiver<Arc<LogLine>>) -> Follower {
        Follower {
            receiver,
            function: super::super::extract::function_id("hello").unwrap(),
            invocation: None,
            closing: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn only_the_wanted_invocation_is_followed() {
        let (sender, receiver) = broadcast::channel(8);
        let mut follower = follower(receiver);
        follower.invocation = Some(InvocationId(8));
        sender.send(line("of another")).unwrap();
        let mut wanted = LogLine::clone(&line("wanted"));
        wanted.invocation = InvocationId(8);
        sender.send(Arc::new(wanted)).unwrap();
        drop(sender);
        assert_eq!(follower.next().await.unwrap().text, "wanted");
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_learns_what_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        let mut follower = follower(receiver);
        for text in ["a", "b", "c", "d"] {
            sender.send(line(text)).unwrap();
        }
        let skipped = follower.next().await.unwrap();
        assert!(skipped.text.starts_with("2 lines were skipped"), "{}", skipped.text);
        assert_eq!((skipped.stream.as_str(), skipped.invocation), ("host", None));
        assert_eq!(follower.next().await.unwrap().text, "c");
    }

    #[tokio::test]
    async fn a_stopping_server_ends_the_stream() {
        let (_sender, receiver) = broadcast::channel(2);
        let mut follower = follower(receiver);
        follower.closing.cancel();
        assert!(follower.next().await.is_none());
    }
}
