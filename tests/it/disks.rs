//! Disks that are full, fail, or can only be read: deploys are refused, and
//! nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tests::disk::{Disk, run};
use tests::{Host, Request, guests};

use crate::host;

/// Lets a folder only be read, by its path, until it is dropped.
struct Lid<'a>(&'a Path);

impl<'a> Lid<'a> {
    fn over(folder: &'a Path) -> Option<Self> {
        run(Command::new("mount").arg("--bind").arg(folder).arg(folder))?;
        let lid = Self(folder);
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder))?;
        Some(lid)
    }
}

impl Drop for Lid<'_> {
    fn drop(&mut self) {
        // Lazily: somebody may be reading.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Deploys two functions, starts the host anew, and calls one of them: only that
/// one is loaded.
fn one_of_two_is_loaded(host: Host) -> Host {
    host.admin().deploy("loaded", &guests::answering("loaded"));
    host.admin().deploy("not-loaded", &guests::answering("not loaded"));
    let host = host.restart();
    host.get("/loaded/").assert_text("loaded");
    host
}

fn both_answer(host: &Host) {
    for _ in 0..20 {
        host.get("/loaded/").assert_text("loaded");
        host.get("/not-loaded/").assert_text("not loaded");
    }
}

fn refuses_deploys(host: &Host) {
    let good = guests::answering("new");
    for name in ["new", "loaded"] {
        let why = host.admin().put(name, &good).assert_problem(507, "disk_failing");
        assert!(why.contains("can only be read"), "{why}");
    }
    assert_eq!(host.admin().get("/v1/functions/new").status(), 404);
}

#[test]
fn a_full_disk_refuses_deploys_and_nothing_else() {
    let Some(disk) = Disk::small("48m") else { return };
    let mut host = host().data_folder(&disk.path().join("data")).start();
    host.admin().deploy("app", &guests::answering("version 1"));
    host.get("/app/").assert_text("version 1");
    let filler = disk.path().join("filler");
    disk.fill(&filler);
    host.expect_warning("disk_full");
    host.allow_warning("can not be written");
    host.allow_warning("were not synced");
    for version in 2..6 {
        let answer = host.admin().put("app", &guests::answering(&format!("version {version}")));
        answer.assert_problem(507, "disk_full");
        host.admin().put("new", guests::http_02()).assert_problem(507, "disk_full");
        let answer = host.admin().patch("app", &json!({ "timeout": format!("{version}s") }));
        assert!([201, 507].contains(&answer.status()), "{}", answer.text());
        let mut connection = host.connect();
        for _ in 0..20 {
            connection.call(&Request::get("/app/")).assert_text("version 1");
        }
    }
    assert_eq!(host.admin().get("/v1/functions/new").status(), 404);
    fs::remove_file(&filler).expect("free the disk");
    host.admin().deploy("app", &guests::answering("version 9"));
    host.get("/app/").assert_text("version 9");
    let host: Host = host.restart();
    host.get("/app/").assert_text("version 9");
}

#[test]
fn a_disk_that_turns_read_only_refuses_changes_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("disk");
    let Some(disk) = Disk::in_file(&file) else { return };
    let host = host().data_folder(&disk.path().join("data")).start();
    let mut host = one_of_two_is_loaded(host);
    host.expect_warning("disk_failing");
    // Receipts, logs.
    host.allow_warning("can not be written");
    host.allow_warning("were not synced");
    disk.turn_read_only();
    refuses_deploys(&host);
    let answer = host.admin().patch("loaded", &json!({ "timeout": "5s" }));
    answer.assert_problem(507, "disk_failing");
    host.admin().delete("/v1/functions/loaded").assert_problem(507, "disk_failing");
    both_answer(&host);
    host.stop();
    drop(disk);

    // Checked and mounted again, as an operator would.
    let _ = Command::new("e2fsck").arg("-fy").arg(&file).output().expect("a check");
    let disk = Disk::in_file(&file).expect("the disk again");
    let host = crate::host().data_folder(&disk.path().join("data")).start();
    both_answer(&host);
    host.admin().deploy("loaded", &guests::answering("new"));
    host.get("/loaded/").assert_text("new");
}

#[test]
fn a_folder_that_can_be_written_again_needs_no_restart() {
    let mut host = one_of_two_is_loaded(host().start());
    let folder = host.folder().to_owned();
    let Some(lid) = Lid::over(&folder) else { return };
    host.expect_warning("disk_failing");
    refuses_deploys(&host);
    both_answer(&host);
    drop(lid);
    host.admin().deploy("loaded", &guests::answering("new"));
    host.get("/loaded/").assert_text("new");
}

#[test]
fn a_host_does_not_start_on_a_folder_that_can_only_be_read() {
    let host = host().start();
    host.admin().deploy("app", &guests::answering("app"));
    let stopped = host.stop();
    let Some(lid) = Lid::over(stopped.data()) else { return };
    let mut second = tests::command::command(crate::WHIT, stopped.data());
    second.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let complaint = tests::command::run(&mut second).failed(1);
    assert!(complaint.contains(stopped.data().to_str().expect("a name")), "{complaint}");
    assert!(complaint.contains("Read-only file system"), "{complaint}");
    drop(lid);
    stopped.start().get("/app/").assert_text("app");
}
