//! Steps 3 to 7 of a request, for every trigger: admit, acquire, call, respond,
//! record. [`Invoker::invoke`] is the whole path.

pub mod admission;
pub mod cgi;
pub mod drive;
pub mod fair;
pub mod pace;
pub mod record;
pub mod request;
pub mod response;
pub mod target;
pub mod tasks;
pub mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::capabilities::http::HOPS_MAX;
use crate::capabilities::log::{GuestLog, LogSource};
use crate::capabilities::pipe::{PipeReader, pipe};
use crate::engine::Engines;
use crate::engine::cpu::CpuClock;
use crate::engine::loader::{Guest, Loader};
use crate::engine::run::{self, Call, Failure, Protocol, Reply, Terms};
use crate::model::function::GuestKind;
use crate::model::invocation::Outcome;
use crate::telemetry::{Telemetry, error_chain};
use admission::{HostGate, Permit, Refused};
use cgi::{CgiBody, HeadReader};
use drive::Driver;
use record::Record;
use request::RequestBody;
use response::{GuestResponse, Source};
use target::Target;
use tasks::Tasks;

/// Why there is no response of the guest's: for the client the outcome, for the
/// function's owner the text.
pub type Problem = (Outcome, Option<String>);

/// What a trigger hands over: a request whose path is what the guest sees.
pub struct Incoming<B> {
    /// The request; its host is in `authority`.
    pub request: Request<B>,
    /// The host that the client asked for.
    pub authority: Box<str>,
    /// The part of the path that led to the function.
    pub prefix: Box<str>,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// How many functions of this host have called each other to get here.
    pub hops: u8,
}

/// Runs invocations.
pub struct Invoker {
    engines: Engines,
    loader: Arc<Loader>,
    telemetry: Arc<Telemetry>,
    host_gate: HostGate,
    tasks: Tasks,
}

/// A guest's answer, on its way to the client.
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, with the guest behind it.
    pub response: Box<GuestResponse>,
    /// Whether the body is not sent: HEAD requests, 204, 304.
    pub bodyless: bool,
}

/// How an invocation answered: the guest's answer, or a problem and the record
/// to finish it with.
pub type Answer = Result<Answered, (Record, Problem)>;

impl Invoker {
    /// An invoker for at most `instances_max` guests at once, in these tasks.
    #[must_use]
    pub fn new(
        engines: Engines,
        loader: Arc<Loader>,
        telemetry: Arc<Telemetry>,
        instances_max: u32,
        tasks: Tasks,
    ) -> Self {
        Self { engines, loader, telemetry, host_gate: HostGate::new(instances_max), tasks }
    }

    /// The tasks that requests run in.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Guests that are running now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.host_gate.in_use()
    }

    /// Invokes a target. Everything the invocation holds lives in the returned
    /// response: dropping it ends the guest and writes the receipt.
    pub async fn invoke<B>(
        &self,
        target: &Target,
        incoming: Incoming<B>,
        mut record: Record,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        record.routed(&target.function, target.revision);
        if incoming.hops > HOPS_MAX {
            return Err((record, (Outcome::Recursion, None)));
        }
        let (head, source, driver) = match self.respond(target, incoming, &mut record).await {
            Ok(answer) => answer,
            Err(problem) => return Err((record, problem)),
        };
        let Head { status, headers, bodyless } = head;
        let declared = if bodyless { None } else { cgi::declared_length(&headers) };
        let bytes_max = target.limits.response_body_bytes_max;
        let tasks = self.tasks.clone();
        let mut response =
            Box::new(GuestResponse::new(source, driver, record, tasks, bytes_max, declared));
        if !bodyless {
            let prefetched =
                std::future::poll_fn(|context| Poll::Ready(response.prefetch(context))).await;
            if let Err(problem) = prefetched
                && let Some(record) = response.take_record()
            {
                return Err((record, problem));
            }
        }
        Ok(Answered { status, headers, response, bodyless })
    }

    /// Admits, acquires and calls, up to the head of the guest's answer.
    async fn respond<B>(
        &self,
        target: &Target,
        incoming: Incoming<B>,
        record: &mut Record,
    ) -> Result<(Head, Source, Driver), Problem>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let limits = target.limits;
        let body_bytes = incoming.request.body().size_hint().exact();
        if body_bytes.is_some_and(|bytes| bytes > limits.request_body_bytes_max) {
            return Err((Outcome::BodyTooLarge, None));
        }
        let permit = self.admit(target, record).await?;
        let guest = self.acquire(target, record).await?;
        let meter = Arc::clone(&record.meter);
        let cpu = Arc::new(CpuClock::new(Arc::clone(&meter), limits.cpu_ms));
        let source = LogSource {
            function: target.function.clone(),
            revision: target.revision,
            invocation: record.id,
        };
        let telemetry = Arc::clone(&self.telemetry);
        let log =
            Arc::new(GuestLog::new(source, telemetry, Arc::clone(&meter), limits.log_bytes_max));
        let called = record.called(Arc::clone(&log));
        let Incoming { request, authority, prefix, peer, secure, hops } = incoming;
        let (head, body) = request.into_parts();
        let mut body = RequestBody::new(body, Arc::clone(&meter), limits.request_body_bytes_max);
        if head.headers.contains_key(http::header::EXPECT) {
            body.welcome().await;
        }
        let request = Request::from_parts(head, body);
        let incoming = Incoming { request, authority, prefix, peer, secure, hops };
        let (protocol, answer) = protocol(target.kind, incoming, body_bytes);
        let terms = Terms {
            environment: Arc::clone(&target.environment),
            limits,
            memory: Arc::clone(self.engines.memory()),
            clocks: self.engines.clocks(),
            meter,
            cpu: Arc::clone(&cpu),
            log,
            egress: Arc::clone(&target.egress),
            clears_slowly: self.engines.clears_slowly(&guest),
            secure,
            hops,
        };
        let call = Call { protocol, terms };
        let deadline = Instant::from_std(called) + Duration::from_millis(limits.timeout_ms);
        let guest = run::run(guest, call);
        let mut driver = Driver::new(guest, permit, cpu, deadline);
        let (head, source) = answer.wait(&mut driver, record).await?;
        Ok((head, source, driver))
    }

    async fn admit(&self, target: &Target, record: &mut Record) -> Result<Permit, Problem> {
        let wait_max = Duration::from_millis(target.limits.queue_wait_ms);
        let admitted = admission::admit(&target.gate, &self.host_gate, wait_max).await;
        if admitted.as_ref().map_or(true, |permit| permit.waited) {
            record.waited();
        }
        admitted.map_err(|refused| match refused {
            Refused::Function => (Outcome::TenantLimited, None),
            Refused::Host => (Outcome::Overloaded, None),
        })
    }

    async fn acquire(&self, target: &Target, record: &mut Record) -> Result<Arc<Guest>, Problem> {
        if let Some(guest) = target.slot.get()
            && let Some(guest) = &*guest
        {
            return Ok(Arc::clone(guest));
        }
        let started = Instant::now();
        let loaded = self.loader.load(&target.slot).await;
        record.loaded_cold(started.elapsed());
        loaded.map_err(|error| {
            let error = error_chain(&error);
            tracing::error!(function = %target.function, %error, "a revision can not be loaded");
            (Outcome::HostError, Some(error))
        })
    }
}

/// The head of a guest's answer.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    /// What comes after the head is not sent.
    bodyless: bool,
}

/// Where the answer of a call will be.
enum AwaitedAnswer {
    Http { reply: oneshot::Receiver<Reply>, bodyless: bool },
    Cgi { output: PipeReader, bodyless: bool },
}

fn protocol<B>(
    kind: GuestKind,
    incoming: Incoming<B>,
    body_bytes: Option<u64>,
) -> (Protocol<B>, AwaitedAnswer) {
    let Incoming { request, authority, prefix, peer, secure, hops: _ } = incoming;
    let bodyless = request.method() == Method::HEAD;
    match kind {
        GuestKind::Http02 | GuestKind::Http03 => {
            let (reply, awaited) = oneshot::channel();
            (Protocol::Http { request, reply }, AwaitedAnswer::Http { reply: awaited, bodyless })
        }
        GuestKind::Cgi01 | GuestKind::Cgi02 | GuestKind::Cgi03 => {
            let (stdout, output) = pipe();
            let (head, stdin) = request.into_parts();
            let variables = cgi::variables(&head, &prefix, &authority, peer, secure, body_bytes);
            let protocol = Protocol::Cgi { variables, stdin, stdout };
            (protocol, AwaitedAnswer::Cgi { output, bodyless })
        }
    }
}

impl AwaitedAnswer {
    /// Drives the guest until the head of its answer is there.
    async fn wait(self, driver: &mut Driver, record: &Record) -> Result<(Head, Source), Problem> {
        let result = match self {
            Self::Http { reply, bodyless } => wait_http(driver, reply, bodyless).await,
            Self::Cgi { output, bodyless } => wait_cgi(driver, output, bodyless).await,
        };
        if let Some(problem) = record.request_problem() {
            return Err(problem);
        }
        let (mut head, source) = result?;
        head.bodyless |= matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok((head, source))
    }
}

async fn wait_http(
    driver: &mut Driver,
    mut reply: oneshot::Receiver<Reply>,
    bodyless: bool,
) -> Result<(Head, Source), Problem> {
    let reply = std::future::poll_fn(|context| {
        let ended = driver.poll_guest(context);
        // It can only answer while it is polled: no waker is needed.
        if !driver.is_away()
            && let Ok(reply) = reply.try_recv()
        {
            return Poll::Ready(Some(reply));
        }
        if ended.is_pending() {
            std::task::ready!(driver.poll_deadline(context));
        }
        Poll::Ready(None)
    })
    .await;
    let Some(reply) = reply else {
        return Err(driver.take_failure().map_or_else(
            || {
                let error = "the guest returned without setting a response".to_owned();
                (Outcome::NoResponse, Some(error))
            },
            outcome_of,
        ));
    };
    match reply {
        Reply::Response(response) => {
            let (head, body) = response.into_parts();
            let head = Head { status: head.status, headers: head.headers, bodyless };
            Ok((check_head(head)?, Source::Http(body)))
        }
        Reply::Refused(code) => {
            Err((Outcome::NoResponse, Some(format!("the guest answered with an error: {code}"))))
        }
    }
}

/// 1xx are not final responses, and a 101 would hand over the connection. Fields
/// are bounded as they are in CGI; the bytes of all, where the guest makes them.
fn check_head(head: Head) -> Result<Head, Problem> {
    if head.headers.len() > cgi::FIELDS_MAX {
        let error = format!("the response has over {} header fields", cgi::FIELDS_MAX);
        return Err((Outcome::OutputLimit, Some(error)));
    }
    if (200..600).contains(&head.status.as_u16()) {
        return Ok(head);
    }
    let error = format!("the guest answered with status {}", head.status.as_u16());
    Err((Outcome::NoResponse, Some(error)))
}

async fn wait_cgi(
    driver: &mut Driver,
    mut output: PipeReader,
    bodyless: bool,
) -> Result<(Head, Source), Problem> {
    let mut reader = HeadReader::default();
    loop {
        let chunk = std::future::poll_fn(|context| {
            let _ = driver.poll_guest(context);
            // Closed, at the latest, with the store of a guest that has ended.
            if !driver.is_away()
                && let Poll::Ready(chunk) = driver.noting_wakes(|| output.poll_read(context))
            {
                return Poll::Ready(chunk);
            }
            std::task::ready!(driver.poll_deadline(context));
            output.poll_read(context)
        })
        .await;
        let Some(chunk) = chunk else {
            return Err(match driver.take_failure() {
                Some(Failure::Exit(status)) => {
                    let error = format!("the guest exited with status {status} and no response");
                    (Outcome::Trapped, Some(error))
                }
                Some(failure) => outcome_of(failure),
                None => (Outcome::NoResponse, Some(cgi::CgiError::NoEnd.to_string())),
            });
        };
        match reader.push(&chunk) {
            Ok(None) => {}
            Ok(Some((status, headers, first))) => {
                let head = Head { status, headers, bodyless };
                return Ok((head, Source::Cgi(CgiBody::new(first, output))));
            }
            Err(error) => return Err((Outcome::NoResponse, Some(error.to_string()))),
        }
    }
}

/// The one table from how a guest failed to the outcome.
fn outcome_of(failure: Failure) -> Problem {
    match failure {
        Failure::Timeout => (Outcome::Timeout, Some(failure.to_string())),
        Failure::CpuLimit => (Outcome::CpuLimit, Some(failure.to_string())),
        Failure::Memory(text) => (Outcome::MemoryLimit, Some(text)),
        Failure::HostMemory(text) => (Outcome::Overloaded, Some(text)),
        Failure::Trap(text) => (Outcome::Trapped, Some(text)),
        Failure::Exit(0) => {
            let error = "the guest exited without setting a response".to_owned();
            (Outcome::NoResponse, Some(error))
        }
        Failure::Exit(_) => (Outcome::Trapped, Some(failure.to_string())),
        Failure::PoolFull => (Outcome::Overloaded, Some(failure.to_string())),
        Failure::Host(text) => {
            tracing::error!(error = %text, "an invocation failed in the host");
            (Outcome::HostError, Some(text))
        }
    }
}

/// A body that ended badly: for the guest's failure if there was one.
fn response_failure(failure: Option<Failure>, error: String) -> Problem {
    failure.map_or((Outcome::NoResponse, Some(error)), outcome_of)
}

/// A response without a body of the guest's.
pub type HostResponse = Response<response::ResponseBody>;
