//! Watches source folders: says when something changed, and what a folder holds.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};

/// How long it must be quiet before a change counts as complete: editors write
/// a file in several steps, version control many files one after another.
const QUIET: Duration = Duration::from_millis(60);
/// Longest wait for quiet.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(3);
/// How far the time that a file system notes may be behind the clock.
const FILE_TIME_STEP_MAX: Duration = Duration::from_millis(20);
/// Events that may wait; more are not needed, they only say "look again".
const EVENTS_MAX: usize = 1024;

/// Whether a file or folder of this name has nothing to do with source: build
/// results, dependencies, caches, everything hidden.
#[must_use]
pub fn is_ignored_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.')
        || matches!(name.as_ref(), "target" | "node_modules" | "__pycache__" | "venv")
        // What editors leave while they write.
        || name.ends_with('~')
        || name.ends_with(".swp")
}

/// Watches a folder and all below it that is not ignored.
pub struct Watcher {
    /// Each folder is watched by itself: a recursive watch would also cover
    /// `target` and `node_modules`, which have thousands.
    notify: RecommendedWatcher,
    changes: Receiver<PathBuf>,
    /// What is watched: the folder, and files and folders elsewhere.
    roots: Vec<PathBuf>,
    /// Something has changed, and may not be complete.
    settling: Option<Settling>,
}

/// When changes count as complete.
#[derive(Debug, Clone, Copy)]
struct Settling {
    quiet_at: Instant,
    latest: Instant,
}

impl Settling {
    fn end(self) -> Instant {
        self.quiet_at.min(self.latest)
    }
}

impl Watcher {
    /// Begins to watch `root`, a folder.
    ///
    /// # Errors
    /// When the system can not watch (any more) folders.
    pub fn new(root: &Path) -> notify::Result<Self> {
        let (sender, changes) = channel(EVENTS_MAX);
        let notify = notify::recommended_watcher(move |event| forward(event, &sender))?;
        let mut watcher = Self { notify, changes, roots: vec![root.to_owned()], settling: None };
        watcher.watch_tree(root)?;
        Ok(watcher)
    }

    /// Watches a file or folder elsewhere, too.
    ///
    /// # Errors
    /// When the system can not watch (any more) folders.
    pub fn follow(&mut self, path: &Path) -> notify::Result<()> {
        if self.is_relevant(path) {
            return Ok(());
        }
        if path.is_dir() {
            self.watch_tree(path)?;
        } else if let Some(folder) = path.parent() {
            // Editors replace files: a watch on one would be lost with it.
            self.notify.watch(folder, RecursiveMode::NonRecursive)?;
        }
        self.roots.push(path.to_owned());
        Ok(())
    }

    fn watch_tree(&mut self, folder: &Path) -> notify::Result<()> {
        self.notify.watch(folder, RecursiveMode::NonRecursive)?;
        let entries = fs::read_dir(folder).map_err(notify::Error::io)?;
        for entry in entries.flatten() {
            // Not through links, which may lead anywhere, back here included.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !is_ignored_name(&entry.file_name()) {
                // One that is gone meanwhile, or may not be read, is no source.
                if let Err(error) = self.watch_tree(&entry.path())
                    && matches!(error.kind, notify::ErrorKind::MaxFilesWatch)
                {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits for a change, then until it is quiet again. Folders that are new
    /// by then are watched too. Whoever stops waiting, and waits again later,
    /// has missed nothing.
    pub async fn changed(&mut self) {
        loop {
            let path = match self.settling {
                Some(settling) if Instant::now() >= settling.end() => None,
                Some(settling) => timeout_at(settling.end(), self.changes.recv()).await.ok(),
                None => Some(self.changes.recv().await),
            };
            let Some(path) = path else {
                self.settling = None;
                return;
            };
            // The sender lives in the watcher that we hold: never closed.
            let Some(path) = path else { return std::future::pending().await };
            if self.is_relevant(&path) {
                self.follow_new(&path);
                let now = Instant::now();
                let latest = self.settling.map_or(now + QUIET_WAIT_MAX, |since| since.latest);
                self.settling = Some(Settling { quiet_at: now + QUIET, latest });
            }
        }
    }

    fn is_relevant(&self, path: &Path) -> bool {
        let is_source = |below: &Path| !below.iter().any(is_ignored_name);
        self.roots.iter().any(|root| path.strip_prefix(root).is_ok_and(is_source))
    }

    fn follow_new(&mut self, path: &Path) {
        if path.is_dir() && !path.is_symlink() {
            // As above; a full table of watches shows at the next start.
            let _ = self.watch_tree(path);
        }
    }
}

/// Runs on notify's thread.
fn forward(event: notify::Result<notify::Event>, sender: &Sender<PathBuf>) {
    let Ok(event) = event else { return };
    // Reading a source file, as every build does, changes nothing.
    let ignored =
        matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)));
    if !ignored {
        for path in event.paths {
            // Full: enough is waiting to be looked at already.
            let _ = sender.try_send(path);
        }
    }
}

/// A hash of the names and contents of all source files at `path`, a file or
/// folder. Two equal ones need no new build.
///
/// # Errors
/// When something below `path` can not be read.
pub fn fingerprint(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    add_to_fingerprint(path, None, &mut hasher)?;
    Ok(hasher.finalize())
}

/// The fingerprint of all these together, but for one file that is no source.
///
/// # Errors
/// When one of them can not be read.
pub fn fingerprint_of_all(paths: &[&Path], result: Option<&Path>) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        add_to_fingerprint(path, result, &mut hasher)?;
    }
    Ok(hasher.finalize())
}

fn add_to_fingerprint(
    path: &Path,
    result: Option<&Path>,
    hasher: &mut blake3::Hasher,
) -> io::Result<()> {
    if result == Some(path) {
        return Ok(());
    }
    let name = path.as_os_str().as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name);
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        hasher.update(&metadata.len().to_le_bytes());
        hasher.update_reader(fs::File::open(path)?)?;
    } else if metadata.is_dir() {
        let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            if !kind.is_symlink() && !is_ignored_name(&entry.file_name()) {
                add_to_fingerprint(&entry.path(), result, hasher)?;
            }
        }
    }
    Ok(())
}

/// Whether a source file at `path`, a file or folder, has been written, made or
/// moved there since `moment`, or hardly before. One that can not be read has not.
#[must_use]
pub fn has_changed_since(path: &Path, moment: SystemTime) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
    let changed = Duration::new(metadata.ctime().unsigned_abs(), nanoseconds);
    if SystemTime::UNIX_EPOCH + changed + FILE_TIME_STEP_MAX >= moment {
        return true;
    }
    let is_source = |entry: &fs::DirEntry| {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        !is_link && !is_ignored_name(&entry.file_name())
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(is_source).any(|entry| has_changed_since(&entry.path(), moment))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn only_source_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/a.rs", "1");
        let first = fingerprint(folder.path()).unwrap();
        write("target/x", "1");
        write(".whit/data/x", "1");
        write("src/__pycache__/x", "1");
        write("src/.a.rs.swp", "1");
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        write("src/a.rs", "2");
        assert_ne!(fingerprint(folder.path()).unwrap(), first);
        write("src/a.rs", "1");
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        write("src/b.rs", "");
        assert_ne!(fingerprint(folder.path()).unwrap(), first);
    }

    #[test]
    fn what_was_written_or_moved_since_a_moment_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir_all(place("package/target")).unwrap();
        fs::create_dir_all(place("package/src")).unwrap();
        fs::write(place("package/src/lib.rs"), "1").unwrap();
        fs::write(place("one.h"), "1").unwrap();
        fs::write(place("old.h"), "1").unwrap();
        let soon = SystemTime::now() + 2 * FILE_TIME_STEP_MAX;
        while SystemTime::now() < soon {
            std::thread::yield_now();
        }
        let began = SystemTime::now();
        let changed = |name: &str| has_changed_since(&place(name), began);
        fs::write(place("package/target/x"), "1").unwrap();
        assert!(!changed("one.h") && !changed("package") && !changed("gone"));
        fs::write(place("package/src/lib.rs"), "2").unwrap();
        assert!(!changed("one.h") && changed("package"));
        fs::rename(place("old.h"), place("one.h")).unwrap();
        assert!(changed("one.h"));
    }

    #[tokio::test]
    async fn who_stops_waiting_in_the_midst_of_a_change_is_told_later() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut watcher = Watcher::new(&root).unwrap();
        fs::write(root.join("a.py"), "1").unwrap();
        while watcher.settling.is_none() {
            // On a busy machine, it may be quiet again between two looks.
            if futures::poll!(pin!(watcher.changed())).is_ready() {
                return;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn changes_are_seen_in_new_folders_and_not_in_ignored_ones() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("target")).unwrap();
        let mut watcher = Watcher::new(&root).unwrap();
        let soon = Duration::from_secs(20);

        fs::create_dir(root.join("new")).unwrap();
        tokio::time::timeout(soon, watcher.changed()).await.unwrap();
        fs::write(root.join("new/a.py"), "1").unwrap();
        tokio::time::timeout(soon, watcher.changed()).await.unwrap();

        // Beside it, only what is followed counts.
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = elsewhere.path().canonicalize().unwrap();
        fs::create_dir(elsewhere.join("package")).unwrap();
        fs::write(elsewhere.join("one.h"), "1").unwrap();
        watcher.follow(&elsewhere.join("one.h")).unwrap();
        watcher.follow(&elsewhere.join("package")).unwrap();
        for name in ["one.h", "package/lib.rs"] {
            fs::write(elsewhere.join(name), "2").unwrap();
            tokio::time::timeout(soon, watcher.changed()).await.unwrap();
        }

        fs::write(elsewhere.join("two.h"), "1").unwrap();
        fs::write(root.join("target/x"), "1").unwrap();
        fs::read(root.join("new/a.py")).unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(500), watcher.changed()).await;
        assert!(nothing.is_err());
    }
}
