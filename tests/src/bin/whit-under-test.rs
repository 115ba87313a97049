//! The `whit` binary as the tests start it: the same as `host/src/main.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    whit::cli::main()
}
