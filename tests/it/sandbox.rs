//! What the host's own process has given up, and what it has instead.

use std::collections::BTreeSet;
use std::fs;

use tests::{Host, Request, command, guests};

use crate::{WHIT, host};

/// A field of the state of each of the host's threads.
fn of_all_threads(host: &Host, field: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", host.pid())).expect("its threads");
    threads
        .map(|thread| {
            let status = thread.expect("a thread").path().join("status");
            let status = fs::read_to_string(status).expect("its state");
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.expect("the field").trim_matches([':', '\t']).to_owned()
        })
        .collect()
}

fn logged(host: &Host, text: &str) -> bool {
    host.log().iter().any(|line| line.contains(text))
}

#[test]
fn every_thread_is_confined_and_the_host_does_all_it_has_to() {
    let host = host().set("sandbox", "on").start();
    assert!(logged(&host, "confined=files, ports, signals, system calls"), "{:?}", host.log());
    host.admin().deploy("hello", &guests::answering("hello"));
    assert_eq!(host.get("/hello/").text(), "hello");
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(of_all_threads(&host, field), [value.to_owned()].into(), "{field}");
    }
    // What it reads again at a start, and what it writes at an end.
    let host = host.restart();
    assert_eq!(host.get("/hello/").text(), "hello");
    assert_eq!(host.call(&Request::get("/nothing/")).status(), 404);
}

#[test]
fn no_memory_can_be_written_to_and_executed() {
    let host = host().start();
    host.admin().deploy("hello", &guests::answering("hello"));
    assert_eq!(host.get("/hello/").text(), "hello");
    let mappings = fs::read_to_string(format!("/proc/{}/maps", host.pid())).expect("its memory");
    let of = |line: &str| line.split(' ').nth(1).expect("what may be done").to_owned();
    let kinds: BTreeSet<String> = mappings.lines().map(of).collect();
    assert!(kinds.contains("r-xp") && kinds.contains("rw-p"), "{kinds:?}");
    assert!(!kinds.iter().any(|kind| kind.contains('w') && kind.contains('x')), "{kinds:?}");
}

#[test]
fn an_operator_can_do_without_and_is_told() {
    let host = host().set("sandbox", "off").start();
    assert!(logged(&host, "the sandbox is off"));
    assert_eq!(of_all_threads(&host, "NoNewPrivs"), ["0".to_owned()].into());
}

#[test]
fn a_check_says_what_the_kernel_can_confine() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |arguments: &[&str]| {
        let mut command = command::command(WHIT, folder.path());
        command::run(command.args(["serve", "--check"]).args(arguments))
    };
    let said = check(&["--sandbox"]).succeeded();
    assert!(said.contains("the sandbox confines files, ports, signals, system calls"), "{said}");
    let line = said.lines().find(|line| line.starts_with("sandbox ")).expect("the setting");
    assert!(line.contains("on") && line.contains("flag"), "{line}");
    assert!(check(&["--sandbox", "off"]).succeeded().contains("the sandbox is off"));
    assert!(check(&["--sandbox", "perhaps"]).failed(2).contains("must be auto, on or off"));
}

/// The unit that is given away starts the host that is given away with it.
#[test]
fn the_systemd_unit_fits_the_command_line() {
    let deploy = guests::repository().join("examples/deploy");
    let unit = fs::read_to_string(deploy.join("whit.service")).expect("the unit");
    let value = |name: &str| {
        let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    let start = value("ExecStart");
    let mut words = start.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/whit"));
    let config = deploy.join("host.toml");
    let config = config.to_str().expect("text");
    let folder = tempfile::tempdir().expect("a folder");
    let mut check = command::command(WHIT, folder.path());
    check.args(words.map(|word| if word == "/etc/whit/host.toml" { config } else { word }));
    let said = command::run(check.arg("--check")).succeeded();
    let setting = |name: &str| {
        let line = said.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).expect("a setting").to_owned()
    };
    assert_eq!(setting("data_dir"), format!("/var/lib/{}", value("StateDirectory")));
    assert_eq!(setting("sandbox"), "on");
    let seconds = |text: String| text.trim_end_matches('s').parse::<u32>().expect("seconds");
    assert!(seconds(value("TimeoutStopSec")) > seconds(setting("drain_time_max")));
    let files: u32 = value("LimitNOFILE").parse().expect("a number");
    let connections: u32 = setting("connections_max").parse().expect("a number");
    assert!(files > 2 * connections);
}

/// systemd's own reader has nothing to say against the unit.
#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = guests::repository().join("examples/deploy/whit.service");
    let text = fs::read_to_string(unit).expect("the unit");
    let copy = folder.path().join("whit.service");
    fs::write(&copy, text.replace("/usr/local/bin/whit", WHIT)).expect("a copy");
    let mut verify = std::process::Command::new("systemd-analyze");
    match verify.arg("verify").arg(&copy).output() {
        // It exits with 0 also where it ignores what it does not know.
        Ok(said) => {
            let said = (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned());
            assert_eq!(said, (true, String::new()));
        }
        Err(error) => println!("skipped: there is no systemd-analyze here: {error}"),
    }
}

/// What the C library's allocator has is called so by the kernel.
#[test]
fn the_host_has_an_allocator_of_its_own() {
    let host = host().start();
    host.admin().deploy("hello", &guests::answering("hello"));
    assert_eq!(host.get("/hello/").text(), "hello");
    let maps = fs::read_to_string(format!("/proc/{}/maps", host.pid())).expect("its memory");
    assert!(!maps.contains("[heap]"), "{maps}");
}
