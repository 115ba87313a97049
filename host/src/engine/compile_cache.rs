//! The compile cache: machine code of single functions, shared by all compiles.
//!
//! Most of a JavaScript or Python component is the interpreter, the same in
//! every one: the second compiles in a fraction of the time. Cranelift makes
//! the keys, hashes that cover a function's code, the flags and its own version.
//!
//! Two files: values one after the other, and an index of fixed-size records.
//! A compile child opens them before it confines itself and appends what it
//! made at its end, under a lock. Nothing here has to be durable: a value has a
//! checksum, and what is torn counts as absent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

/// Size of all values at which the cache starts anew, in bytes.
const VALUES_BYTES_MAX: u64 = 512 << 20;
/// Largest value, in bytes: no function compiles to more.
const VALUE_BYTES_MAX: u32 = 64 << 20;
/// Key, offset, length and checksum.
const RECORD_BYTES: usize = 32 + 8 + 4 + 8;

type Key = [u8; 32];

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u32,
    checksum: u64,
}

/// An open cache.
#[derive(Debug)]
pub struct CompileCache {
    index: File,
    values: File,
    known: HashMap<Key, Place>,
    made: Mutex<Vec<(Key, Vec<u8>)>>,
}

fn checksum(value: &[u8]) -> u64 {
    let hash = blake3::hash(value);
    u64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}

impl CompileCache {
    /// Opens the cache in `folder`, which must exist; makes it if it is not there.
    ///
    /// # Errors
    /// When the files can not be opened or the index not read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let open = |name: &str| {
            let path = folder.join(name);
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (mut index, values) = (open("index")?, open("values")?);
        index.lock_shared()?;
        let mut records = Vec::new();
        let read = index.read_to_end(&mut records);
        index.unlock()?;
        read?;
        let known = records.chunks_exact(RECORD_BYTES).filter_map(parse).collect();
        Ok(Self { index, values, known, made: Mutex::default() })
    }

    /// Appends what was made since it was opened.
    ///
    /// # Errors
    /// When the files can not be written; the cache stays usable.
    pub fn save(&self) -> io::Result<()> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        if made.is_empty() {
            return Ok(());
        }
        self.index.lock()?;
        let saved = self.append(&made);
        self.index.unlock()?;
        saved
    }

    fn append(&self, made: &[(Key, Vec<u8>)]) -> io::Result<()> {
        let (mut index, mut values) = (&self.index, &self.values);
        if values.metadata()?.len() > VALUES_BYTES_MAX {
            index.set_len(0)?;
            values.set_len(0)?;
        }
        let mut offset = values.seek(SeekFrom::End(0))?;
        let mut records = Vec::with_capacity(made.len() * RECORD_BYTES);
        let mut bytes = Vec::new();
        for (key, value) in made {
            let Ok(length) = u32::try_from(value.len()) else {
                continue;
            };
            records.extend_from_slice(key);
            records.extend_from_slice(&offset.to_le_bytes());
            records.extend_from_slice(&length.to_le_bytes());
            records.extend_from_slice(&checksum(value).to_le_bytes());
            bytes.extend_from_slice(value);
            offset += u64::from(length);
        }
        values.write_all(&bytes)?;
        // A record that was cut by a crash would shift all that follow.
        let end = index.metadata()?.len();
        let whole = end - end % RECORD_BYTES as u64;
        index.set_len(whole)?;
        index.seek(SeekFrom::Start(whole))?;
        index.write_all(&records)
    }
}

fn parse(record: &[u8]) -> Option<(Key, Place)> {
    let (key, rest) = record.split_first_chunk::<32>()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    let place = Place {
        offset: u64::from_le_bytes(*offset),
        bytes: u32::from_le_bytes(*bytes),
        checksum: u64::from_le_bytes(*rest.first_chunk()?),
    };
    (place.bytes <= VALUE_BYTES_MAX).then_some((*key, place))
}

impl CacheStore for CompileCache {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let place = self.known.get(key)?;
        let mut value = vec![0; place.bytes as usize];
        self.values.read_exact_at(&mut value, place.offset).ok()?;
        (checksum(&value) == place.checksum).then_some(Cow::Owned(value))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Ok(key) = key.try_into() else {
            return false;
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push((key, value));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = ([1; 32], [2; 32]);
        let cache = CompileCache::open(folder.path()).unwrap();
        assert!(cache.insert(&first, b"code".to_vec()));
        assert!(cache.insert(&second, vec![7; 100_000]));
        assert!(!cache.insert(b"short key", Vec::new()));
        cache.save().unwrap();

        let cache = CompileCache::open(folder.path()).unwrap();
        assert_eq!(cache.get(&first).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get(&second).map(|value| value.len()), Some(100_000));
        assert!(cache.get(&[3; 32]).is_none());

        // A torn record at the end, and a changed value.
        let index = folder.path().join("index");
        let mut torn = std::fs::read(&index).unwrap();
        torn.extend_from_slice(&[9; 20]);
        std::fs::write(&index, torn).unwrap();
        cache.values.write_all_at(b"X", 1).unwrap();
        let cache = CompileCache::open(folder.path()).unwrap();
        assert!(cache.get(&first).is_none());
        assert!(cache.insert(&[4; 32], b"after".to_vec()));
        cache.save().unwrap();
        let cache = CompileCache::open(folder.path()).unwrap();
        assert_eq!(cache.get(&[4; 32]).as_deref(), Some(&b"after"[..]));
        assert!(cache.get(&second).is_some());
    }
}
