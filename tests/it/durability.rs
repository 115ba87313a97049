//! What survives: a stop, a crash, a damaged file.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use serde_json::json;
use tests::admin::put_request;
use tests::guests;

use crate::bad_uploads::artifacts;
use crate::host;

#[test]
fn everything_is_there_after_a_restart() {
    let host = host().start();
    let spec = json!({ "routes": ["/there"], "env": { "A": "1" } });
    host.admin().deploy_with_spec("app", guests::http_02(), &spec);
    host.admin().change("app", &json!({ "timeout": "5s" }));
    host.admin().deploy("app", guests::cgi());
    host.admin().post("/v1/functions/app/rollback", "");
    host.admin().deploy("other", guests::http_03());
    let answer = host.get("/app/stderr?bytes=10");
    let receipt = host.admin().receipt(&answer.request_id());
    let functions = host.admin().json("/v1/functions");
    let token = host.token().to_owned();
    let log = host.admin().logs("app", "");
    let old_port = host.address().to_owned();

    let host = host.restart();
    assert_eq!(host.token(), token);
    // The URLs have the new port; all else is the same.
    let after = host.admin().json("/v1/functions").to_string().replace(host.address(), &old_port);
    assert_eq!(after, functions.to_string());
    assert_eq!(host.admin().receipt(&answer.request_id()), receipt);
    assert_eq!(host.admin().logs("app", ""), log);
    host.get("/app/").assert_text("wasip2-raw\n");
    host.get("/app:3/").assert_text("cgi-rust\n");
    assert!(host.get("/app/env").text().contains("A=1\n"));
    assert_eq!(host.get("/there").status(), 404, "the guest's own answer");
}

#[test]
fn the_first_call_after_a_restart_is_cold_and_the_next_is_not() {
    let host = host().start();
    guests::deploy_all(&host);
    let host = host.restart();
    for (name, _, _) in guests::all() {
        for cold in [true, false] {
            let answer = host.get(&format!("/{name}/"));
            answer.assert_text(&format!("{name}\n"));
            let receipt = host.admin().receipt(&answer.request_id());
            assert_eq!(receipt["cold"], cold, "{name}");
            assert_eq!(receipt["load_us"].as_u64() > Some(0), cold, "{name}: {receipt}");
        }
    }
}

#[test]
fn a_thousand_first_calls_at_once_load_once() {
    let host = host().start();
    host.admin().deploy("app", guests::http_02());
    let host = host.restart();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| host.get("/app/").assert_text("wasip2-raw\n"));
        }
    });
    // Nothing was compiled again for it: the artifact was there.
    assert!(fs::read_dir(host.folder().join("quarantine")).expect("it").next().is_none());
    assert_eq!(artifacts(host.folder()).len(), 1);
}

#[test]
fn more_functions_than_fit_in_memory_all_answer() {
    let host = host().set("loaded_max", 2).start();
    let name = |number: u32| format!("f{number}");
    for number in 0..5 {
        let text = format!("I am {number}");
        host.admin().deploy(&name(number), &guests::answering(&text));
    }
    let mut cold = 0;
    for round in 0..3 {
        for number in 0..5 {
            let answer = host.get(&format!("/{}/", name(number)));
            answer.assert_text(&format!("I am {number}"));
            let receipt = host.admin().receipt(&answer.request_id());
            cold += u32::from(receipt["cold"] == true && round > 0);
        }
    }
    // Two fit; who comes back later finds its place taken.
    assert!(cold >= 6, "only {cold} of 10 later calls were cold");
}

#[test]
fn kill_at_any_point_of_a_deploy_leaves_the_old_or_the_new() {
    const KILLS: u32 = 30;
    let mut host = host().start();
    host.admin().deploy("bystander", &guests::answering("still here"));
    let started = Instant::now();
    host.admin().deploy("app", &guests::answering("version 0"));
    // From its first byte to after its reply.
    let step = started.elapsed() * 5 / 4 / KILLS;
    let (mut serving, mut acknowledged) = (0, 0);
    for version in 1..=KILLS {
        let (sender, receiver) = mpsc::channel();
        let deployed = std::thread::scope(|scope| {
            let admin = host.admin();
            let text = format!("version {version}");
            scope.spawn(move || {
                let answer = admin.try_call(&put_request("app", &guests::answering(&text)));
                // The receiver has had enough by then.
                let _ = sender.send(answer.is_ok_and(|answer| answer.status() == 201));
            });
            let deployed = receiver.recv_timeout(step * version).unwrap_or_default();
            host.kill_now();
            deployed
        });
        host = host.reap().start();
        host.get("/bystander/").assert_text("still here");
        let answer = host.get("/app/");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let text = answer.text();
        let now: u32 =
            text.strip_prefix("version ").and_then(|n| n.parse().ok()).expect("a version");
        assert!(now == serving || now == version, "{now} after {serving} and {version}");
        assert!(!deployed || now == version, "{version} was acknowledged, {now} answers");
        let function = host.admin().json("/v1/functions/app");
        assert_eq!(function["active"], function["revisions"], "{function}");
        serving = now;
        acknowledged += u32::from(deployed);
    }
    assert!(acknowledged < KILLS, "no deploy was interrupted");
    // Nothing is left of what was not kept: one file for each revision.
    let function = host.admin().json("/v1/functions/app");
    let components = fs::read_dir(host.folder().join("components")).expect("components").count();
    assert_eq!(Some(components as u64), function["revisions"].as_u64().map(|count| count + 1));
    assert_eq!(artifacts(host.folder()).len(), components);
    assert_eq!(fs::read_dir(host.folder().join("tmp")).expect("tmp").count(), 0);
}

/// Stops a host, damages its artifacts, and checks that a new one notices and
/// answers rightly all the same.
fn damaged(damage: impl FnOnce(&[PathBuf])) {
    let host = host().start();
    host.admin().deploy("a", &guests::answering("I am a"));
    host.admin().deploy("b", &guests::answering("I am b"));
    let stopped = host.stop();
    let files = artifacts(stopped.data());
    assert_eq!(files.len(), 2);
    damage(&files);
    let mut host = stopped.start();
    host.expect_warning("artifact set aside; compiling it again");
    for _ in 0..3 {
        host.get("/a/").assert_text("I am a");
        host.get("/b/").assert_text("I am b");
    }
    let set_aside = fs::read_dir(host.folder().join("quarantine")).expect("it").count();
    assert!((1..=2).contains(&set_aside), "{set_aside} files are set aside");
    // From then on all is well.
    let host = host.restart();
    host.get("/a/").assert_text("I am a");
    host.get("/b/").assert_text("I am b");
}

#[test]
fn an_artifact_with_one_bit_changed_is_compiled_again() {
    for part in [3, 2] {
        damaged(|files| {
            for file in files {
                let mut bytes = fs::read(file).expect("read");
                let place = bytes.len() / part;
                bytes[place] ^= 1;
                fs::write(file, bytes).expect("write");
            }
        });
    }
}

#[test]
fn an_artifact_that_was_cut_is_compiled_again() {
    damaged(|files| {
        for (file, bytes) in files.iter().zip([10, 10_000]) {
            let file = fs::File::options().write(true).open(file).expect("open");
            file.set_len(bytes).expect("cut");
        }
    });
}

#[test]
fn an_artifact_of_another_function_is_not_taken_for_its_own() {
    damaged(|files| {
        let [first, second] = files else { panic!("two artifacts") };
        let (a, b) = (fs::read(first).expect("read"), fs::read(second).expect("read"));
        fs::write(first, b).expect("write");
        fs::write(second, a).expect("write");
    });
}

#[test]
fn an_artifact_that_is_gone_is_made_again() {
    let host = host().start();
    host.admin().deploy("a", &guests::answering("I am a"));
    let stopped = host.stop();
    fs::remove_dir_all(stopped.data().join("artifacts")).expect("remove");
    let host = stopped.start();
    host.get("/a/").assert_text("I am a");
    assert_eq!(artifacts(host.folder()).len(), 1);
}

#[test]
fn an_artifact_that_changes_while_the_host_runs_is_noticed() {
    let mut host = host().set("loaded_max", 1).start();
    host.admin().deploy("a", &guests::answering("I am a"));
    host.get("/a/").assert_text("I am a");
    let file = artifacts(host.folder()).pop().expect("an artifact");
    host.admin().deploy("b", &guests::answering("I am b"));
    host.get("/b/").assert_text("I am b");
    let mut bytes = fs::read(&file).expect("read");
    let place = bytes.len() / 2;
    bytes[place] ^= 0x10;
    fs::write(&file, bytes).expect("write");
    host.expect_warning("artifact set aside; compiling it again");
    host.get("/a/").assert_text("I am a");
    host.get("/b/").assert_text("I am b");
}

#[test]
fn a_data_folder_has_one_host() {
    let host = host().start();
    let mut second = tests::command::command(crate::WHIT, host.folder());
    second.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let complaint = tests::command::run(&mut second).failed(1);
    assert!(complaint.contains("in use by another whit"), "{complaint}");
    assert!(complaint.contains(&host.pid().to_string()), "{complaint}");
    host.admin().deploy("a", &guests::answering("I am a"));
    host.get("/a/").assert_text("I am a");
}
