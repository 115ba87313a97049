//! The data folder: components, artifacts, and how a file gets there whole.
//!
//! ```text
//! components/<sha256 hex>.wasm                   the uploads as they came
//! artifacts/<sha256 hex>/<fingerprint>.cwasm     compiled forms, disposable
//! tmp/          what is being written     quarantine/   bad artifacts
//! lock          held while a host runs    *.key *.token secrets
//! ```
//! A file appears under its name only once its content is on the disk: written
//! in `tmp/`, synced, renamed, and the folder synced.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

pub use super::secrets::SECRET_BYTES;
pub use super::staging::{Staged, Staging};
use super::{StorageError, blocking};
use crate::model::ids::Digest;

/// Most bad artifacts that are kept for inspection; the oldest go first.
pub const QUARANTINE_FILES_MAX: usize = 16;

/// Folders are the owner's alone: components and databases hold others' code
/// and configuration.
const FOLDER_MODE: u32 = 0o700;
/// As [`FOLDER_MODE`], for files.
pub(super) const FILE_MODE: u32 = 0o600;

/// Why a data folder can not be used by this process.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another host runs on it.
    #[error("the data folder {} is in use by another whit{}", folder.display(), shown(holder))]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The other's process id, where it could be read.
        holder: Option<u32>,
    },
    /// The lock file can not be made or locked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn shown(holder: &Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// The files under one data folder. Cheap to share through an [`Arc`].
#[derive(Debug)]
pub struct Files {
    folders: Arc<Folders>,
    lock: OnceLock<File>,
}

#[derive(Debug)]
struct Folders {
    data: PathBuf,
    components: PathBuf,
    artifacts: PathBuf,
    temporary: PathBuf,
    quarantine: PathBuf,
}

impl Files {
    /// Makes the folders that are missing, for the owner alone.
    ///
    /// # Errors
    /// When a folder can not be made.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let folders = Folders {
            data: data_dir.to_owned(),
            components: data_dir.join("components"),
            artifacts: data_dir.join("artifacts"),
            temporary: data_dir.join("tmp"),
            quarantine: data_dir.join("quarantine"),
        };
        for folder in [
            &folders.data,
            &folders.components,
            &folders.artifacts,
            &folders.temporary,
            &folders.quarantine,
        ] {
            create_folder(folder)
                .map_err(|error| StorageError::from_io("create the data folder", error))?;
        }
        Ok(Self { folders: Arc::new(folders), lock: OnceLock::new() })
    }

    /// The folder given to [`Self::open`].
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.folders.data
    }

    /// Makes this the only process that uses the folder, until `self` is
    /// dropped or the process ends in any way, and empties `tmp/`: what a crash
    /// left there is nobody's. Emptying it without the lock would destroy the
    /// uploads of a host that runs.
    ///
    /// # Errors
    /// When another process has the folder, or the file system fails.
    pub fn lock(&self) -> Result<(), LockError> {
        let failed = |error| StorageError::from_io("lock the data folder", error);
        if self.lock.get().is_some() {
            return Ok(());
        }
        let path = self.folders.data.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The text only makes the message better.
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let holder = text.trim().parse().ok();
                return Err(LockError::InUse { folder: self.folders.data.clone(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error).into()),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        empty_folder(&self.folders.temporary).map_err(failed)?;
        // A second caller at the same time would have been refused above.
        let _ = self.lock.set(file);
        Ok(())
    }

    /// Starts to receive an upload.
    ///
    /// # Errors
    /// When the temporary file can not be made.
    pub async fn stage(&self) -> Result<Staging, StorageError> {
        const ACTION: &str = "create a temporary file";
        let folders = Arc::clone(&self.folders);
        let file = blocking(ACTION, move || {
            NamedTempFile::new_in(&folders.temporary)
                .map_err(|error| StorageError::from_io(ACTION, error))
        });
        Ok(Staging::new(file.await?))
    }

    /// Makes an upload a component, durably: after `Ok` it survives a power
    /// failure. One that is there already is left as it is.
    ///
    /// # Errors
    /// When the disk is full or fails. The upload is gone then, and the
    /// component is there only if it was before.
    pub async fn keep(&self, staged: Staged) -> Result<(), StorageError> {
        const ACTION: &str = "keep the component";
        let folders = Arc::clone(&self.folders);
        blocking(ACTION, move || {
            let target = folders.component_path(staged.digest());
            let kept = || -> io::Result<()> {
                let present = fs::metadata(&target)
                    .is_ok_and(|found| found.is_file() && found.len() == staged.bytes());
                if !present {
                    staged.file.as_file().sync_all()?;
                    staged.file.persist(&target).map_err(|error| error.error)?;
                }
                sync_folder(&folders.components)
            };
            kept().map_err(|error| StorageError::from_io(ACTION, error))
        })
        .await
    }

    /// Where a component's original is, if it is kept.
    #[must_use]
    pub fn component_path(&self, digest: Digest) -> PathBuf {
        self.folders.component_path(digest)
    }

    /// Where a component's artifact for one engine belongs. `fingerprint` must
    /// be usable as a file name.
    #[must_use]
    pub fn artifact_path(&self, digest: Digest, fingerprint: &str) -> PathBuf {
        self.folders.artifacts.join(digest.hex()).join(format!("{fingerprint}.cwasm"))
    }

    /// Removes a component and its artifacts. What can not be removed is logged,
    /// and removed at the next start.
    pub async fn remove(&self, digest: Digest) {
        let folders = Arc::clone(&self.folders);
        let removed = blocking("remove a component", move || {
            folders.remove(&digest.hex());
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%digest, %error, "a component was not removed");
        }
    }

    /// Removes the components and artifacts of digests that are not in `used`:
    /// what a crash between a file and its record left behind. Files that are
    /// not named as ours are let be.
    ///
    /// # Errors
    /// When a folder can not be read.
    pub async fn retain(&self, used: &BTreeSet<Digest>) -> Result<(), StorageError> {
        const ACTION: &str = "list the components";
        let folders = Arc::clone(&self.folders);
        let used: BTreeSet<String> = used.iter().map(Digest::hex).collect();
        blocking(ACTION, move || {
            let mut unused = BTreeSet::new();
            for folder in [&folders.components, &folders.artifacts] {
                for entry in fs::read_dir(folder).map_err(|e| StorageError::from_io(ACTION, e))? {
                    let name = entry.map_err(|e| StorageError::from_io(ACTION, e))?.file_name();
                    let name = name.to_string_lossy();
                    let hex = name.strip_suffix(".wasm").unwrap_or(&name);
                    let ours = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                    if ours && !used.contains(hex) {
                        unused.insert(hex.to_owned());
                    }
                }
            }
            for hex in unused {
                tracing::info!(component = %hex, "removing a component that no revision names");
                folders.remove(&hex);
            }
            Ok(())
        })
        .await
    }

    /// Writes a file whole or not at all, replacing what is at `target`. Makes
    /// the folder of `target` if need be. Blocks.
    ///
    /// # Errors
    /// When `write` fails, or the disk is full or fails. `target` is as it was.
    pub fn write_durable(
        &self,
        target: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let written = || -> io::Result<()> {
            let mut file = NamedTempFile::new_in(&self.folders.temporary)?;
            write(file.as_file_mut())?;
            file.as_file().sync_all()?;
            if let Some(folder) = target.parent() {
                create_folder(folder)?;
            }
            file.persist(target).map_err(|error| error.error)?;
            sync_folder_of(target)
        };
        written().map_err(|error| StorageError::from_io("write a file", error))
    }

    /// As [`Self::write_durable`], but fails with
    /// [`io::ErrorKind::AlreadyExists`] where `target` exists.
    pub(super) fn create_durable(
        &self,
        target: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.folders.temporary)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(target).map_err(|error| error.error)?;
        sync_folder_of(target)
    }

    /// Moves a bad artifact aside, so that it is not loaded again but can be
    /// looked at. Keeps the latest [`QUARANTINE_FILES_MAX`]. Blocks.
    ///
    /// One that can not be moved is removed; failing that too is logged.
    pub fn quarantine(&self, path: &Path) {
        let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let folder = part(path.parent().and_then(Path::file_name));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The time first, and of one width: names sort by age.
        let name = format!("{:013}-{folder}-{}", now.as_millis(), part(path.file_name()));
        if let Err(error) = fs::rename(path, self.folders.quarantine.join(name)) {
            tracing::warn!(path = %path.display(), %error, "a bad artifact was not set aside");
            remove_file(path);
        }
        let Ok(entries) = fs::read_dir(&self.folders.quarantine) else {
            return;
        };
        let names: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        for old in names.iter().rev().skip(QUARANTINE_FILES_MAX) {
            remove_file(old);
        }
    }
}

impl Folders {
    fn component_path(&self, digest: Digest) -> PathBuf {
        self.components.join(format!("{}.wasm", digest.hex()))
    }

    fn remove(&self, hex: &str) {
        remove_file(&self.components.join(format!("{hex}.wasm")));
        let artifacts = self.artifacts.join(hex);
        match fs::remove_dir_all(&artifacts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %artifacts.display(), %error, "artifacts were not removed");
            }
            _ => {}
        }
    }
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file was not removed");
        }
        _ => {}
    }
}

/// Makes a folder and those above it, if they are missing, for the owner alone.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    // The new folder's own name must survive, too.
    sync_folder_of(path)
}

/// Makes an empty file for the owner alone, unless it is there.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

fn empty_folder(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a file's name durable, beside its content.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

#[cfg(test)]
pub(in crate::storage) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub(in crate::storage) fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(&folder.path().join("data")).unwrap();
        (folder, files)
    }

    pub(in crate::storage) fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    pub(in crate::storage) fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn staged(files: &Files, chunks: &[&[u8]]) -> Staged {
        let mut staging = files.stage().await.unwrap();
        for chunk in chunks {
            staging.write(chunk).await.unwrap();
        }
        staging.finish().await.unwrap()
    }

    fn assert_send<T: Send + std::fmt::Debug>(_: &T) {}

    #[tokio::test]
    async fn an_upload_is_hashed_and_kept() {
        let (_folder, files) = files();
        let large = vec![7; 700 << 10];
        let staged = staged(&files, &[b"ab", &large, b"", b"c"]).await;
        assert_send(&staged);
        let whole = [b"ab".as_slice(), &large, b"c"].concat();
        assert_eq!(staged.bytes(), whole.len() as u64);
        assert_eq!(fs::read(staged.path()).unwrap(), whole);
        let digest = staged.digest();
        let expected: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            &whole,
        ))
        .into();
        assert_eq!(digest, Digest(expected));
        files.keep(staged).await.unwrap();
        let kept = files.component_path(digest);
        assert_eq!(fs::read(&kept).unwrap(), whole);
        assert_eq!(mode(&kept), 0o600);
        assert!(names(&files.folders.temporary).is_empty());
    }

    #[tokio::test]
    async fn keeping_twice_keeps_the_first_and_mends_a_torn_one() {
        let (_folder, files) = files();
        let first = staged(&files, &[b"same"]).await;
        let path = files.component_path(first.digest());
        files.keep(first).await.unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let before = inode(&path);
        files.keep(staged(&files, &[b"same"]).await).await.unwrap();
        assert_eq!(inode(&path), before);
        fs::write(&path, "sa").unwrap();
        files.keep(staged(&files, &[b"same"]).await).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"same");
        assert!(names(&files.folders.temporary).is_empty());
    }

    #[tokio::test]
    async fn retain_removes_what_no_revision_names() {
        let (_folder, files) = files();
        let mut digests = Vec::new();
        for content in [b"a", b"b"] {
            let staged = staged(&files, &[content]).await;
            let digest = staged.digest();
            files.keep(staged).await.unwrap();
            let artifact = files.artifact_path(digest, "engine-1");
            files.write_durable(&artifact, |file| file.write_all(b"code")).unwrap();
            assert_eq!(mode(&artifact), 0o600);
            assert_eq!(mode(artifact.parent().unwrap()), 0o700);
            digests.push(digest);
        }
        let stray = files.folders.components.join("README");
        fs::write(&stray, "mine").unwrap();
        files.retain(&BTreeSet::from([digests[0]])).await.unwrap();
        assert!(files.component_path(digests[0]).exists());
        assert!(files.artifact_path(digests[0], "engine-1").exists());
        assert!(!files.component_path(digests[1]).exists());
        assert!(!files.artifact_path(digests[1], "engine-1").parent().unwrap().exists());
        assert!(stray.exists());
        files.remove(digests[0]).await;
        assert!(!files.component_path(digests[0]).exists());
        assert!(names(&files.folders.artifacts).is_empty());
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let (_folder, files) = files();
        let target = files.data_dir().join("settings");
        files.write_durable(&target, |file| file.write_all(b"old")).unwrap();
        let full = files.write_durable(&target, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(full, Err(StorageError::Full(_))));
        let quota = files.write_durable(&target, |_| Err(io::ErrorKind::QuotaExceeded.into()));
        assert!(matches!(quota, Err(StorageError::Full(_))));
        for failing in [libc::EIO, libc::EROFS] {
            let failing = io::Error::from_raw_os_error(failing);
            let failed = files.write_durable(&target, |_| Err(failing));
            assert!(matches!(failed, Err(StorageError::Failing(_))));
        }
        let other = files.write_durable(&target, |_| Err(io::ErrorKind::Other.into()));
        assert!(matches!(other, Err(StorageError::Failed { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert!(names(&files.folders.temporary).is_empty());
    }

    #[test]
    fn the_quarantine_is_bounded() {
        let (_folder, files) = files();
        for index in 0..QUARANTINE_FILES_MAX + 4 {
            let artifact = files.artifact_path(Digest([1; 32]), &format!("engine-{index:02}"));
            files.write_durable(&artifact, |file| write!(file, "{index}")).unwrap();
            files.quarantine(&artifact);
            assert!(!artifact.exists());
        }
        let kept = names(&files.folders.quarantine);
        assert_eq!(kept.len(), QUARANTINE_FILES_MAX);
        assert!(kept.last().unwrap().ends_with("engine-19.cwasm"), "{kept:?}");
    }

    #[test]
    fn one_process_at_a_time() {
        let (_folder, files) = files();
        let leftover = files.folders.temporary.join("leftover");
        fs::write(&leftover, "").unwrap();
        files.lock().unwrap();
        assert!(!leftover.exists());
        files.lock().unwrap();
        let other = Files::open(files.data_dir()).unwrap();
        fs::write(&leftover, "an upload of the host that runs").unwrap();
        match other.lock() {
            Err(LockError::InUse { folder, holder }) => {
                assert_eq!(folder, files.data_dir());
                assert_eq!(holder, Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        assert!(leftover.exists());
        drop(files);
        other.lock().unwrap();
    }
}
