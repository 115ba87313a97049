//! Disks that are soon full, or break.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A file system of its own; gone with this.
#[derive(Debug)]
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// One in memory, of this size (`48m`); none where that is not allowed.
    #[must_use]
    pub fn small(size: &str) -> Option<Self> {
        Self::mounted(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// One of ext4, in this file, which is made if it is not there; none where
    /// that is not allowed.
    ///
    /// # Panics
    /// When the file can not be made.
    #[must_use]
    pub fn in_file(file: &Path) -> Option<Self> {
        if !file.exists() {
            fs::File::create(file).and_then(|file| file.set_len(64 << 20)).expect("a file");
            run(Command::new("mkfs.ext4").arg("-q").arg(file))?;
        }
        Self::mounted(&["-o", "loop,errors=remount-ro", file.to_str().expect("a name")])
    }

    fn mounted(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        run(Command::new("mount").args(arguments).arg(folder.path()))?;
        Some(Self(folder))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space that is left, with a file.
    ///
    /// # Panics
    /// When the file can not be made.
    pub fn fill(&self, path: &Path) {
        let mut file = fs::File::create(path).expect("create the filler");
        for bytes in [1 << 20, 4096, 1] {
            let block = vec![0; bytes];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// What the kernel does with one of ext4 once it has found damage: nothing is
    /// written to it any more, not even to files that are open.
    ///
    /// # Panics
    /// When it is of another kind.
    pub fn turn_read_only(&self) {
        let mounts = fs::read_to_string("/proc/mounts").expect("the mounts");
        let own = |line: &&str| line.split(' ').nth(1) == self.path().to_str();
        let device = mounts.lines().find(own).and_then(|line| line.split([' ', '/']).nth(2));
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", device.expect("its device"));
        fs::write(trigger, "a test").expect("an error of the file system");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever happened, it goes when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Runs what only root can; says so where it can not.
pub fn run(command: &mut Command) -> Option<()> {
    match command.output() {
        Ok(output) if output.status.success() => Some(()),
        other => {
            println!("skipped: {command:?} is not possible here: {other:?}");
            None
        }
    }
}
