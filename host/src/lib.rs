//! Whit, a WebAssembly function host: upload a module over HTTP, call it by
//! URL; every request runs in a brand-new sandbox.
//!
//! A request takes seven steps, in one path:
//!
//! 1. **accept**: [`ingress::accept`] owns the connection and its timeouts;
//! 2. **route**: [`router`] finds the revision in an immutable table;
//! 3. **admit**: [`invoke::admission`] gives the right to run, or refuses;
//! 4. **acquire**: [`engine::loader`] has the compiled component,
//!    [`engine::store`] arms every limit, [`engine::run`] instantiates;
//! 5. **call**: [`engine::run`] calls, [`invoke::drive`] keeps it in bounds;
//! 6. **respond**: [`ingress::respond`] and [`invoke::response`];
//! 7. **record**: [`invoke::record`] writes one receipt, however it ended.
//!
//! The control plane ([`admin`], [`registry`], [`storage`]) writes; the data
//! plane only reads snapshots of it and never waits for it.

pub mod cli;
pub mod config;
pub mod dev;
pub mod server;
pub mod shutdown;

pub mod capabilities;
pub mod engine;
pub mod ingress;
pub mod invoke;
pub mod router;

pub mod admin;
pub mod http_error;
pub mod registry;
pub mod storage;

pub mod model;
pub mod sandbox;
pub mod telemetry;
