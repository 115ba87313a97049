//! Durable state: what must survive the process and the machine's power.
//!
//! [`Storage`] keeps the control plane's records; components and artifacts are
//! files ([`files`]). [`local`] is SQLite on one machine.

pub mod files;
pub mod local;

use async_trait::async_trait;

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
    /// active before. Returns the function as it is then.
    async fn activate(
        &self,
        id: &FunctionId,
        number: RevisionNumber,
        expected: Expected,
    ) -> Result<Function, StorageError>;

    /// Removes a function with all its revisions.
    async fn delete(&self, id: &FunctionId, expected: Expected) -> Result<(), StorageError>;
}
