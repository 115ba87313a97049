//! The composition root: everything is made here, in order, from a checked
//! [`Config`], and taken down again in [`crate::shutdown`]'s time.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState, AdminToken};
use crate::capabilities::http::{HopKey, HostEgress, OwnListeners};
use crate::config::{self, Config};
use crate::engine::Engines;
use crate::engine::artifact::Artifacts;
use crate::engine::compile::{CompileFolders, Compiler};
use crate::engine::loader::Loader;
use crate::ingress::connection::{ConnectionOptions, Patience};
use crate::ingress::tls::{Tls, TlsError};
use crate::ingress::{DataPlane, accept};
use crate::invoke::Invoker;
use crate::invoke::tasks::Tasks;
use crate::registry::Registry;
use crate::router::Router;
use crate::sandbox::{self, InForce, Mode, Reach, SandboxError};
use crate::shutdown;
use crate::storage::StorageError;
use crate::storage::files::Files;
use crate::storage::local::LocalStorage;
use crate::telemetry::metrics::Gauges;
use crate::telemetry::{Telemetry, TelemetryBounds};

/// Where a running host answers; also `DATA_DIR/host.json`, by which the
/// command line finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// URL of the data plane.
    pub data: String,
    /// URL of the admin API.
    pub admin: String,
    /// The host's process.
    #[serde(default)]
    pub pid: u32,
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can not be bound.
    #[error("{what} can not listen on {address}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data folder can not be used.
    #[error("the data folder {folder} can not be used")]
    Data {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no TLS.
    #[error("TLS can not be set up")]
    Tls(#[from] TlsError),
    /// The process can not give up its rights.
    #[error("the sandbox can not be set up (sandbox = \"off\" does without)")]
    Sandbox(#[from] SandboxError),
    /// The kernel has less than `sandbox = "on"` demands.
    #[error("the kernel can confine {in_force} only, and sandbox is \"on\"; \"auto\" takes that")]
    NotWhole {
        /// What it can.
        in_force: InForce,
    },
    /// The engine can not be made.
    #[error("the engine can not be made: {0}")]
    Engine(String),
    /// Anything else.
    #[error("the host can not start")]
    Io(#[from] io::Error),
}

/// Most that the kernel takes of a response ahead of what it sends, in bytes. By
/// default it takes megabytes, at once, of who asks for much and takes nothing:
/// beside a hundred of those others waited for 40 ms.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Longest queue of connections that the kernel completes ahead of us.
const BACKLOG: u32 = 4096;
/// Read by the C library to start programs and to resolve names, by the
/// allocator and the runtime to learn of processors, by the engine (its own
/// pages), and by TLS to clients of guests (authorities).
const MACHINE_FILES: &[&str] = &[
    "/proc/self",
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/urandom",
    "/etc/ld.so.cache",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
/// The file with [`Addresses`].
pub const HOST_FILE: &str = "host.json";

/// Runs a host until `stop` is ready, then drains it. `ready` is told the real
/// addresses once requests are answered.
///
/// # Errors
/// See [`StartError`]; nothing is left running then.
pub async fn run(
    config: Config,
    ready: impl FnOnce(&Addresses),
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
    let data_listener = listen("the data plane", config.listen)?;
    let admin_listener = listen("the admin API", config.admin_listen)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let addresses = Addresses {
        data: format!("{scheme}://{}", data_listener.local_addr()?),
        admin: format!("http://{}", admin_listener.local_addr()?),
        pid: std::process::id(),
    };
    let own = OwnListeners {
        data: vec![data_listener.local_addr()?],
        admin: vec![admin_listener.local_addr()?],
    };
    let hops = Arc::new(HopKey::random().map_err(io::Error::from)?);
    let egress = HostEgress::new(config.private_egress, own, Arc::clone(&hops));
    let host = Host::open(&config, egress, hops).await?;
    write_host_file(&config.data_dir, &addresses)?;

    let is_ready = Arc::new(AtomicBool::new(true));
    let closing = CancellationToken::new();
    let admin_state = AdminState {
        registry: Arc::clone(&host.registry),
        telemetry: Arc::clone(&host.telemetry),
        token: Arc::new(AdminToken::new(&host.token)),
        ready: Arc::clone(&is_ready),
        data_address: addresses.data.clone(),
        component_bytes_max: config.component_bytes_max,
        closing: closing.clone(),
    };
    let (stopping, stopped) = watch::channel(false);
    let tasks = host.plane.invoker.tasks().clone();
    let options = connection_options(&config, tls);
    let data = tokio::spawn(accept::serve(data_listener, host.plane, options, stopped));
    let admin_router = admin::router(admin_state);
    let admin_closed = closing.clone().cancelled_owned();
    let admin = tokio::spawn(
        axum::serve(admin_listener, admin_router)
            .with_graceful_shutdown(admin_closed)
            .into_future(),
    );
    tracing::info!(data = %addresses.data, admin = %addresses.admin, "ready");
    ready(&addresses);

    stop.await;
    tracing::info!("stopping: requests in flight may finish");
    is_ready.store(false, Ordering::Relaxed);
    // Fails only if the accept loop is gone, which is what it is told to be.
    let _ = stopping.send(true);
    closing.cancel();
    shutdown::drain(config.drain_time_max, data, admin, &tasks).await;
    let _ = std::fs::remove_file(config.data_dir.join(HOST_FILE));
    host.storage.close();
    host.telemetry.close();
    tracing::info!("stopped");
    Ok(())
}

/// Gives up the rights that a host of this configuration does not need, for the
/// calling thread and all that come after it. The data folder is made first: what
/// is not there can not be allowed. Keep what is returned until the end.
///
/// # Errors
/// See [`StartError`].
pub fn confine(config: &Config) -> Result<Option<InForce>, StartError> {
    if config.sandbox == Mode::Off {
        tracing::info!("the sandbox is off");
        return Ok(None);
    }
    if let Some(files) = config.tls.clone() {
        // A host that can not start makes no folders.
        Tls::open(files)?;
    }
    Files::open(&config.data_dir).map_err(|error| StartError::Data {
        folder: config.data_dir.display().to_string(),
        source: Box::new(error),
    })?;
    let in_force = sandbox::confine_host(&reach(config)?)?;
    if config.sandbox == Mode::On && !in_force.is_whole() {
        return Err(StartError::NotWhole { in_force });
    }
    tracing::info!(confined = %in_force, "the sandbox is on");
    Ok(Some(in_force))
}

/// What [`confine`] would put in force here, in a line.
///
/// # Errors
/// As [`confine`].
pub fn explain_sandbox(config: &Config) -> Result<String, StartError> {
    if config.sandbox == Mode::Off {
        return Ok("the sandbox is off".to_owned());
    }
    let in_force = sandbox::probe(&reach(config)?)?;
    if config.sandbox == Mode::On && !in_force.is_whole() {
        return Err(StartError::NotWhole { in_force });
    }
    Ok(format!("the sandbox confines {in_force}"))
}

/// What a host needs of the machine it runs on.
fn reach(config: &Config) -> io::Result<Reach> {
    let (execute, libraries) = sandbox::own_program()?;
    let mut read: Vec<PathBuf> = MACHINE_FILES.iter().map(PathBuf::from).collect();
    read.extend(libraries);
    read.extend(config::trusted_certificates());
    if let Some(tls) = &config.tls {
        for file in [&tls.certificate, &tls.key] {
            // Renewed ones are new files; often the name is a link to another
            // folder, where they are.
            // One that is not there is named when TLS is set up.
            let real = file.canonicalize().unwrap_or_else(|_| file.clone());
            read.extend([file.as_path(), &real].iter().filter_map(|file| folder_of(file)));
        }
    }
    let write = vec![config.data_dir.clone(), PathBuf::from("/dev/null")];
    let listen = [config.listen.port(), config.admin_listen.port()].into();
    Ok(Reach { write, read, execute, listen })
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}

/// What a host is made of.
struct Host {
    token: String,
    storage: Arc<LocalStorage>,
    telemetry: Arc<Telemetry>,
    registry: Arc<Registry>,
    plane: Arc<DataPlane>,
}

impl Host {
    async fn open(
        config: &Config,
        egress: Arc<HostEgress>,
        hops: Arc<HopKey>,
    ) -> Result<Self, StartError> {
        let data = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Data {
            folder: config.data_dir.display().to_string(),
            source,
        };
        let storage_failed = |error: StorageError| data(Box::new(error));
        let engine_failed = |error| StartError::Engine(format!("{error:#}"));

        let files = Arc::new(Files::open(&config.data_dir).map_err(storage_failed)?);
        files.lock().map_err(|error| data(Box::new(error)))?;
        let token = files.admin_token().map_err(storage_failed)?;
        let storage = LocalStorage::open(&config.data_dir.join("whit.db"));
        let storage = Arc::new(storage.map_err(storage_failed)?);
        let mut bounds = TelemetryBounds::default();
        bounds.receipts.total_bytes_max = config.receipts_bytes_max;
        let telemetry = Telemetry::open(&config.data_dir, bounds);
        let telemetry = telemetry.map_err(|error| data(Box::new(error)))?;

        let engines = Engines::new(&config.pool).map_err(engine_failed)?;
        let artifacts = Arc::new(Artifacts::new(Arc::clone(&files)).map_err(storage_failed)?);
        let folders = CompileFolders {
            cache: config.data_dir.join("compile-cache"),
            scratch: config.data_dir.join("tmp"),
        };
        std::fs::create_dir_all(&folders.cache)?;
        let compiler = Compiler::new(&engines, Arc::clone(&artifacts), folders, config.compile);
        let compiler = Arc::new(compiler);
        let loader = Arc::new(
            Loader::new(
                engines.clone(),
                artifacts,
                Arc::clone(&compiler),
                Arc::clone(&files),
                config.loaded_max,
            )
            .map_err(engine_failed)?,
        );
        let router = Arc::new(Router::default());
        let registry = Registry::open(
            Arc::clone(&storage) as Arc<dyn crate::storage::Storage>,
            files,
            compiler,
            Arc::clone(&loader),
            egress,
            Arc::clone(&router),
        );
        let registry = Arc::new(registry.await.map_err(storage_failed)?);
        let functions = registry.functions().keys().cloned().collect();
        telemetry.logs.retain(&functions).map_err(|error| data(Box::new(error)))?;
        let gauge_engines = engines.clone();
        let (instances, tasks) = (config.pool.instances, Tasks::on_each_processor()?);
        let invoker = Invoker::new(engines, loader, Arc::clone(&telemetry), instances, tasks);
        let plane = Arc::new(DataPlane {
            router,
            invoker,
            telemetry: Arc::clone(&telemetry),
            hops,
            body_stall_max: config.body_stall_max,
        });
        let (gauge_plane, gauge_registry) = (Arc::downgrade(&plane), Arc::downgrade(&registry));
        telemetry.metrics.read_gauges_with(move || Gauges {
            invocations_running: gauge_plane
                .upgrade()
                .map_or(0, |plane| plane.invoker.running() as u64),
            functions: gauge_registry
                .upgrade()
                .map_or(0, |registry| registry.functions().len() as u64),
            pool_slots_in_use: gauge_engines.pool_slots_in_use(),
            guest_memory_bytes: gauge_engines.memory().used_bytes(),
        });
        Ok(Self { token, storage, telemetry, registry, plane })
    }
}

fn connection_options(config: &Config, tls: Option<Arc<Tls>>) -> ConnectionOptions {
    let patience = Patience {
        head: config.head_time_max,
        idle: config.idle_time_max,
        response: config.response_stall_max,
    };
    let connections_max = accept::connections_possible(config.connections_max);
    ConnectionOptions { connections_max, patience, tls }
}

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| StartError::Listen { what, address, source })
}

fn write_host_file(data_dir: &Path, addresses: &Addresses) -> io::Result<()> {
    // By rename: a reader never sees half of it.
    let partial = data_dir.join("host.json.partial");
    std::fs::write(&partial, serde_json::to_vec(addresses)?)?;
    std::fs::rename(partial, data_dir.join(HOST_FILE))
}
