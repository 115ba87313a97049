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

use super::AdminState;
use super::extract::{ApiQuery, FunctionPath};
use super::types::{LogLineView, LogsQuery};
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
    // Subscribed before the tail is read: no line is lost in between, and one
    // that is in both is sent once.
    let follow = query.follow.unwrap_or(false);
    let receiver = follow.then(|| state.telemetry.logs.follow(&id));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let tail: Vec<_> = state
        .telemetry
        .logs
        .tail(&id, limit, invocation)
        .into_iter()
        .map(Arc::new)
        .collect();
    let seen = Seen::new(&tail, receiver.as_ref());
    let tail: Vec<Bytes> = tail
        .iter()
        .map(|line| ndjson(&LogLineView::from(&**line)))
        .collect();
    let tail = stream::iter(tail);
    let body = match receiver {
        Some(receiver) => {
            let follower = Follower {
                receiver,
                function: id,
                invocation,
                seen,
                closing: state.closing.clone(),
            };
            Body::from_stream(
                tail.chain(follower.lines())
                    .map(Ok::<_, std::convert::Infallible>),
            )
        }
        None => Body::from_stream(tail.map(Ok::<_, std::convert::Infallible>)),
    };
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// The lines of the tail that the receiver will hand out once more.
struct Seen(Vec<Arc<LogLine>>);

impl Seen {
    fn new(tail: &[Arc<LogLine>], receiver: Option<&Receiver<Arc<LogLine>>>) -> Self {
        let waiting = receiver.map_or(0, Receiver::len);
        Self(tail.iter().rev().take(waiting).cloned().collect())
    }

    /// Whether this very line was in the tail. Once it was not, none will be.
    fn contains(&mut self, line: &Arc<LogLine>) -> bool {
        let found = self.0.iter().any(|seen| Arc::ptr_eq(seen, line));
        if !found {
            self.0.clear();
        }
        found
    }
}

/// A client that waits for new lines.
struct Follower {
    receiver: Receiver<Arc<LogLine>>,
    function: FunctionId,
    invocation: Option<InvocationId>,
    seen: Seen,
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
                    let wanted = self
                        .invocation
                        .is_none_or(|wanted| line.invocation == wanted);
                    if !self.seen.contains(&line) && wanted {
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

    fn follower(receiver: Receiver<Arc<LogLine>>, tail: &[Arc<LogLine>]) -> Follower {
        Follower {
            seen: Seen::new(tail, Some(&receiver)),
            receiver,
            function: super::super::extract::function_id("hello").unwrap(),
            invocation: None,
            closing: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn a_line_in_tail_and_stream_is_sent_once() {
        let (sender, receiver) = broadcast::channel(8);
        let (first, second) = (line("same"), line("same"));
        sender.send(Arc::clone(&first)).unwrap();
        let mut follower = follower(receiver, &[line("old"), first]);
        sender.send(second).unwrap();
        drop(sender);
        assert_eq!(follower.next().await.unwrap().text, "same");
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_learns_what_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        let mut follower = follower(receiver, &[]);
        for text in ["a", "b", "c", "d"] {
            sender.send(line(text)).unwrap();
        }
        let skipped = follower.next().await.unwrap();
        assert!(
            skipped.text.starts_with("2 lines were skipped"),
            "{}",
            skipped.text
        );
        assert_eq!(
            (skipped.stream.as_str(), skipped.invocation),
            ("host", None)
        );
        assert_eq!(follower.next().await.unwrap().text, "c");
    }

    #[tokio::test]
    async fn a_stopping_server_ends_the_stream() {
        let (_sender, receiver) = broadcast::channel(2);
        let mut follower = follower(receiver, &[]);
        follower.closing.cancel();
        assert!(follower.next().await.is_none());
    }
}
