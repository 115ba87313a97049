//! An http guest with nothing of ours around it: no limits, no meter, no log, no
//! look at the time in its loops. What the host's own call costs beside it is the
//! price of these. Only where it may send requests is the host's to say.

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use whit::capabilities::http::HttpHooks;
use whit::engine::Track;
use whit::engine::pool::{Guests, PoolBounds, host_config};

use crate::{body, engine_error};

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: HttpHooks,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// A 0.2 guest, on an engine with the pools of the host's.
pub(crate) struct Bare(ProxyPre<State>);

impl Bare {
    pub(crate) fn new(component: &[u8], bounds: &PoolBounds) -> anyhow::Result<Self> {
        let load = || {
            let mut config = host_config(Track::Sequential, Guests::Ordinary, bounds)?;
            config.epoch_interruption(false).enable_compiler(true);
            let engine = Engine::new(&config)?;
            let mut linker = Linker::new(&engine);
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            let component = Component::from_binary(&engine, component)?;
            Ok(Self(ProxyPre::new(linker.instantiate_pre(&component)?)?))
        };
        load().map_err(engine_error)
    }

    /// A whole call, its answer read to the end.
    pub(crate) async fn call(&self, path: &str, hooks: HttpHooks) -> anyhow::Result<()> {
        let state = State {
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks,
        };
        let mut store = Store::new(self.0.engine(), state);
        let request = http::Request::get(format!("http://localhost{path}")).body(body())?;
        let (reply, replied) = oneshot::channel();
        let run = async {
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request)?;
            let answer = http.new_response_outparam(reply)?;
            let proxy = self.0.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, answer).await
        };
        let answer = async {
            let Ok(response) = replied.await.context("no response")? else { bail!("refused") };
            response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error:?}"))
        };
        let (ended, answer) = tokio::join!(run, answer);
        ended.map_err(engine_error)?;
        answer?;
        Ok(())
    }
}
