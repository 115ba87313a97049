//! The command line, as somebody at a terminal meets it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::command::{self, Ran};
use tests::{Connection, Host, Request, eventually, guests};

use crate::{WHIT, host};

/// A host, a folder to work in, and the command line that finds the one from the
/// other.
struct Shell {
    host: Host,
    folder: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { host: host().start(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command::command(WHIT, self.host.folder());
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        command::run(&mut self.command(arguments))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(name), content).expect("write a file");
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_day_with_a_function() {
    let shell = Shell::new();
    shell.write("hello.wasm", guests::http_02());
    let url = format!("http://{}/hello/", shell.host.address());
    let said = shell.run(&["deploy", "hello.wasm"]).succeeded();
    assert_has(&said, &["deployed hello revision 1, http-0.2", &format!("curl {url}")]);
    let said = shell.run(&["deploy", "hello.wasm"]).succeeded();
    assert_has(&said, &["unchanged hello revision 1"]);
    shell.write("second.wasm", guests::cgi());
    let said = shell.run(&["deploy", "second.wasm", "--name", "hello"]).succeeded();
    assert_has(&said, &["deployed hello revision 2, cgi-"]);

    let said = shell.run(&["list"]).succeeded();
    assert_has(&said, &["NAME", "hello", &url]);
    let said = shell.run(&["describe", "hello"]).succeeded();
    assert_has(&said, &["active         2 of 2, before it 1", "timeout        30s", "sha256:"]);
    let said = shell.run(&["revisions", "hello"]).succeeded();
    assert_eq!(said.lines().count(), 3, "{said}");

    assert_eq!(shell.run(&["invoke", "hello"]).succeeded(), "cgi-rust\n");
    assert_eq!(shell.run(&["invoke", "hello:1"]).succeeded(), "wasip2-raw\n");
    assert_eq!(shell.run(&["invoke", "hello", "/method", "-X", "PUT"]).succeeded(), "PUT\n");
    assert_eq!(shell.run(&["invoke", "hello", "/echo", "-d", "a body"]).succeeded(), "a body");
    let said = shell.run(&["invoke", "hello", "/headers", "-H", "x-mine: 1"]).succeeded();
    assert_has(&said, &["x-mine: 1"]);
    let failed = shell.run(&["invoke", "hello", "/trap"]);
    assert_has(&failed.stdout, &["\"code\":\"trapped\""]);
    failed.failed(1);

    let said = shell.run(&["rollback", "hello"]).succeeded();
    assert_has(&said, &["rolled back hello: revision 1 is active"]);
    assert_eq!(shell.run(&["invoke", "hello"]).succeeded(), "wasip2-raw\n");

    shell.run(&["invoke", "hello", "/stderr?bytes=11"]).succeeded();
    let said = shell.run(&["logs", "hello"]).succeeded();
    assert_has(&said, &["eeeeeeeeee", "this guest was asked to trap", "unreachable"]);
    let last = shell.run(&["logs", "hello", "-n", "1"]).succeeded();
    assert!(last.ends_with("eeeeeeeeee\n") && last.lines().count() == 1, "{last}");

    assert_eq!(shell.run(&["delete", "hello", "--yes"]).succeeded(), "deleted hello\n");
    shell.host.get("/hello/").assert_problem(404, "no_route");
}

#[test]
fn text_is_converted_on_the_way() {
    let shell = Shell::new();
    fs::copy(guests::folder("guests-wat/exits-after.wat"), shell.folder.path().join("script.wat"))
        .expect("copy");
    let said = shell.run(&["deploy", "script.wat"]).succeeded();
    assert_has(&said, &["deployed script revision 1"]);
    assert_eq!(shell.run(&["invoke", "script"]).succeeded(), "done");
    shell.write("broken.wat", "(module\n  (func (export \"_start\") nonsense))");
    let said = shell.run(&["deploy", "broken.wat"]).failed(1);
    assert_has(&said, &["broken.wat:2:", "nonsense"]);
}

#[test]
fn a_folder_with_a_manifest_is_deployed_whole() {
    let shell = Shell::new();
    shell.write("one.wasm", guests::answering("one"));
    shell.write("two.wasm", guests::http_02());
    shell.write(
        "whit.toml",
        "[functions.one]\ncomponent = \"one.wasm\"\nroutes = [\"GET /uno\"]\n\
         [functions.two]\ncomponent = \"two.wasm\"\ntimeout = \"5s\"\nenv = { A = \"b\" }\n",
    );
    let said = shell.run(&["deploy"]).succeeded();
    assert_has(&said, &["deployed one", "deployed two"]);
    shell.host.get("/uno").assert_text("one");
    assert_has(&shell.host.get("/two/env").text(), &["A=b\n"]);
    assert_has(&shell.run(&["describe", "two"]).succeeded(), &["timeout        5s", "A=b"]);
    shell.write("whit.toml", "[functions.one]\ncomponent = \"one.wasm\"\nroute = [\"/x\"]\n");
    let said = shell.run(&["deploy"]).failed(1);
    assert_has(&said, &["functions.one.route", "did you mean \"routes\"?"]);
}

#[test]
fn everything_can_be_had_as_json() {
    let shell = Shell::new();
    shell.write("hello.wasm", guests::http_02());
    let published = shell.run(&["deploy", "hello.wasm", "--json"]).json();
    assert_eq!(
        (&published["created"], &published["revision"]["number"]),
        (&json!(true), &json!(1))
    );
    let list = shell.run(&["list", "--json"]).json();
    assert_eq!(list[0]["name"], "hello");
    let function = shell.run(&["describe", "hello", "--json"]).json();
    assert_eq!(function["revision"]["kind"], "http-0.2");
    let revisions = shell.run(&["revisions", "hello", "--json"]).json();
    assert_eq!(revisions[0]["number"], 1);
    let answer = shell.run(&["invoke", "hello", "--json"]).json();
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("wasip2-raw\n")));
    shell.run(&["invoke", "hello", "/stderr?bytes=5"]).succeeded();
    let line = shell.run(&["logs", "hello", "--json"]).succeeded();
    let line: Value = serde_json::from_str(line.trim()).expect("one line of JSON");
    assert_eq!((&line["text"], &line["stream"]), (&json!("eeee"), &json!("stderr")));
    let said = shell.run(&["rollback", "hello", "--json"]).failed(1);
    let error: Value = serde_json::from_str(&said).expect("an error is JSON too");
    assert_eq!(error["code"], "nothing_to_roll_back_to");
    shell.run(&["delete", "hello", "--json"]).json();
    assert_eq!(shell.run(&["list", "--json"]).json(), json!([]));
}

#[test]
fn errors_say_what_to_do_next() {
    let shell = Shell::new();
    shell.write("text.wasm", "not wasm at all\n");
    for (arguments, code, parts) in [
        (&["describe", "absent"][..], 1, &["no function absent", "whit list"][..]),
        (&["invoke", "absent"], 1, &["no function absent", "whit list"]),
        (&["logs", "absent"], 1, &["no function absent"]),
        (&["delete", "absent", "--yes"], 1, &["no function absent"]),
        (&["deploy", "absent.wasm"], 1, &["absent.wasm", "No such file"]),
        (&["deploy", "text.wasm"], 1, &["this is text", "wasi:http/incoming-handler@0.2"]),
        (&["deploy", "text.wasm", "--name", "Bad"], 2, &["a-z, 0-9 and '-'"]),
        (&["depoly"], 2, &["a similar subcommand exists: 'deploy'"]),
        (&[], 2, &["Usage:"]),
        (&["logs", "a", "-n", "many"], 2, &["many"]),
        (&["--host", "http://127.0.0.1:1", "list"], 1, &["no answer from http://127.0.0.1:1"]),
        (&["--data-dir", "/nowhere/at/all", "list"], 1, &["no host is running", "whit serve"]),
        (&["--token", "wrong", "list"], 1, &["token", "admin.token"]),
    ] {
        let said = shell.run(arguments).failed(code);
        assert_has(&said, parts);
        // For people: no code of ours shows.
        assert!(!said.contains("panicked") && !said.contains("Error {"), "{said}");
    }
}

#[test]
fn a_host_is_found_by_address_and_token_too() {
    let shell = Shell::new();
    let url = format!("http://{}", shell.host.admin_address());
    let mut command = command::command(WHIT, Path::new("/nowhere"));
    command.args(["list", "--host", &url]).env("WHIT_TOKEN", shell.host.token());
    command::run(&mut command).succeeded();
    let mut command = command::command(WHIT, Path::new("/nowhere"));
    command.args(["list"]).env("WHIT_TOKEN", shell.host.token()).env("WHIT_HOST", &url);
    command::run(&mut command).succeeded();
}

#[test]
fn logs_can_be_followed() {
    let shell = Shell::new();
    shell.host.admin().deploy("hello", guests::http_02());
    shell.host.get("/hello/stderr?bytes=6");
    let mut follower = shell.command(&["logs", "hello", "-f"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().expect("start");
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert!(next().ends_with(" eeeee"));
    for bytes in [8, 9, 10] {
        shell.host.get(&format!("/hello/stderr?bytes={bytes}"));
        assert!(next().ends_with(&format!(" {}", "e".repeat(bytes - 1))));
    }
    follower.kill().expect("end it");
    follower.wait().expect("its end");
}

#[test]
fn bodies_come_from_files_and_pipes() {
    let shell = Shell::new();
    shell.host.admin().deploy("hello", guests::http_02());
    shell.write("body.bin", [0, 159, 146, 150]);
    let answer = shell.run(&["invoke", "hello", "/echo", "-d", "@body.bin", "--json"]).json();
    assert_eq!(answer["body_hex"], "009f9296");
    let mut piped = shell.command(&["invoke", "hello", "/echo", "-d", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    let mut stdin = piped.stdin.take().expect("stdin");
    stdin.write_all(b"through a pipe").expect("write");
    drop(stdin);
    let output = piped.wait_with_output().expect("its end");
    assert_eq!(output.stdout, b"through a pipe");
}

#[test]
fn the_configuration_is_checked_whole_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("whit.toml");
    fs::write(&config, "lisen = \"127.0.0.1:1\"\ninstances_max = 0\n").expect("write");
    let config = config.to_str().expect("text");
    let serve = |arguments: &[&str]| {
        let mut command = command::command(WHIT, folder.path());
        command.arg("serve").args(arguments).env("WHIT_DRAIN_TIME_MAX", "5 parsecs");
        command::run(&mut command)
    };
    let said = serve(&["--config", config]).failed(2);
    assert_has(&said, &["3 problem(s)", "\"lisen\"", "\"listen\"", "from 1 to 2500", "5 parsecs"]);
    let mut command = command::command(WHIT, folder.path());
    command.args(["serve", "--check", "--listen", "127.0.0.1:9"]).env("WHIT_LOADED_MAX", "77");
    let said = command::run(&mut command).succeeded();
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert_has(line("listen "), &["127.0.0.1:9", "flag"]);
    assert_has(line("loaded_max"), &["77", "environment (WHIT_LOADED_MAX)"]);
    assert_has(line("drain_time_max"), &["30s", "default"]);
}

#[test]
fn dev_serves_a_folder_and_follows_its_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let change = |text: &str| {
        // Whole or not at all, as editors save.
        let saved = folder.path().join("saved");
        fs::write(&saved, guests::answering(text)).expect("write");
        fs::rename(saved, folder.path().join("hello.wasm")).expect("rename");
    };
    change("one");
    let manifest = "[functions.hello]\ncomponent = \"hello.wasm\"\n";
    fs::write(folder.path().join("whit.toml"), manifest).expect("write");
    let data = folder.path().join("data");
    let mut dev = command::command(WHIT, &data);
    dev.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    dev.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut dev = Ended(dev.spawn().expect("start"));
    let address = eventually("the host of dev", || {
        let addresses = fs::read(data.join("host.json")).ok()?;
        let addresses: Value = serde_json::from_slice(&addresses).ok()?;
        Some(addresses["data"].as_str()?.strip_prefix("http://")?.to_owned())
    });
    let answers = |text: &str| {
        eventually(&format!("{text} is served"), || {
            let mut connection = Connection::try_open(&address).ok()?;
            (connection.call(&Request::get("/hello/")).text() == text).then_some(())
        });
    };
    answers("one");
    change("two");
    answers("two");
    // What is broken is not served, and what was there goes on.
    fs::write(folder.path().join("hello.wasm"), "broken").expect("write");
    change("three");
    answers("three");
    kill_process(Pid::from_child(&dev.0), Signal::TERM).expect("tell it to end");
    let status = dev.0.wait().expect("its end");
    assert!(status.success(), "{status}");
    assert!(Connection::try_open(&address).is_err(), "its host has ended with it");
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let running = host().start();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command::command(WHIT, folder.path());
    command.args(["serve", "--admin-listen", "127.0.0.1:0", "--listen", running.address()]);
    let said = command::run(&mut command).failed(1);
    assert_has(&said, &["the data plane can not listen on", running.address()]);
}
