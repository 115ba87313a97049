//! The parts of a request alone: `cargo bench --bench micro [-- FILTER]`.
//!
//! - `instantiate`: a store with its limits armed, an instance in it, and the end of both;
//! - `instantiate where a request was`: the same in memory that a request has used;
//! - `call`: the same with a call of the guest, as [`run::run`] does it;
//! - `limits`: a call as it is, and one without limits, meter and log ([`bare`]), of a hello and of
//!   a guest that computes;
//! - `load`: a component that is not in memory, its artifact checked before;
//! - `route`: a lookup among 10,000 functions;
//! - `receipt`: what a request pays for its receipt.

mod bare;
#[path = "../guests/mod.rs"]
mod guests;

use std::future::poll_fn;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use http_body_util::{BodyExt as _, Empty};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use whit::capabilities::body::BodyError;
use whit::capabilities::clocks::Clocks;
use whit::capabilities::http::{Egress, HttpHooks};
use whit::capabilities::log::{GuestLog, LogSource};
use whit::capabilities::pipe::pipe;
use whit::capabilities::wasi::{self, LazyContext};
use whit::dev::languages::Language;
use whit::engine::artifact::Artifacts;
use whit::engine::compile::{CHILD_COMMAND, CompileBounds, CompileFolders, Compiler};
use whit::engine::cpu::CpuClock;
use whit::engine::limits::{Meter, StoreLimiter};
use whit::engine::loader::{Guest, Handler, Loader, Slot};
use whit::engine::pool::PoolBounds;
use whit::engine::run::{self, Call, Protocol, Reply, Terms};
use whit::engine::store::{new_command_store, new_store};
use whit::engine::{Engines, Track, compile_child};
use whit::model::function::GuestKind;
use whit::model::ids::{Digest, FunctionId, InvocationId, RevisionNumber};
use whit::model::invocation::{Outcome, Receipt};
use whit::model::limits::Limits;
use whit::router::{Own, RouteTable};
use whit::storage::files::Files;
use whit::telemetry::{Telemetry, TelemetryBounds};

use bare::Bare;

const FUNCTIONS: usize = 10_000;
/// Computes: see `guests/work.rs` beside this folder.
const WORKER: guests::Guest = guests::guest("work", Language::Rust, "host/benches/guests/work-02");
/// Pools that no benchmark exhausts.
const POOL: PoolBounds = PoolBounds {
    instances: 100,
    memory_bytes_max: 4 << 30,
    guest_memory_bytes_max: 4 << 30,
    fine_clocks: false,
};
/// Receipts recorded without a pause: fewer than may wait for their thread.
const RECEIPTS: u64 = 1 << 15;

fn main() -> anyhow::Result<ExitCode> {
    // The allocator is the host's: see `whit::cli::main`.
    let _ = mimalloc::MiMalloc.version();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Compiles start this program again, as they do the host.
    if let Some((CHILD_COMMAND, rest)) =
        arguments.split_first().map(|(first, rest)| (&**first, rest))
    {
        return Ok(compile_child::main(rest));
    }
    // `cargo test --all-targets` runs benchmarks too, without this argument.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    routes(&mut criterion)?;
    receipts(&mut criterion)?;
    // What comes now takes a while to prepare, whatever the filter says.
    if arguments.iter().any(|word| word.starts_with("route") || word.starts_with("receipt")) {
        return Ok(ExitCode::SUCCESS);
    }
    let bed = Bed::new()?;
    for guest in guests::HELLOS {
        match guest.component() {
            Ok(component) => bed.measure(&mut criterion, guest.name, &component)?,
            Err(error) => eprintln!("{} is left out: {error:#}", guest.name),
        }
    }
    for (what, guest, path) in [("hello", guests::HTTP_02, "/"), ("primes", WORKER, "/primes")] {
        bed.compare(&mut criterion, what, path, &guest.component()?)?;
    }
    criterion.final_summary();
    Ok(ExitCode::SUCCESS)
}

/// An id that tells functions apart.
fn function(number: usize) -> anyhow::Result<FunctionId> {
    let name = format!("function-{number}").parse()?;
    Ok(FunctionId { tenant: Default::default(), name })
}

fn routes(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut table = RouteTable::default();
    for number in 0..FUNCTIONS {
        let target = Arc::new(number);
        table.insert(&format!("GET /declared-{number}/{{id}}").parse()?, Arc::clone(&target));
        let revisions = vec![(RevisionNumber(1), Arc::clone(&target))];
        table.insert_own(&function(number)?, Own { active: Some(target), revisions });
    }
    let mut group = criterion.benchmark_group("route");
    for (what, prefix) in [("own", "function"), ("declared", "declared"), ("none", "nothing")] {
        let paths: Vec<String> =
            (0..FUNCTIONS).map(|number| format!("/{prefix}-{number}/7")).collect();
        let mut paths = paths.iter().cycle();
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                let path = paths.next().map(String::as_str).unwrap_or_default();
                black_box(table.find("localhost:8080", "GET", path))
            });
        });
    }
    group.finish();
    Ok(())
}

fn receipts(criterion: &mut Criterion) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let telemetry = Telemetry::open(folder.path(), TelemetryBounds::default())?;
    let receipt = Receipt {
        id: InvocationId::new(0, 0),
        function: Some(function(1)?),
        revision: Some(RevisionNumber(1)),
        outcome: Outcome::Ok,
        status: 200,
        cold: false,
        total_us: 100,
        queue_us: 1,
        load_us: 0,
        init_us: 10,
        run_us: 20,
        cpu_us: 25,
        memory_peak_bytes: 1 << 20,
        request_bytes: 0,
        response_bytes: 10,
        log_bytes: 0,
        error: None,
    };
    let mut group = criterion.benchmark_group("receipt");
    // What is timed is the request's part; the thread's follows untimed, in the
    // flush, and is the longer one.
    group.measurement_time(Duration::from_millis(500));
    group.bench_function("record", |bencher| {
        bencher.iter_custom(|count| {
            let mut elapsed = Duration::ZERO;
            let mut left = count;
            while left > 0 {
                let now = left.min(RECEIPTS);
                let started = Instant::now();
                for number in 0..now {
                    let id = InvocationId::new(left, u128::from(number));
                    telemetry.receipts.record(Receipt { id, ..receipt.clone() });
                }
                elapsed += started.elapsed();
                telemetry.receipts.flush();
                left -= now;
            }
            elapsed
        });
    });
    group.finish();
    if telemetry.receipts.lost() > 0 {
        bail!("receipts were lost: what was measured is not what they cost");
    }
    Ok(())
}

/// A host's engine without the host around it.
struct Bed {
    runtime: Runtime,
    engines: Engines,
    files: Arc<Files>,
    artifacts: Arc<Artifacts>,
    compiler: Arc<Compiler>,
    log: Arc<GuestLog>,
    folder: TempDir,
}

impl Bed {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let files = Arc::new(Files::open(folder.path())?);
        let artifacts = Arc::new(Artifacts::new(Arc::clone(&files))?);
        let engines = Engines::new(&POOL).map_err(engine_error)?;
        let folders = CompileFolders {
            cache: folder.path().join("compile-cache"),
            scratch: folder.path().join("tmp"),
        };
        for needed in [&folders.cache, &folders.scratch] {
            std::fs::create_dir_all(needed)?;
        }
        let bounds = CompileBounds {
            memory_bytes_max: 2 << 30,
            // Only to end what is too slow.
            time_max: Duration::from_secs(600),
            children_max: 2,
            threads: 1,
        };
        let compiler = Compiler::new(&engines, Arc::clone(&artifacts), folders, bounds);
        let telemetry = Telemetry::open(folder.path(), TelemetryBounds::default())?;
        let source = LogSource {
            function: function(1)?,
            revision: RevisionNumber(1),
            invocation: InvocationId::new(0, 0),
        };
        let log_bytes_max = Limits::default().log_bytes_max;
        let log = Arc::new(GuestLog::new(source, telemetry, Arc::default(), log_bytes_max));
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            engines,
            files,
            artifacts,
            compiler: Arc::new(compiler),
            log,
            folder,
        })
    }

    fn loader(&self, loaded_max: usize) -> anyhow::Result<Arc<Loader>> {
        let loader = Loader::new(
            self.engines.clone(),
            Arc::clone(&self.artifacts),
            Arc::clone(&self.compiler),
            Arc::clone(&self.files),
            loaded_max,
        );
        Ok(Arc::new(loader.map_err(engine_error)?))
    }

    fn compile(&self, component: &[u8]) -> anyhow::Result<(Digest, GuestKind)> {
        let file = self.folder.path().join("upload.wasm");
        std::fs::write(&file, component)?;
        let digest = Digest(*blake3::hash(component).as_bytes());
        let compiled = self.runtime.block_on(self.compiler.compile(Path::new(&file), digest))?;
        Ok((digest, compiled.kind))
    }

    /// Everything about one guest.
    fn measure(
        &self,
        criterion: &mut Criterion,
        name: &str,
        component: &[u8],
    ) -> anyhow::Result<()> {
        let loader = self.loader(1)?;
        let mut slots = Vec::new();
        for number in [1, 2] {
            let (digest, kind) = self.compile(&guests::distinct(component, number))?;
            let slot = loader.slot(digest, kind);
            self.runtime.block_on(loader.load(&slot))?;
            slots.push(slot);
        }
        let slot = slots.first().context("a slot")?;
        let guest = self.runtime.block_on(loader.load(slot))?;
        let mut group = criterion.benchmark_group(name);
        self.bench(&mut group, "instantiate", async || {
            self.instantiate(&guest).await.map_err(engine_error)
        })?;
        // The pages that a request has written to are made new from here on, each time.
        self.runtime.block_on(self.call(&guest, "/"))?;
        self.bench(&mut group, "instantiate where a request was", async || {
            self.instantiate(&guest).await.map_err(engine_error)
        })?;
        self.bench(&mut group, "call", async || self.call(&guest, "/").await)?;
        drop(guest);
        // The first one is in memory now.
        let mut turns = slots.iter().cycle().skip(1);
        self.bench(&mut group, "load", async || load(&loader, turns.next()).await)?;
        self.bench(&mut group, "load and instantiate", async || {
            let guest = load(&loader, turns.next()).await?;
            self.instantiate(&guest).await.map_err(engine_error)
        })?;
        group.finish();
        Ok(())
    }

    /// A 0.2 guest with all that is around it, and with nothing.
    fn compare(
        &self,
        criterion: &mut Criterion,
        what: &str,
        path: &str,
        component: &[u8],
    ) -> anyhow::Result<()> {
        let loader = self.loader(1)?;
        let (digest, kind) = self.compile(component)?;
        let guest = self.runtime.block_on(loader.load(&loader.slot(digest, kind)))?;
        let bare = Bare::new(component, &POOL)?;
        let mut group = criterion.benchmark_group(format!("limits, {what}"));
        self.bench(&mut group, "as it is", async || self.call(&guest, path).await)?;
        self.bench(&mut group, "without", async || {
            let hooks =
                HttpHooks::new(Egress::nothing(), Arc::clone(&self.log), Track::Sequential, 0);
            bare.call(path, hooks).await
        })?;
        group.finish();
        Ok(())
    }

    /// Times runs one after the other. It fails if one of them did.
    fn bench<T>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        mut run: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<()> {
        let mut failed = None;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                self.runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..count {
                        if let Err(error) = run().await {
                            failed = Some(error);
                        }
                    }
                    started.elapsed()
                })
            });
        });
        failed.map_or(Ok(()), |error| Err(error.context(format!("benchmark {name}"))))
    }

    /// As [`run::run`] does it, up to the call.
    async fn instantiate(&self, guest: &Guest) -> wasmtime::Result<()> {
        let limits = Limits::default();
        let meter: Arc<Meter> = Arc::default();
        let limiter = StoreLimiter::new(
            Arc::clone(&meter),
            limits.memory_bytes_max,
            Arc::clone(self.engines.memory()),
        );
        let clocks = Clocks { fine: false };
        let cpu = Arc::new(CpuClock::new(meter, limits.cpu_ms));
        cpu.start_slice();
        let store = |track, engine, context, limiter, cpu| {
            let wasi = LazyContext {
                environment: Arc::new([]),
                log: Arc::clone(&self.log),
                clocks,
                context,
            };
            let hooks = HttpHooks::new(Egress::nothing(), Arc::clone(&self.log), track, 0);
            new_store(engine, wasi, hooks, limiter, cpu)
        };
        let cgi = || {
            let (stdout, _) = pipe();
            wasi::cgi_builder(&[], &[], body(), stdout, &self.log, clocks)
        };
        match guest {
            Guest::Http02(Handler { pre, .. }) => {
                let mut store = store(Track::Sequential, pre.engine(), None, limiter, cpu);
                pre.instantiate_async(&mut store).await?;
            }
            Guest::Http03(Handler { pre, .. }) => {
                let mut store = store(Track::Concurrent, pre.engine(), None, limiter, cpu);
                pre.instantiate_async(&mut store).await?;
            }
            Guest::Cgi01(pre) => {
                let engine = pre.module().engine();
                let mut store = new_command_store(engine, cgi().build_p1(), limiter, cpu);
                pre.instantiate_async(&mut store).await?;
            }
            Guest::Cgi02(pre) => {
                let mut store =
                    store(Track::Sequential, pre.engine(), Some(cgi().build()), limiter, cpu);
                pre.instantiate_async(&mut store).await?;
            }
            Guest::Cgi03(pre) => {
                let mut store =
                    store(Track::Concurrent, pre.engine(), Some(cgi().build()), limiter, cpu);
                pre.instantiate_async(&mut store).await?;
            }
        }
        Ok(())
    }

    /// A whole call, its answer read to the end.
    async fn call(&self, guest: &Arc<Guest>, path: &str) -> anyhow::Result<()> {
        let limits = Limits::default();
        let meter: Arc<Meter> = Arc::default();
        let cpu = Arc::new(CpuClock::new(Arc::clone(&meter), limits.cpu_ms));
        cpu.start_slice();
        let terms = Terms {
            environment: Arc::new([]),
            limits,
            memory: Arc::clone(self.engines.memory()),
            clocks: self.engines.clocks(),
            meter,
            cpu,
            log: Arc::clone(&self.log),
            egress: Egress::nothing(),
            secure: false,
            clears_slowly: self.engines.clears_slowly(guest),
            hops: 0,
        };
        let run = |protocol| run::run(Arc::clone(guest), Call { protocol, terms });
        if let Guest::Http02(_) | Guest::Http03(_) = **guest {
            let (reply, replied) = oneshot::channel();
            let request = http::Request::get(format!("http://localhost{path}")).body(body())?;
            let answer = async {
                let Reply::Response(response) = replied.await? else { bail!("no response") };
                response.into_body().collect().await.map_err(anyhow::Error::msg)
            };
            let (ended, answer) = tokio::join!(run(Protocol::Http { request, reply }), answer);
            ended.result?;
            answer?;
            if let Some(remains) = ended.remains {
                remains.await;
            }
        } else {
            let (stdout, mut output) = pipe();
            let variables = [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/")];
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let protocol = Protocol::Cgi { variables: variables.into(), stdin: body(), stdout };
            let answer =
                async { while poll_fn(|context| output.poll_read(context)).await.is_some() {} };
            let (ended, ()) = tokio::join!(run(protocol), answer);
            ended.result?;
        }
        Ok(())
    }
}

/// wasmtime's error is none of the standard library's.
fn engine_error(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::msg(format!("{error:#}"))
}

/// A request's body, empty.
fn body() -> impl http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static {
    Empty::new().map_err(|never| match never {})
}

async fn load(loader: &Arc<Loader>, slot: Option<&Arc<Slot>>) -> anyhow::Result<Arc<Guest>> {
    let slot = slot.context("a slot")?;
    if slot.get().is_some() {
        bail!("it is in memory");
    }
    Ok(loader.load(slot).await?)
}
