//! The `whit` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    whit::cli::main()
}
