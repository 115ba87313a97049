//! How functions and revisions are kept in tables.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::super::{Expected, StorageError};
use crate::model::function::{Function, GuestKind, Revision};
use crate::model::ids::{FunctionId, RevisionNumber};

/// A value in the database that no version of Whit writes.
#[derive(Debug, thiserror::Error)]
#[error("the database has a damaged record of {record}: {why}")]
struct Damaged {
    record: String,
    why: String,
}

/// Why one job failed, before it is known what the job was for.
pub(super) enum JobError {
    Sqlite(rusqlite::Error),
    Storage(StorageError),
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StorageError> for JobError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl JobError {
    pub(super) fn of(self, action: &'static str) -> StorageError {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(DiskFull) => StorageError::Full(Box::new(error)),
                Some(ReadOnly | SystemIoFailure | CannotOpen) => {
                    StorageError::Failing(Box::new(error))
                }
                _ => StorageError::failed(action, error),
            },
            Self::Storage(error) => error,
        }
    }
}

/// A function's row, without its revisions.
pub(super) struct Head {
    pub(super) active: Option<RevisionNumber>,
    pub(super) previous: Option<RevisionNumber>,
    pub(super) highest: u32,
    pub(super) exists: bool,
}

impl Head {
    /// The row of a function, or of one that never was.
    pub(super) fn read(transaction: &Transaction<'_>, id: &FunctionId) -> Result<Self, JobError> {
        let head = transaction
            .prepare_cached(
                "SELECT active, previous, highest_revision, deleted FROM functions
                 WHERE tenant = ?1 AND name = ?2",
            )?
            .query_row(params![id.tenant.as_str(), id.name.as_str()], |row| {
                Ok(Self {
                    active: row.get::<_, Option<u32>>(0)?.map(RevisionNumber),
                    previous: row.get::<_, Option<u32>>(1)?.map(RevisionNumber),
                    highest: row.get(2)?,
                    exists: !row.get::<_, bool>(3)?,
                })
            })
            .optional()?;
        Ok(head.unwrap_or(Self { active: None, previous: None, highest: 0, exists: false }))
    }

    pub(super) fn write(
        &self,
        transaction: &Transaction<'_>,
        id: &FunctionId,
    ) -> Result<(), JobError> {
        transaction
            .prepare_cached(
                "INSERT INTO functions (tenant, name, active, previous, highest_revision, deleted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET active = excluded.active,
                     previous = excluded.previous, deleted = excluded.deleted,
                     highest_revision = excluded.highest_revision",
            )?
            .execute(params![
                id.tenant.as_str(),
                id.name.as_str(),
                self.active.map(|number| number.0),
                self.previous.map(|number| number.0),
                self.highest,
                !self.exists,
            ])?;
        Ok(())
    }

    pub(super) fn conflict(&self) -> JobError {
        StorageError::Conflict { active: self.active }.into()
    }

    pub(super) fn check(&self, expected: Expected) -> Result<(), JobError> {
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => !self.exists,
            Expected::Active(number) => self.exists && self.active == Some(number),
        };
        if holds { Ok(()) } else { Err(self.conflict()) }
    }

    pub(super) fn activate(&mut self, number: RevisionNumber) {
        if self.active != Some(number) {
            self.previous = self.active;
            self.active = Some(number);
        }
    }
}

fn damaged(record: &dyn std::fmt::Display, why: impl std::fmt::Display) -> JobError {
    let error = Damaged { record: record.to_string(), why: why.to_string() };
    StorageError::failed("read the database", error).into()
}

const REVISION_COLUMNS: &str = "number, spec, digest, kind, component_bytes, created_unix_ms";

fn read_revision(id: &FunctionId, row: &Row<'_>) -> Result<Revision, JobError> {
    let number: u32 = row.get("number")?;
    let record = format!("function {id}, revision {number}");
    let kind = row.get::<_, String>("kind")?;
    let kind: GuestKind =
        serde_json::from_value(kind.into()).map_err(|why| damaged(&record, why))?;
    let spec = row.get_ref("spec")?.as_str().map_err(|why| damaged(&record, why))?;
    let spec = serde_json::from_str(spec).map_err(|why| damaged(&record, why))?;
    let digest = row.get_ref("digest")?.as_str().map_err(|why| damaged(&record, why))?;
    let digest = digest.parse().map_err(|why| damaged(&record, why))?;
    let unsigned = |column| -> Result<u64, JobError> {
        u64::try_from(row.get::<_, i64>(column)?).map_err(|why| damaged(&record, why))
    };
    Ok(Revision {
        number: RevisionNumber(number),
        digest,
        component_bytes: unsigned("component_bytes")?,
        kind,
        spec,
        created_unix_ms: unsigned("created_unix_ms")?,
    })
}

pub(super) fn read_function(
    transaction: &Transaction<'_>,
    id: FunctionId,
    head: &Head,
) -> Result<Function, JobError> {
    let sql = format!(
        "SELECT {REVISION_COLUMNS} FROM revisions
         WHERE tenant = ?1 AND name = ?2 ORDER BY number"
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.tenant.as_str(), id.name.as_str()])?;
    let mut revisions = Vec::new();
    while let Some(row) = rows.next()? {
        revisions.push(read_revision(&id, row)?);
    }
    Ok(Function { id, active: head.active, previous: head.previous, revisions })
}

pub(super) fn read_functions(transaction: &Transaction<'_>) -> Result<Vec<Function>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT tenant, name, active, previous FROM functions
         WHERE deleted = 0 ORDER BY tenant, name",
    )?;
    let mut rows = statement.query([])?;
    let mut functions = Vec::new();
    while let Some(row) = rows.next()? {
        let (tenant, name): (String, String) = (row.get(0)?, row.get(1)?);
        let record = format!("function {tenant}/{name}");
        let id = FunctionId {
            tenant: tenant.parse().map_err(|why| damaged(&record, why))?,
            name: name.parse().map_err(|why| damaged(&record, why))?,
        };
        let head = Head {
            active: row.get::<_, Option<u32>>(2)?.map(RevisionNumber),
            previous: row.get::<_, Option<u32>>(3)?.map(RevisionNumber),
            highest: 0,
            exists: true,
        };
        functions.push(read_function(transaction, id, &head)?);
    }
    Ok(functions)
}

pub(super) fn insert_revision(
    transaction: &Transaction<'_>,
    id: &FunctionId,
    revision: &Revision,
) -> Result<(), JobError> {
    const ACTION: &str = "write a revision";
    let spec = serde_json::to_string(&revision.spec)
        .map_err(|error| StorageError::failed(ACTION, error))?;
    let signed =
        |value: u64| i64::try_from(value).map_err(|error| StorageError::failed(ACTION, error));
    let sql = format!(
        "INSERT INTO revisions (tenant, name, {REVISION_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    );
    transaction.prepare_cached(&sql)?.execute(params![
        id.tenant.as_str(),
        id.name.as_str(),
        revision.number.0,
        spec,
        revision.digest.to_string(),
        revision.kind.as_str(),
        signed(revision.component_bytes)?,
        signed(revision.created_unix_ms)?,
    ])?;
    Ok(())
}
