//! A folder of files as a function: the guest of `guest-sdk/static`, with the
//! files behind its memory.
//!
//! The result is an ordinary WASI command. It needs no support from the host,
//! is deployed and rolled back like any other function, and runs elsewhere too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Built from `static.c` beside it; a test builds it anew and compares.
const GUEST: &[u8] = include_bytes!("../../../guest-sdk/static/static.wasm");
/// Where the guest keeps the place of its table.
const MARK: &[u8; 16] = b"whit:file-table\0";

/// Most bytes of all files together: what a host takes as a component.
pub const BYTES_MAX: u64 = 96 << 20;

const PAGE_BYTES: usize = 64 << 10;
/// Bytes of a table's entry: four times an address and a length.
const ENTRY_BYTES: usize = 32;

const MEMORY_SECTION: u8 = 5;
const DATA_SECTION: u8 = 11;
const DATA_COUNT_SECTION: u8 = 12;

/// Why a folder could not be made a function.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// A file could not be read.
    #[error("read {path}: {source}")]
    File {
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files are too large to be held in a component.
    #[error("the files are {bytes} bytes together; at most {BYTES_MAX} can be served this way")]
    TooLarge {
        /// Their size.
        bytes: u64,
    },
    /// The guest is not what this file was written for.
    #[error("the guest for files is damaged")]
    Guest,
}

/// What the function of a folder needs more of than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// All files together, with their names.
    pub bytes: u64,
    /// The largest file.
    pub largest_bytes: u64,
}

/// The sizes of the files in a folder; those that vanish meanwhile are left out.
#[must_use]
pub fn sizes(folder: &Path) -> Sizes {
    let mut sizes = Sizes { bytes: 0, largest_bytes: 0 };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => {
                    sizes.bytes += metadata.len() + entry.path().as_os_str().len() as u64;
                    sizes.largest_bytes = sizes.largest_bytes.max(metadata.len());
                }
                Err(_) => {}
            }
        }
    }
    sizes
}

/// Makes a component of all files below a folder, but for hidden ones.
///
/// # Errors
/// When a file can not be read, or they are too many bytes.
pub fn component(folder: &Path) -> Result<Vec<u8>, StaticError> {
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    collect(folder, "", &mut files, &mut bytes)?;
    pack(&files).ok_or(StaticError::Guest)
}

fn collect(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
    bytes: &mut u64,
) -> Result<(), StaticError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| StaticError::File { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // `.well-known` is the one hidden folder that is meant to be seen.
        if name.starts_with('.') && name != ".well-known" || name.ends_with('~') {
            continue;
        }
        let (path, served) = (entry.path(), format!("{prefix}/{name}"));
        let metadata = match fs::metadata(&path) {
            // Gone between the two looks, or a link to nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(failed(&path))?,
        };
        if metadata.is_dir() {
            // Not through links, which may lead back here.
            if !path.is_symlink() {
                collect(&path, &served, files, bytes)?;
            }
            continue;
        }
        *bytes += metadata.len();
        if *bytes > BYTES_MAX {
            return Err(StaticError::TooLarge { bytes: *bytes });
        }
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            content => {
                files.insert(served, content.map_err(failed(&path))?);
            }
        }
    }
    Ok(())
}

/// The guest with these files in it; `None` only if the guest is damaged.
fn pack(files: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let sections = sections(GUEST)?;
    let memory = sections.iter().find(|section| section.id == MEMORY_SECTION)?;
    // One memory without a maximum: 1, 0, its pages.
    let [1, 0, pages @ ..] = memory.content else { return None };
    let base = number(&mut &*pages)? as usize * PAGE_BYTES;
    let blob = blob(files, base)?;
    let pages = (base + blob.len()).div_ceil(PAGE_BYTES);

    let mut module = GUEST.get(..8)?.to_vec();
    for section in sections {
        match section.id {
            MEMORY_SECTION => {
                let mut content = vec![1, 0];
                push_number(&mut content, pages);
                push_section(&mut module, section.id, &content);
            }
            // Says how many segments follow, for operations that the guest does
            // not use: optional, and wrong from now on.
            DATA_COUNT_SECTION => {}
            DATA_SECTION => {
                let mut rest = section.content;
                let count = number(&mut rest)?;
                let mut content = Vec::with_capacity(rest.len() + blob.len() + 32);
                push_number(&mut content, count as usize + 1);
                let at = content.len() + rest.windows(16).position(|found| found == MARK)?;
                content.extend_from_slice(rest);
                let place = content.get_mut(at + 16..at + 24)?;
                place.copy_from_slice(&words([base, files.len()])?);
                // A segment of memory 0 at a constant address.
                content.extend_from_slice(&[0, 0x41]);
                push_signed(&mut content, base);
                content.push(0x0b);
                push_number(&mut content, blob.len());
                content.extend_from_slice(&blob);
                push_section(&mut module, section.id, &content);
            }
            _ => push_section(&mut module, section.id, section.content),
        }
    }
    Some(module)
}

/// The table, and behind it what it points to.
fn blob(files: &BTreeMap<String, Vec<u8>>, base: usize) -> Option<Vec<u8>> {
    let mut table = Vec::with_capacity(files.len() * ENTRY_BYTES);
    let mut data = Vec::new();
    let data_base = base + files.len() * ENTRY_BYTES;
    for (path, content) in files {
        let hash = blake3::hash(content).to_hex();
        let etag = format!("\"{}\"", hash.get(..20)?);
        for piece in [path.as_bytes(), content_type(path).as_bytes(), etag.as_bytes(), content] {
            table.extend_from_slice(&words([data_base + data.len(), piece.len()])?);
            data.extend_from_slice(piece);
        }
    }
    table.extend_from_slice(&data);
    Some(table)
}

fn words(values: [usize; 2]) -> Option<[u8; 8]> {
    let [first, second] = values.map(|value| u32::try_from(value).ok());
    let mut bytes = [0; 8];
    bytes.get_mut(..4)?.copy_from_slice(&first?.to_le_bytes());
    bytes.get_mut(4..)?.copy_from_slice(&second?.to_le_bytes());
    Some(bytes)
}

struct Section<'a> {
    id: u8,
    content: &'a [u8],
}

fn sections(module: &[u8]) -> Option<Vec<Section<'_>>> {
    let mut rest = module.get(8..)?;
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        rest = after;
        let bytes = number(&mut rest)? as usize;
        let (content, after) = rest.split_at_checked(bytes)?;
        sections.push(Section { id, content });
        rest = after;
    }
    Some(sections)
}

fn push_section(module: &mut Vec<u8>, id: u8, content: &[u8]) {
    module.push(id);
    push_number(module, content.len());
    module.extend_from_slice(content);
}

/// Reads an unsigned LEB128 number.
fn number(from: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn push_number(to: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return to.push(byte);
        }
        to.push(byte | 0x80);
    }
}

/// As [`push_number`], for an operand that is read as signed: its last byte's
/// sixth bit would be the sign.
fn push_signed(to: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 && byte & 0x40 == 0 {
            return to.push(byte);
        }
        to.push(byte | 0x80);
    }
}

/// The media type of a file, by its ending.
fn content_type(path: &str) -> &'static str {
    let end = path.rsplit_once('.').map_or("", |(_, end)| end).to_ascii_lowercase();
    match end.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "text" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        "xml" => "application/xml",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "rss" => "application/rss+xml",
        "atom" => "application/atom+xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "bmp" => "image/bmp",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" => "audio/ogg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "m4a" => "audio/mp4",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "ogv" => "video/ogg",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "tar" => "application/x-tar",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_becomes_a_module_that_holds_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("index.html"), "<p>hello").unwrap();
        fs::write(folder.path().join("sub/a.txt"), "text of a").unwrap();
        fs::write(folder.path().join(".secret"), "hidden").unwrap();
        let module = component(folder.path()).unwrap();
        // The text form is made only of a module that can be read whole.
        let has = |text: &[u8]| module.windows(text.len()).any(|found| found == text);
        assert!(has(b"<p>hello") && has(b"/sub/a.txt") && has(b"text/html"));
        assert!(!has(b"hidden"));
        assert_eq!(component(folder.path()).unwrap(), module, "the same files, the same function");
        assert_eq!(sizes(folder.path()).largest_bytes, 9);
    }

    #[test]
    fn numbers_are_leb128() {
        for value in [0, 1, 63, 64, 127, 128, 1_245_184, 100 << 20] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, value);
            assert_eq!(number(&mut bytes.as_slice()), Some(u32::try_from(value).unwrap()));
        }
        let mut signed = Vec::new();
        push_signed(&mut signed, 64);
        assert_eq!(signed, [0xc0, 0], "64 in one byte would be -64");
    }
}
