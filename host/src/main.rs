//! The `whit` binary: see [`whit::cli`].

fn main() {}
