//! The two files of one function's log: NDJSON, the current one and the one
//! before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::ids::{FunctionId, InvocationId};
use crate::model::invocation::LogLine;

const CURRENT: &str = ".log";
const OLD: &str = ".old.log";

/// The first part of a function's file names. A hash: no name that somebody
/// chose ever becomes a path.
fn stem(function: &FunctionId) -> String {
    // Names have no '/': different functions, different texts.
    let text = format!("{}/{}", function.tenant, function.name);
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Where one function's lines are kept. Callers see to it that there is one
/// writer at a time.
#[derive(Debug)]
pub(super) struct LogFile {
    current: PathBuf,
    old: PathBuf,
    bytes_max: u64,
    /// The end of the current file was looked at since the start.
    mended: bool,
    /// The last write failed: the files do not have all lines.
    pub(super) failed: bool,
}

impl LogFile {
    pub(super) fn new(folder: &Path, function: &FunctionId, bytes_max: u64) -> Self {
        let stem = stem(function);
        Self {
            current: folder.join(format!("{stem}{CURRENT}")),
            old: folder.join(format!("{stem}{OLD}")),
            bytes_max,
            mended: false,
            failed: false,
        }
    }

    /// Appends lines, rotating when the current file is full.
    ///
    /// # Errors
    /// When the disk is full or fails: some of the lines may be there then.
    pub(super) fn append(&mut self, lines: &[Arc<LogLine>]) -> io::Result<()> {
        let result = self.try_append(lines);
        self.failed = result.is_err();
        if self.failed {
            // A part of a line may be there.
            self.mended = false;
        }
        result
    }

    fn try_append(&mut self, lines: &[Arc<LogLine>]) -> io::Result<()> {
        let mut file = self.open()?;
        let mut bytes = file.metadata()?.len();
        let mut buffer = Vec::new();
        for line in lines {
            let start = buffer.len();
            serde_json::to_writer(&mut buffer, line)?;
            buffer.push(b'\n');
            let grown = bytes + u64::try_from(buffer.len()).unwrap_or(u64::MAX);
            if grown > self.bytes_max && bytes + u64::try_from(start).unwrap_or(u64::MAX) > 0 {
                let next = buffer.split_off(start);
                file.write_all(&buffer)?;
                fs::rename(&self.current, &self.old)?;
                (file, bytes, buffer) = (self.open()?, 0, next);
            }
        }
        file.write_all(&buffer)
    }

    fn open(&mut self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&self.current)?;
        if !self.mended && file.metadata()?.len() > 0 {
            // A crash may have torn the last line: the next one begins anew.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        self.mended = true;
        Ok(file)
    }

    /// The last lines, oldest first; what can not be read as one is left out.
    pub(super) fn tail(&self, limit: usize, invocation: Option<InvocationId>) -> Vec<LogLine> {
        let digits = invocation.map(|invocation| invocation.to_string());
        let mut lines: Vec<LogLine> = Vec::new();
        for path in [&self.current, &self.old] {
            let content = match fs::read(path) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a log was not read");
                    continue;
                }
            };
            let found = content
                .split(|byte| *byte == b'\n')
                .rev()
                // Most lines are of other invocations: not worth parsing.
                .filter(|line| {
                    digits.as_ref().is_none_or(|digits| {
                        memchr::memmem::find(line, digits.as_bytes()).is_some()
                    })
                })
                .filter_map(|line| serde_json::from_slice::<LogLine>(line).ok())
                .filter(|line| invocation.is_none_or(|wanted| wanted == line.invocation));
            lines.extend(found.take(limit.saturating_sub(lines.len())));
        }
        lines.reverse();
        lines
    }

    /// Removes both files.
    pub(super) fn remove(&mut self) {
        for path in [&self.current, &self.old] {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a log was not removed");
        }
        _ => {}
    }
}

/// Removes the logs of functions that are not in `used`.
///
/// # Errors
/// When the folder can not be read.
pub(super) fn retain<'a>(
    folder: &Path,
    used: impl Iterator<Item = &'a FunctionId>,
) -> io::Result<()> {
    let used: std::collections::HashSet<String> = used.map(stem).collect();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(OLD).or_else(|| name.strip_suffix(CURRENT));
        if stem.is_some_and(|stem| stem.len() == 64 && !used.contains(stem)) {
            remove(&entry.path());
        }
    }
    Ok(())
}
