//! What the integration tests are written with: a real host in a process of its
//! own, an HTTP client that does exactly what it is told, and guests.
//!
//! Nothing here sleeps for a fixed time. What a test waits for is an event, with
//! a deadline ([`wait`]).

pub mod admin;
pub mod command;
pub mod dev;
pub mod disk;
pub mod fuzz;
pub mod guests;
pub mod health;
pub mod host;
pub mod hostile;
pub mod http;
pub mod http2;
pub mod latency;
pub mod network;
pub mod readme;
pub mod traffic;
pub mod wait;

pub use host::{Host, HostBuilder};
pub use http::{Connection, Request, Response};
pub use wait::eventually;
