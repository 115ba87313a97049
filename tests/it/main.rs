//! The behaviour of the real binary, by contract: each module is one, each test
//! something that a user would notice.

mod architecture;
mod bad_guests;
mod bad_sources;
mod bad_uploads;
mod cli;
mod convention;
mod core_spec;
mod descriptors;
mod dev;
mod disconnect;
mod disks;
mod durability;
mod examples;
mod guests;
mod hostile;
mod http1;
mod http2;
mod http2_rules;
mod http_front;
mod isolation;
mod javascript_fetch;
mod languages;
mod limits;
mod logs_and_receipts;
mod properties;
mod quickjs;
mod readme;
mod rebinding;
mod recursion;
mod revisions;
mod routing;
mod sandbox;
mod sdks;
mod shutdown;
mod slow_clients;
mod specification;
mod streaming;
mod tls;
mod upload;

use tests::HostBuilder;

/// The binary under test, which cargo has built from the same sources.
const WHIT: &str = env!("CARGO_BIN_EXE_whit-under-test");

/// A host with a data folder of its own.
fn host() -> HostBuilder {
    HostBuilder::new(WHIT)
}
