//! Write an HTTP function as one Rust function.
//!
//! ```
//! use whit_sdk::{Body, RequestExt, Result, http::{Request, Response}};
//!
//! #[derive(serde::Deserialize)]
//! struct Name {
//!     name: String,
//! }
//!
//! #[whit_sdk::handler]
//! fn handle(request: Request<Body>) -> Result<Response<Body>> {
//!     let name: Name = request.json()?;
//!     Ok(Response::new(Body::from(format!("Hello, {}!\n", name.name))))
//! }
//! #
//! # let request = Request::post("/").body(Body::from(r#"{"name": "Ada"}"#)).unwrap();
//! # assert_eq!(handle(request).unwrap().into_body().text(100).unwrap(), "Hello, Ada!\n");
//! ```
//!
//! The crate is a `cdylib`; `cargo build --release --target wasm32-wasip2` makes a component that
//! exports `wasi:http/incoming-handler` and imports nothing but WASI. It runs on Whit, and on any
//! other host of WASI 0.2 http.
//!
//! - **Requests and responses** are those of the [`http`] crate, with a [`Body`] that streams.
//!   [`RequestExt`] adds JSON and query parameters, [`IntoResponse`] lists what a handler may
//!   return.
//! - **Errors** become responses: see [`Error`].
//! - **Outgoing requests**: [`fetch`].
//! - **Configuration and secrets** are environment variables: [`config`].
//! - **Logs** are what is written to standard error and standard output: `eprintln!`.
//! - **Tests**: a handler is a function. Call it; everything but [`fetch`] works in `cargo test`.
//!
//! A handler that needs no request takes none, one that waits for several things may be async:
//!
//! ```
//! # mod first {
//! #[whit_sdk::handler]
//! fn hello() -> &'static str {
//!     "Hello!\n"
//! }
//! # }
//! # mod second {
//! # use std::time::Duration;
//! #[whit_sdk::handler]
//! async fn patient() -> &'static str {
//!     whit_sdk::sleep(Duration::from_millis(10)).await;
//!     "Hello at last!\n"
//! }
//! # }
//! ```

pub use http;
pub use whit_sdk_macros::handler;

mod body;
mod config;
mod error;
mod fetch;
mod request;
mod response;
mod runtime;
#[cfg(target_arch = "wasm32")]
mod wasi;

pub use body::Body;
pub use config::{config, config_or};
pub use error::{Error, Result};
pub use fetch::{Fetch, PendingResponse, fetch};
pub use request::{JSON_BYTES_MAX, RequestExt};
pub use response::{IntoResponse, Json};
pub use runtime::{block_on, sleep};

/// What the code that `#[handler]` writes refers to. Not part of the interface.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod __private {
    pub use crate::wasi::server::serve;
    pub use wasip2::exports::http::incoming_handler::Guest;
    pub use wasip2::http::proxy::export;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};
}

/// The README's code is compiled, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
