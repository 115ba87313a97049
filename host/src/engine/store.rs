//! The store of one invocation: everything a guest can reach, with every limit
//! armed before its first instruction.

use std::sync::Arc;

use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{ResourceTable, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

use super::cpu::CpuClock;
use super::limits::StoreLimiter;
use crate::capabilities::http::HttpHooks;
use crate::capabilities::wasi::LazyContext;

/// Host memory that one host call may make for a guest, in bytes.
const HOSTCALL_BYTES_MAX: usize = 4 << 20;
/// Component-model handles of one store.
const HANDLES_MAX: usize = 4096;
/// Host resources of one store: streams, fields, pollables.
const RESOURCES_MAX: usize = 1024;
/// Size of one set of header fields, in bytes. With [`RESOURCES_MAX`] sets the
/// worst case is 32 MiB of host memory.
const FIELDS_BYTES_MAX: usize = 32 << 10;

/// The guest used up its CPU time.
#[derive(Debug, thiserror::Error)]
#[error("the CPU limit is used up")]
pub struct CpuLimitReached;

/// What the store of one invocation holds.
pub struct GuestState {
    wasi: LazyContext,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: HttpHooks,
    limiter: StoreLimiter,
    cpu: Arc<CpuClock>,
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get(), table: &mut self.table }
    }
}

impl IoView for GuestState {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// What the store of a core command holds.
pub struct CommandState {
    wasi: WasiP1Ctx,
    limiter: StoreLimiter,
    cpu: Arc<CpuClock>,
}

impl CommandState {
    /// The command's view of the world.
    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

/// What every store has, so that every store is armed in the same way.
pub(super) trait Limited: Send + 'static {
    fn limiter(&mut self) -> &mut StoreLimiter;
    fn cpu(&self) -> &CpuClock;
}

impl Limited for GuestState {
    fn limiter(&mut self) -> &mut StoreLimiter {
        &mut self.limiter
    }
    fn cpu(&self) -> &CpuClock {
        &self.cpu
    }
}

impl Limited for CommandState {
    fn limiter(&mut self) -> &mut StoreLimiter {
        &mut self.limiter
    }
    fn cpu(&self) -> &CpuClock {
        &self.cpu
    }
}

/// Makes the store of a component, with its limits armed.
#[must_use]
pub fn new_store(
    engine: &Engine,
    wasi: LazyContext,
    hooks: HttpHooks,
    limiter: StoreLimiter,
    cpu: Arc<CpuClock>,
) -> Store<GuestState> {
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(FIELDS_BYTES_MAX);
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    armed(engine, GuestState { wasi, http, table, hooks, limiter, cpu })
}

/// Makes the store of a core command, with its limits armed.
#[must_use]
pub fn new_command_store(
    engine: &Engine,
    wasi: WasiP1Ctx,
    limiter: StoreLimiter,
    cpu: Arc<CpuClock>,
) -> Store<CommandState> {
    armed(engine, CommandState { wasi, limiter, cpu })
}

fn armed<T: Limited>(engine: &Engine, state: T) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.limiter());
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(HANDLES_MAX);
    if let Some(tasks) = store.concurrent_resource_table() {
        tasks.set_max_capacity(RESOURCES_MAX);
    }
    // Without a deadline of its own a guest would trap at its first instruction.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        if context.data().cpu().is_over() {
            return Err(CpuLimitReached.into());
        }
        // tokio's own yield: the runtime-neutral one can be polled again at
        // once and starve the rest of the thread's tasks.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}
