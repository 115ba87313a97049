//! What a developer's machine does: building guests, and watching their source.

pub mod languages;
pub mod watch;
