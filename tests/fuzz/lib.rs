//! What must hold of any bytes.

#[path = "../src/fuzz.rs"]
pub mod fuzz;
