//! The guest SDKs' own tests, which run under a normal interpreter or compiler:
//! what helps a guest must hold without a host, too.

use std::process::Command;

use tests::command::{Ran, run};
use tests::guests;

/// Runs a command in a folder of `guest-sdk/`.
fn passes(folder: &str, program: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(guests::repository().join("guest-sdk").join(folder));
    // What the cargo that runs this test has set would change how another builds.
    for (name, _) in std::env::vars() {
        let cargos = name.starts_with("CARGO") && name != "CARGO_HOME";
        if cargos || ["RUSTFLAGS", "RUSTC", "RUSTUP_TOOLCHAIN"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.env("CARGO_TARGET_DIR", guests::repository().join("target/guests/sdk"));
    let ran = run(&mut command);
    assert_eq!(ran.code, 0, "{program} {arguments:?} in {folder}: {ran:#?}");
    ran
}

#[test]
fn the_rust_sdk() {
    let ran = passes("rust", "cargo", &["test", "--workspace", "--locked"]);
    assert!(ran.stdout.contains("test result: ok."), "{}", ran.stdout);
}

#[test]
fn the_python_adapter() {
    let ran = passes("python", "python3", &["-m", "unittest"]);
    assert!(ran.stderr.contains("OK"), "{}", ran.stderr);
}

#[test]
fn the_javascript_adapter() {
    let ran = passes("javascript", "node", &["--test"]);
    assert!(ran.stdout.contains("# fail 0"), "{}", ran.stdout);
}
