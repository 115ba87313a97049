//! Artifacts: native code on disk, and the one place that may turn it into
//! running code.
//!
//! wasmtime does not check what it loads: of random single-bit changes to an
//! artifact most load, and some abort the process or answer wrongly. So each
//! artifact ends with a keyed hash over its code, its component's digest and
//! the engine's fingerprint; the key never leaves the data folder. The hash is
//! checked before the first use in a process, and again whenever the file is
//! not the one that was checked.
//!
//! File format: the code as wasmtime wrote it (an ELF image, which tolerates
//! what follows it), 32 bytes of hash, 8 bytes of [`MAGIC`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::Module;
use wasmtime::component::Component;

use super::{Engines, Track};
use crate::model::ids::Digest;
use crate::storage::StorageError;
use crate::storage::files::Files;

/// Ends every artifact; the digit is the format's version.
const MAGIC: &[u8; 8] = b"whitart1";
const TRAILER_BYTES: u64 = 32 + 8;
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Why an artifact can not be used. All of these lead to a new compile.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is none for this component and engine.
    #[error("no artifact")]
    Missing,
    /// It is not what was written: cut, changed, or of another component.
    #[error("the artifact failed its integrity check: {0}")]
    Corrupt(&'static str),
    /// wasmtime refused it.
    #[error("the artifact does not load")]
    Refused(#[source] wasmtime::Error),
    /// It could not be read.
    #[error("the artifact can not be read")]
    Io(#[from] io::Error),
}

impl ArtifactError {
    /// What the system does not let wasmtime do says nothing about the artifact.
    fn of_mapping(error: wasmtime::Error) -> Self {
        let error = match error.downcast::<io::Error>() {
            Ok(error) => return Self::Io(error),
            Err(error) => error,
        };
        match error.downcast::<rustix::io::Errno>() {
            Ok(number) => Self::Io(number.into()),
            Err(error) => Self::Refused(error),
        }
    }
}

/// What tells whether a file is still the one that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Writes, checks and loads artifacts.
#[derive(Debug)]
pub struct Artifacts {
    files: Arc<Files>,
    key: [u8; 32],
    /// One entry for each artifact that was checked; dropped with its component.
    checked: Mutex<HashMap<Digest, FileIdentity>>,
}

impl Artifacts {
    /// Takes the key from the data folder, making it on first use.
    ///
    /// # Errors
    /// When the key can not be read or made.
    pub fn new(files: Arc<Files>) -> Result<Self, StorageError> {
        let key = files.secret_key()?;
        Ok(Self { files, key, checked: Mutex::default() })
    }

    /// Makes `code`, as the compiler wrote it, the artifact of a component.
    /// Durable when it returns.
    ///
    /// # Errors
    /// When it can not be written; no partial artifact is left then.
    pub fn write(
        &self,
        digest: Digest,
        fingerprint: &str,
        code: &mut File,
    ) -> Result<(), StorageError> {
        let target = self.files.artifact_path(digest, fingerprint);
        self.files.write_durable(&target, |artifact| {
            code.seek(SeekFrom::Start(0))?;
            let mut hasher = self.hasher(digest, fingerprint);
            let mut buffer = vec![0; READ_BUFFER_BYTES];
            loop {
                let count = code.read(&mut buffer)?;
                let Some(chunk @ [_, ..]) = buffer.get(..count) else {
                    break;
                };
                hasher.update(chunk);
                artifact.write_all(chunk)?;
            }
            artifact.write_all(hasher.finalize().as_bytes())?;
            artifact.write_all(MAGIC)
        })
    }

    /// Checks and maps the artifact of a component.
    ///
    /// # Errors
    /// See [`ArtifactError`]. A corrupt one has been set aside by then.
    #[expect(unsafe_code, reason = "loading native code is what artifacts are for")]
    pub fn load_component(
        &self,
        engines: &Engines,
        track: Track,
        digest: Digest,
        fingerprint: &str,
    ) -> Result<Component, ArtifactError> {
        self.load(digest, fingerprint, |path, bytes| {
            let engine = engines.for_component(track, bytes);
            // SAFETY: `load` says why what it gives to this is sound to map.
            unsafe { Component::deserialize_file(engine, path) }
        })
    }

    /// Checks and maps the artifact of a core module.
    ///
    /// # Errors
    /// As [`Self::load_component`].
    #[expect(unsafe_code, reason = "loading native code is what artifacts are for")]
    pub fn load_module(
        &self,
        engines: &Engines,
        digest: Digest,
        fingerprint: &str,
    ) -> Result<Module, ArtifactError> {
        self.load(digest, fingerprint, |path, _| {
            // SAFETY: `load` says why what it gives to this is sound to map.
            unsafe { Module::deserialize_file(engines.for_modules(), path) }
        })
    }

    /// Opens and checks an artifact and gives it to `map`.
    ///
    /// This is what makes mapping it sound: the file is, unchanged, what this
    /// host's compiler wrote for an engine of this configuration. Its keyed hash
    /// covers all of its code, and nobody without the key, which only this user
    /// can read, can make one. It is opened for reading here and is only ever
    /// replaced by rename, so the mapping does not change while it is in use.
    fn load<T>(
        &self,
        digest: Digest,
        fingerprint: &str,
        map: impl FnOnce(String, u64) -> wasmtime::Result<T>,
    ) -> Result<T, ArtifactError> {
        let loaded = self.open_checked(digest, fingerprint).and_then(|(file, bytes)| {
            // By descriptor, so that what is mapped is what was checked even if
            // the name now leads elsewhere.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            map(path, bytes).map_err(ArtifactError::of_mapping)
        });
        if let Err(ArtifactError::Corrupt(_) | ArtifactError::Refused(_)) = &loaded {
            self.forget(digest);
            self.files.quarantine(&self.files.artifact_path(digest, fingerprint));
        }
        loaded
    }

    /// Drops what is remembered about a component's artifact.
    pub fn forget(&self, digest: Digest) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
    }

    /// The file and its size in bytes.
    fn open_checked(
        &self,
        digest: Digest,
        fingerprint: &str,
    ) -> Result<(File, u64), ArtifactError> {
        let path = self.files.artifact_path(digest, fingerprint);
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Missing);
            }
            opened => opened?,
        };
        let identity = FileIdentity::of(&file)?;
        let known = {
            let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.get(&digest) == Some(&identity)
        };
        if !known {
            self.check(&mut file, identity.bytes, digest, fingerprint)?;
            let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.insert(digest, identity);
        }
        Ok((file, identity.bytes))
    }

    fn check(
        &self,
        file: &mut File,
        bytes: u64,
        digest: Digest,
        fingerprint: &str,
    ) -> Result<(), ArtifactError> {
        let Some(code_bytes) = bytes.checked_sub(TRAILER_BYTES) else {
            return Err(ArtifactError::Corrupt("it is too short"));
        };
        let mut hasher = self.hasher(digest, fingerprint);
        let hashed = io::copy(&mut Read::by_ref(file).take(code_bytes), &mut hasher)?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        if hashed != code_bytes || file.read_exact(&mut trailer).is_err() {
            return Err(ArtifactError::Corrupt("it was cut while it was read"));
        }
        let (hash, magic) = trailer.split_at(32);
        if magic != MAGIC {
            return Err(ArtifactError::Corrupt("its end is not an artifact's"));
        }
        // `blake3::Hash` compares in constant time.
        match <[u8; 32]>::try_from(hash) {
            Ok(hash) if hasher.finalize() == blake3::Hash::from_bytes(hash) => Ok(()),
            _ => Err(ArtifactError::Corrupt("its hash does not match")),
        }
    }

    /// A keyed hash that already covers whose artifact it is.
    fn hasher(&self, digest: Digest, fingerprint: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&digest.0);
        hasher.update(&(fingerprint.len() as u64).to_le_bytes());
        hasher.update(fingerprint.as_bytes());
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "engine";

    #[test]
    fn what_the_system_does_not_let_us_do_is_not_the_artifacts_fault() {
        let of_mapping = |error: wasmtime::Error| {
            ArtifactError::of_mapping(error.context("failed to create a mapping"))
        };
        let not_opened = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(of_mapping(not_opened.into()), ArtifactError::Io(_)));
        let not_mapped = rustix::io::Errno::NOMEM;
        assert!(matches!(of_mapping(not_mapped.into()), ArtifactError::Io(_)));
        let refused = wasmtime::Error::msg("another version");
        assert!(matches!(of_mapping(refused), ArtifactError::Refused(_)));
    }

    fn artifacts(folder: &tempfile::TempDir) -> Artifacts {
        Artifacts::new(Arc::new(Files::open(folder.path()).unwrap())).unwrap()
    }

    fn digest(number: u8) -> Digest {
        format!("sha256:{}", hex::encode([number; 32])).parse().unwrap()
    }

    fn write(artifacts: &Artifacts, digest: Digest, fingerprint: &str) {
        let mut code = tempfile::tempfile().unwrap();
        code.write_all(&[b'c'; 20_000]).unwrap();
        artifacts.write(digest, fingerprint, &mut code).unwrap();
    }

    #[test]
    fn a_thousand_damages_are_all_found_before_the_engine_sees_them() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = artifacts(&folder);
        let digest = digest(1);
        write(&artifacts, digest, FINGERPRINT);
        assert!(artifacts.open_checked(digest, FINGERPRINT).is_ok());
        let path = artifacts.files.artifact_path(digest, FINGERPRINT);
        let whole = std::fs::read(&path).unwrap();
        let mut found = 0;
        for number in 0..1000 {
            let mut bytes = whole.clone();
            let at = fastrand::usize(..bytes.len());
            match number % 5 {
                0..=2 => bytes[at] ^= 1 << fastrand::u8(..8),
                3 => bytes.truncate(at),
                _ => bytes[at..].fill(0),
            }
            std::fs::write(&path, bytes).unwrap();
            let corrupt = artifacts.open_checked(digest, FINGERPRINT);
            found += u32::from(matches!(corrupt, Err(ArtifactError::Corrupt(_))));
        }
        assert_eq!(found, 1000);
        std::fs::write(&path, whole).unwrap();
        assert!(artifacts.open_checked(digest, FINGERPRINT).is_ok());
    }

    #[test]
    fn what_belongs_elsewhere_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let ours = artifacts(&folder);
        write(&ours, digest(1), FINGERPRINT);
        let good = std::fs::read(ours.files.artifact_path(digest(1), FINGERPRINT)).unwrap();
        // Another component's, another engine's (an older release, other
        // features, another processor), another host's.
        let elsewhere = tempfile::tempdir().unwrap();
        let theirs = artifacts(&elsewhere);
        for (artifacts, digest, fingerprint) in [
            (&ours, digest(2), FINGERPRINT),
            (&ours, digest(1), "another-engine"),
            (&theirs, digest(1), FINGERPRINT),
        ] {
            let path = artifacts.files.artifact_path(digest, fingerprint);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &good).unwrap();
            let taken = artifacts.open_checked(digest, fingerprint);
            assert!(matches!(taken, Err(ArtifactError::Corrupt(_))), "{taken:?}");
        }
    }
}
