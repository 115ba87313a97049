//! [`Storage`] on one machine: SQLite in WAL mode, written by one thread.
//!
//! SQLite has one writer at a time whatever we do. A thread that owns the only
//! connection makes that plain: no pool, no `SQLITE_BUSY` between our own
//! tasks, and no blocking call on an async thread.

mod records;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{Semaphore, oneshot};

use self::records::{Head, JobError, insert_revision, read_function, read_functions};
use super::{Expected, Storage, StorageError, files};
use crate::model::function::{Function, Revision};
use crate::model::ids::{FunctionId, RevisionNumber};

/// Most operations that wait for the writer thread; more wait for a place.
pub const JOBS_WAITING_MAX: usize = 64;

/// How long the database may be held by another program, such as a backup,
/// before an operation fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What brings a database from version `index` to `index + 1`. Entries are only
/// ever added: a released one is somebody's data.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE functions (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        active INTEGER,
        previous INTEGER,
        -- Outlives the function: a number never means two things.
        highest_revision INTEGER NOT NULL,
        deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revisions (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL CHECK (number > 0),
        spec TEXT NOT NULL,
        digest TEXT NOT NULL,
        kind TEXT NOT NULL,
        component_bytes INTEGER NOT NULL,
        created_unix_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, name, number),
        FOREIGN KEY (tenant, name) REFERENCES functions (tenant, name)
    ) STRICT, WITHOUT ROWID;
"];

/// The database was written by a later version of Whit.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database has schema version {found} but this whit knows only up to {known}: \
     it was written by a newer whit; upgrade this one or use another data folder"
)]
pub struct NewerSchema {
    /// The version of the database.
    pub found: u32,
    /// The latest version that this program knows.
    pub known: u32,
}

/// The thread that owns the connection has ended.
#[derive(Debug, thiserror::Error)]
#[error("the storage is closed")]
struct Closed;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// See the module. Dropping it waits for the operations already accepted.
#[derive(Debug)]
pub struct LocalStorage {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Bounds `jobs`, which itself never blocks: then closing never does either.
    waiting: Arc<Semaphore>,
}

impl LocalStorage {
    /// Opens or makes the database at `path` and brings its schema up to date.
    ///
    /// # Errors
    /// When the file can not be made or read, is not a database of ours, or is
    /// one of a newer version ([`NewerSchema`] is the source then).
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        // SQLite would make it readable for all; it gives the -wal and -shm
        // files the mode of the database.
        files::create_private(path)
            .map_err(|error| StorageError::from_io("create the database", error))?;
        let mut connection =
            connect(path).map_err(|error| JobError::from(error).of("open the database"))?;
        migrate(&mut connection).map_err(|error| error.of("migrate the database"))?;
        files::sync_folder_of(path)
            .map_err(|error| StorageError::from_io("create the database", error))?;
        let (sender, receiver) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("whit-storage".into())
            .spawn(move || {
                for job in receiver {
                    job(&mut connection);
                }
                if let Err((_, error)) = connection.close() {
                    tracing::warn!(%error, "the database did not close cleanly");
                }
            })
            .map_err(|error| StorageError::from_io("start the storage thread", error))?;
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            waiting: Arc::new(Semaphore::new(JOBS_WAITING_MAX)),
        })
    }

    /// Finishes the operations already accepted, checkpoints and closes the
    /// database. Blocks until then. Later operations fail.
    pub fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the storage thread panicked");
        }
    }

    /// Runs `work` on the thread that owns the connection.
    ///
    /// `work` runs to its end even if the caller stops waiting for it: a commit
    /// is never torn by a client that leaves.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let closed = |_| StorageError::failed(action, Closed);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.waiting).acquire_owned().await;
        let permit = permit.map_err(|_| closed(()))?;
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = work(connection).map_err(|error| error.of(action));
            drop(permit);
            // Nobody listens when the caller's task was cancelled.
            let _ = reply.send(result);
        });
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .ok_or_else(|| closed(()))?
            .send(job)
            .map_err(|_| closed(()))?;
        result.await.map_err(|_| closed(()))?
    }

    /// Runs `work` in one transaction, which is undone unless `work` succeeds.
    async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.run(action, move |connection| {
            // Immediate: the lock is taken before reading what is decided on.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }
}

impl Drop for LocalStorage {
    fn drop(&mut self) {
        self.close();
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at each commit; NORMAL could lose the last ones.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Not files in the machine's temporary folder, which the sandbox has none of.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), JobError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        let error = NewerSchema { found, known };
        return Err(StorageError::failed("open the database", error).into());
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[async_trait]
impl Storage for LocalStorage {
    async fn functions(&self) -> Result<Vec<Function>, StorageError> {
        self.run("read the functions", |connection| read_functions(&connection.transaction()?))
            .await
    }

    async fn add_revision(
        &self,
        id: &FunctionId,
        mut revision: Revision,
        activate: bool,
        expected: Expected,
    ) -> Result<Function, StorageError> {
        let id = id.clone();
        self.write("add a revision", move |transaction| {
            let mut head = Head::read(transaction, &id)?;
            head.check(expected)?;
            head.highest = head.highest.checked_add(1).ok_or_else(|| {
                StorageError::failed("add a revision", "the revision numbers are used up")
            })?;
            head.exists = true;
            revision.number = RevisionNumber(head.highest);
            if activate {
                head.activate(revision.number);
            }
            head.write(transaction, &id)?;
            insert_revision(transaction, &id, &revision)?;
            read_function(transaction, id, &head)
        })
        .await
    }

    async fn activate(
        &self,
        id: &FunctionId,
        number: RevisionNumber,
        expected: Expected,
    ) -> Result<Function, StorageError> {
        let id = id.clone();
        self.write("activate a revision", move |transaction| {
            let mut head = Head::read(transaction, &id)?;
            head.check(expected)?;
            let function = read_function(transaction, id, &head)?;
            if function.revision(number).is_none() {
                return Err(head.conflict());
            }
            head.activate(number);
            head.write(transaction, &function.id)?;
            Ok(Function { active: head.active, previous: head.previous, ..function })
        })
        .await
    }

    async fn delete(&self, id: &FunctionId, expected: Expected) -> Result<(), StorageError> {
        let id = id.clone();
        self.write("delete a function", move |transaction| {
            let head = Head::read(transaction, &id)?;
            head.check(expected)?;
            if !head.exists {
                return Err(head.conflict());
            }
            transaction.execute(
                "DELETE FROM revisions WHERE tenant = ?1 AND name = ?2",
                params![id.tenant.as_str(), id.name.as_str()],
            )?;
            let tombstone =
                Head { active: None, previous: None, highest: head.highest, exists: false };
            tombstone.write(transaction, &id)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::PermissionsExt;

    use super::super::conformance;
    use super::super::conformance::{id, revision};
    use super::*;

    fn storage() -> (tempfile::TempDir, LocalStorage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(&folder.path().join("whit.db")).unwrap();
        (folder, storage)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_conforms() {
        let (_folder, storage) = storage();
        conformance(&storage).await;
    }

    #[tokio::test]
    async fn everything_survives_reopening() {
        let (folder, storage) = storage();
        for name in ["one", "gone"] {
            let id = id("default", name);
            storage.add_revision(&id, revision(1), true, Expected::Any).await.unwrap();
        }
        storage.delete(&id("default", "gone"), Expected::Any).await.unwrap();
        let before = storage.functions().await.unwrap();
        drop(storage);
        let storage = LocalStorage::open(&folder.path().join("whit.db")).unwrap();
        assert_eq!(storage.functions().await.unwrap(), before);
        let anew = id("default", "gone");
        let anew = storage.add_revision(&anew, revision(2), true, Expected::Absent).await.unwrap();
        assert_eq!(anew.revisions[0].number, RevisionNumber(2), "also after a restart");
    }

    #[tokio::test]
    async fn the_settings_that_durability_needs_are_on() {
        let (folder, storage) = storage();
        let settings = storage
            .run("read the settings", |connection| {
                let journal: String =
                    connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
                let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
                Ok((journal, number("synchronous")?, number("foreign_keys")?))
            })
            .await
            .unwrap();
        assert_eq!(settings, ("wal".to_owned(), 2, 1));
        for file in ["whit.db", "whit.db-wal", "whit.db-shm"] {
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused_by_name() {
        let (folder, storage) = storage();
        storage.close();
        let path = folder.path().join("whit.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = LocalStorage::open(&path).unwrap_err();
        let source = error.source().unwrap();
        assert!(source.is::<NewerSchema>(), "{source}");
        assert!(source.to_string().contains("version 99"), "{source}");
        std::fs::write(&path, "not a database at all, but quite some text").unwrap();
        assert!(LocalStorage::open(&path).is_err());
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_changes_nothing() {
        let (_folder, storage) = storage();
        let id = id("default", "full");
        storage.add_revision(&id, revision(1), true, Expected::Any).await.unwrap();
        let before = storage.functions().await.unwrap();
        let limit = |pages: u32| {
            storage.run("limit the database", move |connection| {
                connection.pragma_update(None, "max_page_count", pages)?;
                Ok(())
            })
        };
        limit(1).await.unwrap();
        let mut large = revision(2);
        large.spec.env.insert("LARGE".into(), "x".repeat(50_000));
        let added = storage.add_revision(&id, large.clone(), true, Expected::Any).await;
        assert!(matches!(added, Err(StorageError::Full(_))), "{added:?}");
        assert_eq!(storage.functions().await.unwrap(), before);
        limit(1_000_000).await.unwrap();
        storage.add_revision(&id, large, true, Expected::Any).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_tear_its_write() {
        let (_folder, storage) = storage();
        let id = id("default", "left");
        {
            let add = storage.add_revision(&id, revision(1), true, Expected::Any);
            futures::pin_mut!(add);
            let _ = futures::poll!(add);
        }
        let functions = storage.functions().await.unwrap();
        assert_eq!(functions[0].active, Some(RevisionNumber(1)));
    }

    #[tokio::test]
    async fn closing_finishes_what_was_accepted_and_refuses_the_rest() {
        let (folder, storage) = storage();
        let id = id("default", "closing");
        {
            let add = storage.add_revision(&id, revision(1), true, Expected::Any);
            futures::pin_mut!(add);
            let _ = futures::poll!(add);
            storage.close();
        }
        let error = storage.functions().await.unwrap_err();
        assert!(error.source().unwrap().to_string().contains("closed"));
        storage.close();
        let storage = LocalStorage::open(&folder.path().join("whit.db")).unwrap();
        assert_eq!(storage.functions().await.unwrap().len(), 1);
    }
}
