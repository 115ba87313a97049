//! The composition root: everything is made here, in order, from a checked
//! [`Config`], and taken down again in [`crate::shutdown`]'s time.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState, AdminToken};
use crate::capabilities::http::{HopKey, HostEgress, OwnListeners};
use crate::config::Config;
use crate::engine::Engines;
use crate::engine::artifact::Artifacts;
use crate::engine::compile::{CompileFolders, Compiler};
use crate::engine::loader::Loader;
use crate::ingress::connection::{ConnectionOptions, Patience};
use crate::ingress::tls::{Tls, TlsError};
use crate::ingress::{DataPlane, accept};
use crate::invoke::Invoker;
use crate::registry::Registry;
use crate::router::Router;
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
    /// The engine can not be made.
    #[error("the engine can not be made: {0}")]
    Engine(String),
    /// Anything else.
    #[error("the host can not start")]
    Io(#[from] io::Error),
}

/// Longest queue of connections that the kernel completes ahead of us.
const BACKLOG: u32 = 4096;
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
    closing.cancel();
    // Fails only if the accept loop is gone, which is what it is told to be.
    let _ = stopping.send(true);
    shutdown::drain(config.drain_time_max, data, admin, &tasks).await;
    let _ = std::fs::remove_file(config.data_dir.join(HOST_FILE));
    host.storage.close();
    host.telemetry.close();
    tracing::info!("stopped");
    Ok(())
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
        let invoker = Invoker::new(engines, loader, Arc::clone(&telemetry), config.pool.instances);
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
