//! An upload on its way to becoming a component: written to a temporary file,
//! hashed as it comes.

use std::io::Write;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{StorageError, blocking};
use crate::model::ids::Digest;

/// Bytes gathered before they are hashed and written, away from the async
/// threads: large enough that handing them over costs nothing beside the work.
const BUFFER_BYTES: usize = 256 << 10;

const ACTION: &str = "write the upload";

/// An earlier write was cancelled or failed: what is on disk is not the upload.
#[derive(Debug, thiserror::Error)]
#[error("an earlier write of this upload did not finish")]
struct Interrupted;

#[derive(Debug)]
struct Target {
    file: NamedTempFile,
    hasher: Sha256,
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| StorageError::from_io(ACTION, error))
    }
}

/// An upload being received. Dropping it removes the temporary file.
#[derive(Debug)]
pub struct Staging {
    /// None while a write is under way, and after one that did not finish.
    target: Option<Target>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Staging {
    pub(super) fn new(file: NamedTempFile) -> Self {
        let target = Some(Target { file, hasher: Sha256::new() });
        Self { target, buffer: Vec::new(), bytes: 0 }
    }

    /// Appends to the upload.
    ///
    /// # Errors
    /// When the disk is full or fails, and after an earlier write failed or was
    /// cancelled: the upload is lost then.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        self.buffer.extend_from_slice(chunk);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Bytes received so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        let interrupted = || StorageError::failed(ACTION, Interrupted);
        let mut target = self.target.take().ok_or_else(interrupted)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let (target, buffer) = blocking(ACTION, move || {
            target.write(&buffer)?;
            buffer.clear();
            Ok((target, buffer))
        })
        .await?;
        (self.target, self.buffer) = (Some(target), buffer);
        Ok(())
    }

    /// Ends the upload. It is readable at [`Staged::path`] from now on, but
    /// durable only once it is kept.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn finish(mut self) -> Result<Staged, StorageError> {
        self.flush().await?;
        let target = self.target.ok_or_else(|| StorageError::failed(ACTION, Interrupted))?;
        Ok(Staged {
            file: target.file,
            digest: Digest(target.hasher.finalize().into()),
            bytes: self.bytes,
        })
    }
}

/// A complete upload that is not kept yet. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    pub(super) file: NamedTempFile,
    digest: Digest,
    bytes: u64,
}

impl Staged {
    /// Where it can be read until it is kept or dropped.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The sha256 of its content.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{files, names};

    #[tokio::test]
    async fn an_abandoned_upload_leaves_nothing() {
        let (_folder, files) = files();
        let mut staging = files.stage().await.unwrap();
        staging.write(&[0; 300 << 10]).await.unwrap();
        assert_eq!(names(&files.data_dir().join("tmp")).len(), 1);
        drop(staging);
        let staged = files.stage().await.unwrap().finish().await.unwrap();
        assert!(staged.path().exists());
        drop(staged);
        assert!(names(&files.data_dir().join("tmp")).is_empty());
    }

    #[tokio::test]
    async fn a_cancelled_write_can_not_become_a_component() {
        let (_folder, files) = files();
        let mut staging = files.stage().await.unwrap();
        {
            let write = staging.write(&[0; 300 << 10]);
            futures::pin_mut!(write);
            // Polled once, then dropped, as when the client leaves.
            let _ = futures::poll!(write);
        }
        let finished = staging.finish().await;
        // Either the write had finished within the poll, or the upload is lost.
        assert!(finished.is_err() || finished.unwrap().bytes() == 300 << 10);
    }
}
