//! What a developer's machine does: beginning and building guests, and watching their source.

pub mod languages;
pub mod templates;
pub mod watch;
