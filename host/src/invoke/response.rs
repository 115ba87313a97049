//! Step 6: the response as it goes out, with the guest running behind it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::cgi::CgiBody;
use super::drive::Driver;
use super::record::Record;
use super::tasks::Tasks;
use super::{Problem, outcome_of, response_failure};
use crate::capabilities::body::GuestBody;
use crate::engine::run::Failure;
use crate::model::invocation::Outcome;

/// A body that had to be cut: the connection is closed, so that the client
/// does not take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut: {0}")]
pub struct Cut(&'static str);

/// When the guest behind a response has to be over, for who writes the response:
/// while a client takes nothing, nobody polls the guest, and it can not end
/// itself. None where no guest is waiting. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct WriteDeadline(Arc<Mutex<Option<Instant>>>);

impl WriteDeadline {
    /// The time, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, deadline: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }
}

/// The body of any response of the data plane.
pub enum ResponseBody {
    /// A short text of our own.
    Text(Option<Bytes>),
    /// A guest's response.
    Guest(Box<GuestResponse>),
}

impl ResponseBody {
    /// Tells who writes it when its guest has to be over.
    pub fn announce(&mut self, deadline: &WriteDeadline) {
        if let Self::Guest(response) = self {
            deadline.set(Some(response.driver.deadline()));
            response.write_deadline = Some(deadline.clone());
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Guest(response) => response.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Guest(response) => response.buffered.is_empty() && response.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, length)),
            Self::Guest(response) => response.size_hint(),
        }
    }
}

fn length(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

/// Where a guest's body comes from.
pub enum Source {
    /// An http guest.
    Http(GuestBody),
    /// A CGI guest's standard output.
    Cgi(CgiBody),
}

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        match self {
            Self::Http(body) => Pin::new(body).poll_frame(context),
            Self::Cgi(body) => Pin::new(body).poll_frame(context),
        }
    }
}

/// A guest's response: its body, the guest that produces it, and the record.
pub struct GuestResponse {
    source: Source,
    driver: Driver,
    record: Option<Record>,
    /// Where the guest goes on once nobody reads its response any more.
    tasks: Tasks,
    /// Frames that were there when the head was, oldest first; two at most.
    buffered: Vec<Frame<Bytes>>,
    /// How the source ended, until it is known how the guest did.
    source_end: Option<Result<(), String>>,
    /// Whether the source has ended as it should.
    ended: bool,
    produced_bytes: u64,
    sent_bytes: u64,
    bytes_max: u64,
    /// What the guest said the length would be.
    declared_bytes: Option<u64>,
    /// Who has to know until when this may take.
    write_deadline: Option<WriteDeadline>,
}

impl GuestResponse {
    /// A response whose head is there.
    #[must_use]
    pub fn new(
        source: Source,
        driver: Driver,
        record: Record,
        tasks: Tasks,
        bytes_max: u64,
        declared_bytes: Option<u64>,
    ) -> Self {
        Self {
            source,
            driver,
            record: Some(record),
            tasks,
            buffered: Vec::new(),
            source_end: None,
            ended: false,
            produced_bytes: 0,
            sent_bytes: 0,
            bytes_max,
            declared_bytes,
            write_deadline: None,
        }
    }

    /// Takes what is there without waiting. A short response is then whole
    /// before its head goes out: its length is known, and if the guest failed
    /// after all, the client can still be told.
    pub fn prefetch(&mut self, context: &mut Context<'_>) -> Result<(), Problem> {
        while self.buffered.len() < 2 && !self.ended {
            match self.poll_source(context) {
                Poll::Ready(Some(Ok(frame))) => self.buffered.push(frame),
                Poll::Ready(Some(Err(problem))) => return Err(problem),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The record, for what the head has to say. It is there until the end.
    pub fn record(&mut self) -> Option<&mut Record> {
        self.record.as_mut()
    }

    /// Takes the record back from a response that is not sent after all.
    #[must_use]
    pub fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }

    /// For responses that have no body on the wire (HEAD, 204, 304): lets the
    /// guest go on to its end, and throws away what it writes.
    pub fn discard_body(mut self: Box<Self>) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let mut end = move |driver: &mut Driver| {
            let (outcome, error) = outcome_at_end(driver);
            record.ended(outcome, error);
        };
        if self.driver.ended() {
            return end(&mut self.driver);
        }
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            std::future::poll_fn(|context| {
                let ended = self.driver.poll(context);
                while let Poll::Ready(Some(Ok(_))) = self.source.poll(context) {}
                ended
            })
            .await;
            end(&mut self.driver);
        });
    }

    fn size_hint(&self) -> SizeHint {
        let buffered: u64 =
            self.buffered.iter().filter_map(|frame| frame.data_ref()).map(length).sum();
        if self.ended {
            return SizeHint::with_exact(buffered);
        }
        match self.declared_bytes {
            Some(bytes) => SizeHint::with_exact(bytes.saturating_sub(self.sent_bytes)),
            None => SizeHint::default(),
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if !self.buffered.is_empty() {
            let frame = self.buffered.remove(0);
            self.sent_bytes += frame.data_ref().map_or(0, length);
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            self.finish();
            return Poll::Ready(None);
        }
        match std::task::ready!(self.poll_source(context)) {
            Some(Ok(frame)) => {
                self.sent_bytes += frame.data_ref().map_or(0, length);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err((outcome, error))) => {
                let why = outcome.as_str();
                self.end(outcome, error);
                Poll::Ready(Some(Err(Cut(why))))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    /// Takes the next frame of the body, and lets the guest run if there is none.
    /// Ends with `None` only if the body is whole.
    fn poll_source(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        // What is there goes out first: each time that a guest is polled without
        // need costs two readings of its CPU clock and a look at all its tasks.
        if let Some(frame) = self.take_frame(context) {
            return Poll::Ready(Some(frame));
        }
        let _ = self.driver.poll_guest(context);
        if self.driver.is_away() {
            return self.wait(context);
        }
        if let Some(problem) = self.record.as_ref().and_then(|record| record.request_problem()) {
            return Poll::Ready(Some(Err(problem)));
        }
        if let Some(frame) = self.take_frame(context) {
            return Poll::Ready(Some(frame));
        }
        if self.source_end.is_some() && !self.driver.ended() {
            // Some guests only wait for their response to be taken.
            let _ = self.driver.poll_guest(context);
            if self.driver.is_away() {
                return self.wait(context);
            }
        }
        let failure = self.driver.take_failure();
        match (self.source_end.take(), failure) {
            (None, None) => self.wait(context),
            (None, Some(failure)) => Poll::Ready(Some(Err(outcome_of(failure)))),
            (Some(Err(error)), failure) => Poll::Ready(Some(Err(response_failure(failure, error)))),
            (Some(Ok(())), None) => self.whole(),
            // A command that has printed all it wanted may exit with any status;
            // only a trap cuts what it printed.
            (Some(Ok(())), Some(Failure::Exit(status)))
                if matches!(self.source, Source::Cgi(_)) =>
            {
                self.note(format!("the guest exited with status {status}"));
                self.whole()
            }
            (Some(Ok(())), Some(failure)) => Poll::Ready(Some(Err(outcome_of(failure)))),
        }
    }

    /// Nothing to do until the guest is woken, or its wall time is over.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        std::task::ready!(self.driver.poll_deadline(context));
        let failure = self.driver.take_failure().unwrap_or(Failure::Timeout);
        Poll::Ready(Some(Err(outcome_of(failure))))
    }

    /// A frame that the guest has made, if it has and is not making more at this
    /// moment. Notes the end of the source.
    fn take_frame(&mut self, context: &mut Context<'_>) -> Option<Result<Frame<Bytes>, Problem>> {
        if self.driver.is_away() || self.source_end.is_some() {
            return None;
        }
        // To take a frame may wake its guest, which is polled next in any case.
        match self.driver.noting_wakes(|| self.source.poll(context)) {
            Poll::Pending => None,
            Poll::Ready(Some(Ok(frame))) => {
                self.produced_bytes += frame.data_ref().map_or(0, length);
                Some(self.within_bounds().map(|()| frame))
            }
            Poll::Ready(Some(Err(error))) => {
                self.source_end = Some(Err(error));
                None
            }
            Poll::Ready(None) => {
                self.source_end = Some(Ok(()));
                None
            }
        }
    }

    fn whole(&mut self) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        if let Some(declared) = self.declared_bytes
            && declared != self.produced_bytes
        {
            let produced = self.produced_bytes;
            let error = format!("the guest declared {declared} bytes and sent {produced}");
            return Poll::Ready(Some(Err((Outcome::NoResponse, Some(error)))));
        }
        self.ended = true;
        Poll::Ready(None)
    }

    fn within_bounds(&self) -> Result<(), Problem> {
        if self.produced_bytes > self.bytes_max {
            let error = format!("the response is over its limit of {} bytes", self.bytes_max);
            return Err((Outcome::OutputLimit, Some(error)));
        }
        if self.declared_bytes.is_some_and(|declared| self.produced_bytes > declared) {
            let error = "the guest sent more than the length that it declared".to_owned();
            return Err((Outcome::NoResponse, Some(error)));
        }
        Ok(())
    }

    fn note(&self, text: String) {
        if let Some(record) = &self.record {
            record.note(&text);
        }
    }

    /// The response is whole. What the guest still does goes on without the
    /// client, under the same limits, and is recorded with the rest.
    fn finish(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        // What is left to write needs no guest.
        if let Some(deadline) = &self.write_deadline {
            deadline.set(None);
        }
        record.sent(self.sent_bytes);
        if self.driver.ended() {
            record.ended(Outcome::Ok, None);
            return;
        }
        let mut driver = self.driver.take();
        self.tasks.spawn(async move {
            std::future::poll_fn(|context| driver.poll(context)).await;
            let (outcome, error) = outcome_at_end(&mut driver);
            record.ended(outcome, error);
        });
    }

    fn end(&mut self, outcome: Outcome, error: Option<String>) {
        if let Some(mut record) = self.record.take() {
            record.sent(self.sent_bytes);
            record.ended(outcome, error);
        }
    }
}

/// How a guest ended whose response nobody waits for any more.
fn outcome_at_end(driver: &mut Driver) -> Problem {
    match driver.take_failure() {
        None | Some(Failure::Exit(_)) => (Outcome::Ok, None),
        Some(failure) => outcome_of(failure),
    }
}

impl Drop for GuestResponse {
    /// Reached with a record only if the body was not read to its end: either
    /// nothing of it was left to read, or the client has gone.
    fn drop(&mut self) {
        let sent_all = self.declared_bytes == Some(self.sent_bytes);
        if self.buffered.is_empty() && (self.ended || sent_all) {
            self.finish();
        } else if self.driver.deadline() <= Instant::now() {
            let error = "the wall time limit is used up: the client did not take the response";
            self.end(Outcome::Timeout, Some(error.to_owned()));
        } else if let Some(record) = &mut self.record {
            record.sent(self.sent_bytes);
        }
        if let Some(deadline) = &self.write_deadline {
            deadline.set(None);
        }
    }
}
