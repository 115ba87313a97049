//! Steps 4 and 5 as wasmtime sees them: a new store, an instance in it, and the
//! call, for each kind of guest.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Uri;
use http::uri::Authority;
use http_body::Body;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, Instance, Resource};
use wasmtime::{Engine, InstancePre, PoolConcurrencyLimitError, Store};
use wasmtime_wasi::p2::bindings::CommandPre as CommandPre02;
use wasmtime_wasi::p3::bindings::CommandPre as CommandPre03;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as ErrorCode03;
use wasmtime_wasi_http::p3::{Request as Request03, Response as Response03};

use super::Track;
use super::cpu::CpuClock;
use super::limits::{HostMemory, Meter, StoreLimiter};
use super::loader::{Guest, Handler};
use super::store::{
    CommandState, CpuLimitReached, GuestState, Limited as _, new_command_store, new_store,
};
use crate::capabilities::body::{BodyError, GuestBody};
use crate::capabilities::clocks::Clocks;
use crate::capabilities::http::{Egress, HttpHooks};
use crate::capabilities::log::GuestLog;
use crate::capabilities::pipe::PipeWriter;
use crate::capabilities::wasi::{self, LazyContext};
use crate::model::limits::Limits;

/// Why a guest's run ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It used up its wall time.
    #[error("the wall time limit is used up")]
    Timeout,
    /// It used up its CPU time.
    #[error("the CPU time limit is used up")]
    CpuLimit,
    /// It failed after it was refused memory.
    #[error("out of memory: {0}")]
    Memory(String),
    /// It failed after it was refused memory that all guests have together.
    #[error("the host is out of memory for guests: {0}")]
    HostMemory(String),
    /// It trapped. The text has the guest's backtrace.
    #[error("{0}")]
    Trap(String),
    /// It exited with this status.
    #[error("the guest exited with status {0}")]
    Exit(i32),
    /// The pool has no free slot, although a permit was held.
    #[error("no instance is free")]
    PoolFull,
    /// Something of ours failed.
    #[error("{0}")]
    Host(String),
}

/// What an http guest answered.
pub enum Reply {
    /// A response; its body follows as the guest goes on.
    Response(http::Response<GuestBody>),
    /// An error code of `wasi:http` instead of a response.
    Refused(String),
}

/// How the guest is talked to.
pub enum Protocol<B> {
    /// `wasi:http`.
    Http {
        /// The request as the guest sees it.
        request: http::Request<B>,
        /// Where the head of the answer goes.
        reply: oneshot::Sender<Reply>,
    },
    /// CGI over standard streams.
    Cgi {
        /// The request's variables.
        variables: Vec<(String, String)>,
        /// The request's body.
        stdin: B,
        /// Where the response's bytes go.
        stdout: PipeWriter,
    },
}

/// One call of a guest.
pub struct Call<B> {
    /// How it is talked to, and with what.
    pub protocol: Protocol<B>,
    /// Everything else.
    pub terms: Terms,
}

/// What a guest may use while it is called, and what counts it.
pub struct Terms {
    /// The function's own environment.
    pub environment: Arc<[(String, String)]>,
    /// What it may use.
    pub limits: Limits,
    /// What it shares of the machine's memory with all others.
    pub memory: Arc<HostMemory>,
    /// Which clocks it sees.
    pub clocks: Clocks,
    /// What it uses.
    pub meter: Arc<Meter>,
    /// Its CPU clock, which the caller runs around each poll.
    pub cpu: Arc<CpuClock>,
    /// Where its output goes.
    pub log: Arc<GuestLog>,
    /// Where its outgoing requests may go.
    pub egress: Arc<Egress>,
    /// Whether the request came over TLS.
    pub secure: bool,
    /// Whether to give the guest back at its end instead of clearing it.
    pub clears_slowly: bool,
    /// How many functions have called each other to get here.
    pub hops: u8,
}

impl Terms {
    /// A store on these terms, with all limits armed. An http guest has no context
    /// until it needs one.
    fn store(self, track: Track, engine: &Engine, context: Option<WasiCtx>) -> Store<GuestState> {
        let limiter = self.limiter();
        let Self { environment, clocks, cpu, log, egress, hops, .. } = self;
        let hooks = HttpHooks::new(egress, Arc::clone(&log), track, hops);
        new_store(engine, LazyContext { environment, log, clocks, context }, hooks, limiter, cpu)
    }

    fn limiter(&self) -> StoreLimiter {
        let (meter, memory) = (Arc::clone(&self.meter), Arc::clone(&self.memory));
        StoreLimiter::new(meter, self.limits.memory_bytes_max, memory)
    }
}

/// How a guest's run ended.
pub struct Ended {
    /// See [`Failure`]. Timeouts are the caller's: a guest that waits in a host call
    /// is only ended by dropping its run.
    pub result: Result<(), Failure>,
    /// What is left of it, if its memory is cleared slowly.
    pub remains: Option<Remains>,
}

/// A guest that has ended. Its slot in the pool is made new by this, or when it is
/// dropped.
pub type Remains = Pin<Box<dyn Future<Output = ()> + Send>>;

impl From<Result<(), Failure>> for Ended {
    fn from(result: Result<(), Failure>) -> Self {
        Self { result, remains: None }
    }
}

/// A guest that runs. Dropping it ends the guest at once and frees all that it held.
pub type Run = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Runs a guest to its end, from the first poll on.
///
/// Each kind of guest has a future of its own: one for all of them would be larger,
/// and is moved as a whole.
pub fn run<B>(guest: Arc<Guest>, call: Call<B>) -> Run
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let Call { protocol, terms } = call;
    match (&*guest, protocol) {
        (Guest::Http02(_), Protocol::Http { request, reply }) => {
            Box::pin(http_02(guest, request, reply, terms))
        }
        (Guest::Http03(_), Protocol::Http { request, reply }) => {
            Box::pin(http_03(guest, request, reply, terms))
        }
        (_, Protocol::Http { .. }) => Box::pin(ready(mismatch().into())),
        (_, Protocol::Cgi { variables, stdin, stdout }) => {
            let Terms { environment, log, clocks, .. } = &terms;
            let wasi = wasi::cgi_builder(environment, &variables, stdin, stdout, log, *clocks);
            Box::pin(cgi(guest, wasi, terms))
        }
    }
}

/// Not reached: a revision's kind decides both how it is loaded and how it is
/// talked to.
fn mismatch() -> Result<(), Failure> {
    Err(Failure::Host("the guest is not what its record says it is".into()))
}

async fn http_02<B>(
    guest: Arc<Guest>,
    request: http::Request<B>,
    reply: oneshot::Sender<Reply>,
    terms: Terms,
) -> Ended
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let Guest::Http02(handler) = &*guest else { return mismatch().into() };
    let (meter, clears_slowly) = (Arc::clone(&terms.meter), terms.clears_slowly);
    let scheme = if terms.secure { Scheme::Https } else { Scheme::Http };
    let mut store = terms.store(Track::Sequential, handler.pre.engine(), None);
    let ended = match exchange_02(&mut store, request, scheme, reply) {
        Ok((request, answer)) => call_http_02(&mut store, handler, request, answer).await,
        Err(error) => Err(error),
    };
    let (result, instance) = match ended {
        Ok(instance) => (Ok(()), Some(instance)),
        Err(error) => (Err(failure(&error, &meter)), None),
    };
    let remains = clears_slowly.then(|| clear(Arc::clone(&guest), store, instance));
    Ended { result, remains }
}

/// Makes a guest's memory new, when it is polled.
fn clear(guest: Arc<Guest>, mut store: Store<GuestState>, instance: Option<Instance>) -> Remains {
    Box::pin(async move {
        if let (Guest::Http02(handler), Some(instance)) = (&*guest, instance)
            && let Some(resident) = &handler.resident
            && let Err(error) = resident.keep(&mut store, instance).await
        {
            tracing::debug!(%error, "a guest's memory is not kept");
        }
        drop(store);
    })
}

/// The request and the place for the answer, as the guest gets them.
fn exchange_02<B>(
    store: &mut Store<GuestState>,
    request: http::Request<B>,
    scheme: Scheme,
    reply: oneshot::Sender<Reply>,
) -> wasmtime::Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request)?;
    let answer = http.new_response_outparam_from_callback(move |answer| {
        // The receiver is gone if the client is.
        let _ = reply.send(match answer {
            Ok(response) => Reply::Response(response.map(GuestBody::new)),
            Err(code) => Reply::Refused(format!("{code:?}")),
        });
    })?;
    Ok((request, answer))
}

async fn call_http_02(
    store: &mut Store<GuestState>,
    handler: &Handler,
    request: Resource<HostIncomingRequest>,
    answer: Resource<HostResponseOutparam>,
) -> wasmtime::Result<Instance> {
    let instance = handler.pre.instantiate_async(&mut *store).await?;
    store.data().cpu().instantiated();
    let handle = instance.get_typed_func::<(_, _), ()>(&mut *store, handler.handle)?;
    handle.call_async(store, (request, answer)).await?;
    Ok(instance)
}

async fn http_03<B>(
    guest: Arc<Guest>,
    request: http::Request<B>,
    reply: oneshot::Sender<Reply>,
    terms: Terms,
) -> Ended
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let Guest::Http03(handler) = &*guest else { return mismatch().into() };
    let (meter, request) = (Arc::clone(&terms.meter), absolute(request, terms.secure));
    let mut store = terms.store(Track::Concurrent, handler.pre.engine(), None);
    let (request, sent) = Request03::from_http(store.data_mut().http().hooks, request);
    let ended = call_http_03(store, handler, request, sent, reply).await;
    ended.map_err(|error| failure(&error, &meter)).into()
}

async fn cgi(guest: Arc<Guest>, mut wasi: WasiCtxBuilder, terms: Terms) -> Ended {
    let meter = Arc::clone(&terms.meter);
    let ended = match &*guest {
        Guest::Cgi01(pre) => {
            let (engine, cpu) = (pre.module().engine(), Arc::clone(&terms.cpu));
            let store = new_command_store(engine, wasi.build_p1(), terms.limiter(), cpu);
            call_cgi_01(store, pre).await
        }
        Guest::Cgi02(pre) => {
            let store = terms.store(Track::Sequential, pre.engine(), Some(wasi.build()));
            call_cgi_02(store, pre).await
        }
        Guest::Cgi03(pre) => {
            let store = terms.store(Track::Concurrent, pre.engine(), Some(wasi.build()));
            call_cgi_03(store, pre).await
        }
        Guest::Http02(_) | Guest::Http03(_) => return mismatch().into(),
    };
    ended.map_err(|error| failure(&error, &meter)).into()
}

/// As WASI 0.3 has it, where a request's scheme and host are in its URL alone.
fn absolute<B>(mut request: http::Request<B>, secure: bool) -> http::Request<B> {
    let host = request.headers().get(http::header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    // Both or none: a URL with one of them is none.
    if authority.is_some() {
        parts.scheme =
            Some(if secure { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
        parts.authority = authority;
    }
    // Not reached: a path that was one stays one.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// What a 0.3 handler returns.
type Returned03 = (Result<Resource<Response03>, ErrorCode03>,);

async fn call_http_03(
    mut store: Store<GuestState>,
    handler: &Handler,
    request: Request03,
    sent: impl Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send + 'static,
    reply: oneshot::Sender<Reply>,
) -> wasmtime::Result<()> {
    let instance = handler.pre.instantiate_async(&mut store).await?;
    store.data().cpu().instantiated();
    let handle = instance.get_typed_func::<_, Returned03>(&mut store, handler.handle)?;
    let request = store.data_mut().http().table.push(request)?;
    let call = async |accessor: &Accessor<GuestState>| -> wasmtime::Result<()> {
        let response = match handle.call_concurrent(accessor, (request,)).await? {
            (Ok(response),) => response,
            (Err(code),) => {
                let _ = reply.send(Reply::Refused(format!("{code:?}")));
                return Ok(());
            }
        };
        let response = accessor.with(|mut store| {
            let response = store.data_mut().http().table.delete(response)?;
            response.into_http(store, sent)
        })?;
        // Ready once the body was read to its end, or dropped.
        let (consumed, body_consumed) = oneshot::channel();
        let _ = reply
            .send(Reply::Response(response.map(|body| GuestBody::with_signal(body, consumed))));
        // The body flows through this store: it must live until both the body
        // has been taken and the guest's own tasks are done.
        let _ = body_consumed.await;
        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
        Ok(())
    };
    store.run_concurrent(call).await?
}

async fn call_cgi_01(
    mut store: Store<CommandState>,
    pre: &InstancePre<CommandState>,
) -> wasmtime::Result<()> {
    let instance = pre.instantiate_async(&mut store).await?;
    store.data().cpu().instantiated();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    match start.call_async(&mut store, ()).await {
        // `exit(0)` is how many programs end well.
        Err(error) if matches!(error.downcast_ref(), Some(I32Exit(0))) => Ok(()),
        ended => ended,
    }
}

async fn call_cgi_02(
    mut store: Store<GuestState>,
    pre: &CommandPre02<GuestState>,
) -> wasmtime::Result<()> {
    let command = pre.instantiate_async(&mut store).await?;
    store.data().cpu().instantiated();
    exit(command.wasi_cli_run().call_run(&mut store).await?)
}

async fn call_cgi_03(
    mut store: Store<GuestState>,
    pre: &CommandPre03<GuestState>,
) -> wasmtime::Result<()> {
    let command = pre.instantiate_async(&mut store).await?;
    store.data().cpu().instantiated();
    let run = async |accessor: &Accessor<GuestState>| {
        let ended = command.wasi_cli_run().call_run(accessor).await;
        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
        ended
    };
    exit(store.run_concurrent(run).await??)
}

/// `wasi:cli/run` says only whether it succeeded.
fn exit(ended: Result<(), ()>) -> wasmtime::Result<()> {
    ended.map_err(|()| I32Exit(1).into())
}

/// Sorts out what wasmtime reports as one error.
fn failure(error: &wasmtime::Error, meter: &Meter) -> Failure {
    if error.downcast_ref::<CpuLimitReached>().is_some() {
        return Failure::CpuLimit;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Failure::PoolFull;
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Failure::Exit(*status);
    }
    // The debug form has the causes and the guest's backtrace.
    let text = format!("{error:?}");
    if meter.host_memory_refused.load(Ordering::Relaxed) {
        return Failure::HostMemory(text);
    }
    if meter.memory_refused.load(Ordering::Relaxed) {
        return Failure::Memory(text);
    }
    Failure::Trap(text)
}
