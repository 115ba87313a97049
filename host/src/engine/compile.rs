//! Compiling an upload: in a child process that can be killed.
//!
//! Validation and compilation of hostile input may use a thousand times the
//! input's size in memory, and wasmtime promises nothing against that. So the
//! host starts itself again ([`super::compile_child`]) with an open component
//! as standard input and an empty file as standard output, and bounds its
//! memory, CPU time and wall time. What dies is the child.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use super::artifact::Artifacts;
use super::classify::ACCEPTED;
use super::{Engines, Fingerprints};
use crate::model::function::GuestKind;
use crate::model::ids::Digest;
use crate::storage::StorageError;

/// The hidden subcommand under which `main` becomes a compile child.
pub const CHILD_COMMAND: &str = "compile-component";
/// Most bytes of a child's report; the rest is dropped.
const REPORT_BYTES_MAX: u64 = 256 << 10;
/// Wall time of a compile for each second of CPU time that it may use. A child is
/// nice, and on a busy machine gets what the others leave.
const WALL_TIME_PER_CPU_TIME: u32 = 4;

/// Bounds of one compile.
#[derive(Debug, Clone, Copy)]
pub struct CompileBounds {
    /// Address space of the child, in bytes.
    pub memory_bytes_max: u64,
    /// CPU time of the child, on all its threads. Its wall time is bounded too, by
    /// a multiple.
    pub time_max: Duration,
    /// Children at the same time.
    pub children_max: usize,
    /// Threads of a child.
    pub threads: u32,
}

/// Where compiles keep what is not an artifact. Both must exist.
#[derive(Debug, Clone)]
pub struct CompileFolders {
    /// Of [`super::compile_cache`].
    pub cache: PathBuf,
    /// For files without a name, gone with the process.
    pub scratch: PathBuf,
}

/// Why an upload did not become an artifact.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Not WebAssembly in binary form.
    #[error("this is {found}; send {ACCEPTED}")]
    Unsupported {
        /// What it is instead.
        found: String,
    },
    /// WebAssembly that does not validate.
    #[error("the component is invalid: {why}")]
    Invalid {
        /// The validator's words.
        why: String,
    },
    /// Nothing that could be called.
    #[error("nothing here can be called: it exports {}; send {ACCEPTED}", listed(.exports))]
    NoHandler {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It needs what this host does not offer.
    #[error("it imports what this host does not offer: {}", listed(.imports))]
    MissingImports {
        /// The imports, by name.
        imports: Vec<String>,
    },
    /// Compiling it met a bound.
    #[error("compiling it was stopped: it used up its {limit}")]
    TooCostly {
        /// What was used up.
        limit: &'static str,
    },
    /// The artifact could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The child could not be run, or failed in a way that is our bug.
    #[error("the compiler failed: {why}")]
    Failed {
        /// What happened.
        why: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What is known of a component after its compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// How it is called.
    pub kind: GuestKind,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
}

/// What a child writes, as one line of JSON, to its standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Compiled(Compiled),
    Unsupported { found: String },
    Invalid { why: String },
    NoHandler { exports: Vec<String> },
    MissingImports { imports: Vec<String> },
}

/// Runs compile children.
#[derive(Debug)]
pub struct Compiler {
    artifacts: Arc<Artifacts>,
    fingerprints: Arc<Fingerprints>,
    folders: CompileFolders,
    permits: Semaphore,
    bounds: CompileBounds,
}

impl Compiler {
    /// A compiler whose artifacts the engines of this process can load.
    #[must_use]
    pub fn new(
        engines: &Engines,
        artifacts: Arc<Artifacts>,
        folders: CompileFolders,
        bounds: CompileBounds,
    ) -> Self {
        Self {
            artifacts,
            fingerprints: Arc::clone(engines.fingerprints()),
            folders,
            permits: Semaphore::new(bounds.children_max),
            bounds,
        }
    }

    /// Compiles the component in `path` and keeps its artifact under `digest`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub async fn compile(&self, path: &Path, digest: Digest) -> Result<Compiled, CompileError> {
        let io_failed = |error| StorageError::from_io("compile the component", error);
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let component = File::open(path).map_err(io_failed)?;
        let mut code = tempfile::tempfile_in(&self.folders.scratch).map_err(io_failed)?;
        let report =
            self.run_child(digest, component, code.try_clone().map_err(io_failed)?).await?;
        let compiled = match report {
            Report::Compiled(compiled) => compiled,
            Report::Unsupported { found } => return Err(CompileError::Unsupported { found }),
            Report::Invalid { why } => return Err(CompileError::Invalid { why }),
            Report::NoHandler { exports } => return Err(CompileError::NoHandler { exports }),
            Report::MissingImports { imports } => {
                return Err(CompileError::MissingImports { imports });
            }
        };
        let fingerprint = self.fingerprints.of(compiled.kind).to_owned();
        let artifacts = Arc::clone(&self.artifacts);
        tokio::task::spawn_blocking(move || artifacts.write(digest, &fingerprint, &mut code))
            .await
            .map_err(|error| CompileError::Failed { why: error.to_string() })??;
        Ok(compiled)
    }

    async fn run_child(
        &self,
        digest: Digest,
        component: File,
        code: File,
    ) -> Result<Report, CompileError> {
        let failed = |why: String| CompileError::Failed { why };
        // Not `current_exe`: this one is right even after the file was replaced.
        let mut child = tokio::process::Command::new("/proc/self/exe")
            .arg(CHILD_COMMAND)
            .arg(self.bounds.memory_bytes_max.to_string())
            .arg(self.bounds.time_max.as_secs().max(1).to_string())
            .arg(&self.folders.cache)
            .arg(self.bounds.threads.to_string())
            .arg(digest.hex())
            .env_clear()
            // Read by the thread pool that wasmtime compiles on.
            .env("RAYON_NUM_THREADS", self.bounds.threads.to_string())
            // The allocator reserves a GiB of addresses at once unless told
            // otherwise (here in KiB), and the child's bound is on addresses.
            .env("MIMALLOC_ARENA_RESERVE", "32768")
            .stdin(component)
            .stdout(code)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("it can not be started: {error}")))?;
        let stderr = child.stderr.take().ok_or_else(|| failed("it has no stderr".into()))?;
        let mut report = Vec::new();
        let run = async {
            stderr.take(REPORT_BYTES_MAX).read_to_end(&mut report).await?;
            child.wait().await
        };
        let wall_time_max = self.bounds.time_max.saturating_mul(WALL_TIME_PER_CPU_TIME);
        match tokio::time::timeout(wall_time_max, run).await {
            Err(_) => Err(CompileError::TooCostly { limit: "wall time" }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(status)) => read_report(status, &report),
        }
    }
}

fn read_report(status: ExitStatus, report: &[u8]) -> Result<Report, CompileError> {
    use std::os::unix::process::ExitStatusExt;
    // Its last line, but for what the runtime of an instrumented build adds.
    let mut lines = report.rsplit(|byte| *byte == b'\n');
    if status.success()
        && let Some(report) = lines.find_map(|line| serde_json::from_slice(line).ok())
    {
        return Ok(report);
    }
    let text = String::from_utf8_lossy(report);
    match status.signal() {
        // SIGXCPU, and SIGKILL when the hard limit follows it.
        Some(24 | 9) => Err(CompileError::TooCostly { limit: "CPU time" }),
        // SIGABRT is how Rust ends when memory is refused; SIGSEGV is a stack
        // overflow in deeply nested input.
        Some(6) => Err(CompileError::TooCostly { limit: "memory" }),
        Some(11) => Err(CompileError::TooCostly { limit: "stack" }),
        // A panic of the compiler on strange input harms only the child.
        _ if status.code() == Some(101) => Err(CompileError::Invalid {
            why: format!("the compiler gave up on it: {}", text.trim()),
        }),
        _ => Err(CompileError::Failed { why: format!("{status}: {}", text.trim()) }),
    }
}
