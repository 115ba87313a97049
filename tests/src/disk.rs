//! Disks that are soon full.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A file system of its own; gone with this.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of this size (`48m`); none where that is not allowed.
    #[must_use]
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                println!("skipped: only root can mount a small disk: {other:?}");
                None
            }
        }
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
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever happened, it goes when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
