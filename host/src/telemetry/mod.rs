//! x
pub mod clock;
