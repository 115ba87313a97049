//! What a guest may be granted, one file each. A capability is data that the
//! store holds; what is not there can not be reached.

pub mod body;
pub mod clocks;
pub mod http;
pub mod log;
pub mod pipe;
pub mod stdio;
pub mod wasi;
