//! What a developer's machine does: beginning and building guests, and watching their source.

pub mod languages;
pub mod static_files;
pub mod templates;
pub mod watch;
