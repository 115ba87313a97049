//! Plain data: what a function, a revision, a limit, an invocation and a receipt are.
//!
//! Nothing here does I/O, and nothing here knows wasmtime, HTTP servers or SQL.

pub mod allow;
pub mod function;
pub mod ids;
pub mod invocation;
pub mod limits;
pub mod quantity;
pub mod route;
pub mod spec;
