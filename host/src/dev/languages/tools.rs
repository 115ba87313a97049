//! What every recipe does: look at a folder, run a tool, put files in place.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildError, BuildRequest};

/// The names of the files in a source folder, its subfolders left out.
pub(super) struct FileNames(BTreeSet<String>);

impl FileNames {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The files with one of these extensions, sorted.
    pub(super) fn with_extension<'a>(
        &'a self,
        extensions: &'a [&str],
    ) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(String::as_str).filter(move |name| {
            name.rsplit_once('.')
                .is_some_and(|(stem, end)| !stem.is_empty() && extensions.contains(&end))
        })
    }
}

/// The one that there is; none if there are more.
pub(super) fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let one = all.next();
    one.filter(|_| all.next().is_none())
}

/// A source that is one file counts as a folder with that file alone.
pub(super) fn file_names(source: &Path) -> Result<FileNames, BuildError> {
    let metadata = fs::metadata(source).map_err(BuildError::file("read", source))?;
    if metadata.is_file() {
        let name = source.file_name().and_then(OsStr::to_str);
        return Ok(FileNames(name.map(str::to_owned).into_iter().collect()));
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(source).map_err(BuildError::file("read", source))? {
        let entry = entry.map_err(BuildError::file("read", source))?;
        if entry.path().is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(FileNames(names))
}

/// The source files of a request, by their extensions.
pub(super) fn sources(request: &BuildRequest, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(names) = file_names(&request.source) else { return Vec::new() };
    let folder = folder(&request.source);
    names.with_extension(extensions).map(|name| folder.join(name)).collect()
}

/// The folder that a build runs in: the source itself, or the one it lies in.
pub(super) fn folder(source: &Path) -> &Path {
    match source.parent() {
        Some(parent) if source.is_file() => parent,
        _ => source,
    }
}

/// The nearest file of this name in the source's folder or above it, up to the
/// request's root.
pub(super) fn nearest(request: &BuildRequest, name: &str) -> Option<PathBuf> {
    let folders = folder(&request.source).ancestors();
    let inside = folders.take_while(|folder| folder.starts_with(&request.root));
    inside.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Files that text includes by paths in quotes behind one of these words, and
/// those that they include, wherever they are; `sources` themselves left out.
/// Compilers know better, but not while there is a mistake in one of the files.
pub(super) fn included(sources: Vec<PathBuf>, words: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = sources.clone();
    let mut next = 0;
    while let Some(file) = found.get(next).cloned() {
        next += 1;
        let text = fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let folder = file.parent().unwrap_or(Path::new("/"));
        for word in words {
            for (start, word) in text.match_indices(word) {
                let rest = text.get(start + word.len()..).unwrap_or_default();
                let path = rest.trim_start_matches([' ', '\t', '(']).strip_prefix('"');
                let path = path.and_then(|path| path.split(['"', '\n']).next());
                let included = path.and_then(|path| folder.join(path).canonicalize().ok());
                found.extend(included.filter(|path| path.is_file() && !found.contains(path)));
            }
        }
    }
    found.split_off(sources.len())
}

/// Makes the folders of a request and its paths absolute, because tools run
/// elsewhere. A component of an earlier build is removed: what is there
/// afterwards is from this one.
pub(super) fn prepare(request: &BuildRequest) -> Result<BuildRequest, BuildError> {
    fs::create_dir_all(&request.work).map_err(BuildError::file("make", &request.work))?;
    if let Some(parent) = request.component.parent() {
        fs::create_dir_all(parent).map_err(BuildError::file("make", parent))?;
    }
    match fs::remove_file(&request.component) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(BuildError::file("replace", &request.component)(error));
        }
        _ => {}
    }
    absolute_paths(request)
}

pub(super) fn absolute_paths(request: &BuildRequest) -> Result<BuildRequest, BuildError> {
    Ok(BuildRequest {
        language: request.language,
        engine: request.engine,
        source: absolute(&request.source)?,
        root: absolute(&request.root)?,
        work: absolute(&request.work)?,
        component: absolute(&request.component)?,
        toolchains: request.toolchains.clone(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, BuildError> {
    std::path::absolute(path).map_err(BuildError::file("resolve", path))
}

/// Runs a tool to its end, handing on each line of its stdout and stderr in
/// the order they were written.
pub(super) fn run(
    tool: &str,
    command: &mut Command,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let not_started = |source| BuildError::ToolNotStarted { tool: tool.to_owned(), source };
    let (reader, writer) = io::pipe().map_err(not_started)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(not_started)?).stderr(writer);
    let mut child = command.spawn().map_err(not_started)?;
    // The command keeps its ends of the pipe open; without this the read below
    // would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut said = String::new();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader);
    while reader.read_until(b'\n', &mut line).map_err(not_started)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        output(text);
        said.push_str(text);
        said.push('\n');
        line.clear();
    }
    let status = child.wait().map_err(not_started)?;
    if status.success() {
        return Ok(());
    }
    Err(BuildError::ToolFailed { tool: tool.to_owned(), status: status.to_string(), output: said })
}

/// What a tool prints when asked something; `None` when it is not there or
/// says no. For questions, not for work: nobody sees its complaints.
pub(super) fn ask(command: &mut Command) -> Option<String> {
    let answer = command.stdin(Stdio::null()).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

/// Writes a file unless it holds these bytes already: tools that compare
/// modification times then see no change.
pub(super) fn write_if_changed(path: &Path, content: &[u8]) -> Result<(), BuildError> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(BuildError::file("make", parent))?;
    }
    fs::write(path, content).map_err(BuildError::file("write", path))
}

/// A file that is carried in the binary: its path below some folder, its bytes.
pub(super) type Embedded = (&'static str, &'static str);

pub(super) fn write_all(folder: &Path, files: &[Embedded]) -> Result<(), BuildError> {
    files
        .iter()
        .try_for_each(|(name, content)| write_if_changed(&folder.join(name), content.as_bytes()))
}

/// The WIT of `wasi:http/proxy@0.2.12` with all it depends on.
pub(super) const WIT_0_2: [Embedded; 7] = [
    ("http.wit", include_str!("../../../../guest-sdk/wit/p2/http.wit")),
    ("deps/cli.wit", include_str!("../../../../guest-sdk/wit/p2/deps/cli.wit")),
    ("deps/clocks.wit", include_str!("../../../../guest-sdk/wit/p2/deps/clocks.wit")),
    ("deps/filesystem.wit", include_str!("../../../../guest-sdk/wit/p2/deps/filesystem.wit")),
    ("deps/io.wit", include_str!("../../../../guest-sdk/wit/p2/deps/io.wit")),
    ("deps/random.wit", include_str!("../../../../guest-sdk/wit/p2/deps/random.wit")),
    ("deps/sockets.wit", include_str!("../../../../guest-sdk/wit/p2/deps/sockets.wit")),
];

/// The WIT of `wasi:http@0.3.0` with all it depends on.
pub(super) const WIT_0_3: [Embedded; 6] = [
    ("http.wit", include_str!("../../../../guest-sdk/wit/p3/http.wit")),
    ("deps/cli.wit", include_str!("../../../../guest-sdk/wit/p3/deps/cli.wit")),
    ("deps/clocks.wit", include_str!("../../../../guest-sdk/wit/p3/deps/clocks.wit")),
    ("deps/filesystem.wit", include_str!("../../../../guest-sdk/wit/p3/deps/filesystem.wit")),
    ("deps/random.wit", include_str!("../../../../guest-sdk/wit/p3/deps/random.wit")),
    ("deps/sockets.wit", include_str!("../../../../guest-sdk/wit/p3/deps/sockets.wit")),
];
