//! The `whit` binary as the tests start it: the same as `host/src/main.rs`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    whit::cli::main()
}
