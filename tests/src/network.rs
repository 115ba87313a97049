//! A network of a test's own, with names and addresses that mean what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::disk;

/// An address that belongs to nobody in particular, as far as the host can see.
pub const PUBLIC: &str = "1.2.3.4";

/// A network namespace that has [`PUBLIC`] and loopback only, in which the resolver
/// asks port 53 of loopback; gone with this.
#[derive(Debug)]
pub struct Network {
    /// Keeps it until its standard input ends.
    keeper: Child,
    folder: tempfile::TempDir,
}

impl Network {
    /// None where that is not allowed.
    ///
    /// # Panics
    /// When it is allowed and fails.
    #[must_use]
    pub fn new() -> Option<Self> {
        disk::run(
            Command::new("unshare").args(["--net", "--mount", "ip", "link", "set", "lo", "up"]),
        )?;
        let folder = tempfile::tempdir().expect("a folder");
        let resolver = folder.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1\n").expect("write");
        let script = format!(
            "ip link set lo up && ip address add {PUBLIC}/32 dev lo &&
             mount --bind {} /etc/resolv.conf && echo ready && exec cat",
            resolver.display()
        );
        let mut keeper = Command::new("unshare");
        keeper.args(["--net", "--mount", "sh", "-c", &script]);
        let mut keeper =
            keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a network");
        let mut line = String::new();
        let stdout = keeper.stdout.as_mut().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n", "the network can not be set up");
        Some(Self { keeper, folder })
    }

    /// Moves this thread into it, and with it the threads that it starts.
    ///
    /// # Panics
    /// When it can not be moved.
    pub fn enter(&self) {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.keeper.id()));
        let network = network.expect("the network");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enter the network");
    }

    /// A program that runs another one inside.
    ///
    /// # Panics
    /// When it can not be written.
    #[must_use]
    pub fn inside(&self, program: &str) -> PathBuf {
        let path = self.folder.path().join("inside");
        let keeper = self.keeper.id();
        let script = format!("#!/bin/sh\nexec nsenter -t {keeper} -n -m {program} \"$@\"\n");
        fs::write(&path, script).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
        path
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
