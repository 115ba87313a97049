//! Whit, a WebAssembly function host.
pub mod model;
pub mod storage;
pub mod telemetry;
