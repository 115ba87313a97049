//! Durable state: what must survive the process and the machine's power.
//!
//! [`Storage`] keeps the control plane's records; components and artifacts are
//! files ([`files`]). [`local`] is SQLite on one machine.

#[cfg(test)]
mod conformance;
pub mod files;
pub mod local;
mod secrets;
mod staging;

use async_trait::async_trait;
#[cfg(test)]
pub(crate) use conformance::conformance;

use crate::model::function::{Function, Revision};
use crate::model::ids::{FunctionId, RevisionNumber};

/// Why storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Somebody else changed the function since it was read.
    #[error("the function changed meanwhile: its active revision is {}", shown(.active))]
    Conflict {
        /// The active revision now; none where the function is gone or new.
        active: Option<RevisionNumber>,
    },
    /// The disk is full or over quota. Nothing was changed.
    #[error("the data folder's disk is full")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk fails, or can only be read. Nothing was changed.
    #[error("the data folder's disk fails or is read-only")]
    Failing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that went wrong below. Nothing was changed.
    #[error("storage failed to {action}")]
    Failed {
        /// In the form of "failed to {action}".
        action: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StorageError {
    /// An error of the file system as an error of storage: what is the disk's is
    /// told apart from everything else.
    #[must_use]
    pub fn from_io(action: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(Box::new(error)),
            ErrorKind::ReadOnlyFilesystem => Self::Failing(Box::new(error)),
            // Of no kind that has a name, EIO among them; the number itself is lost
            // where a path was added to the error.
            kind if kind == std::io::Error::from_raw_os_error(libc::EIO).kind() => {
                Self::Failing(Box::new(error))
            }
            _ => Self::failed(action, error),
        }
    }

    /// A [`StorageError::Failed`] from whatever went wrong below.
    pub fn failed(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { action, source: source.into() }
    }
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StorageError::failed(action, error)),
    }
}

fn shown(active: &Option<RevisionNumber>) -> String {
    active.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

/// What a write expects to find, or the write is a [`StorageError::Conflict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// That the function does not exist.
    Absent,
    /// That this revision is active.
    Active(RevisionNumber),
}

/// The control plane's records. Each method is one durable transaction: when it
/// returns `Ok`, a power failure can not undo it; when it returns an error,
/// nothing has changed.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Every function with its revisions, ordered by id.
    async fn functions(&self) -> Result<Vec<Function>, StorageError>;

    /// Adds a revision, numbered after the function's highest ever (deleted
    /// functions included, so that a number never means two things), and makes
    /// it the active one if `activate`. `revision.number` is ignored.
    /// Returns the function as it is then.
    async fn add_revision(
        &self,
        id: &FunctionId,
        revision: Revision,
        activate: bool,
        expected: Expected,
    ) -> Result<Function, StorageError>;

    /// Makes an existing revision the active one; `previous` becomes what was
    /// active before, and stays as it is where that is the same revision.
    /// Returns the function as it is then. A function or revision that does not
    /// exist is a [`StorageError::Conflict`]: the caller saw it a moment ago.
    async fn activate(
        &self,
        id: &FunctionId,
        number: RevisionNumber,
        expected: Expected,
    ) -> Result<Function, StorageError>;

    /// Removes a function with all its revisions. One that does not exist is a
    /// [`StorageError::Conflict`].
    async fn delete(&self, id: &FunctionId, expected: Expected) -> Result<(), StorageError>;
}
