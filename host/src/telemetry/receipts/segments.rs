//! The files that receipts are kept in: `<16-digit number>.log`, one growing,
//! the others sealed, the oldest deleted when all together are too large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::encoding::{Records, SEGMENT_MAGIC};
use crate::model::ids::InvocationId;

/// First bytes of a seal. Read as a record they are longer than any may be, so
/// reading records ends here.
const SEAL_MAGIC: &[u8; 8] = b"WHITSEAL";
/// Magic, lowest id, highest id, checksum of the ids.
const SEAL_BYTES: usize = 8 + 16 + 16 + 4;

/// The lowest and the highest id of some receipts. Receipts are written when
/// invocations end, ids begin with when they began: ranges overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) lowest: InvocationId,
    pub(super) highest: InvocationId,
}

impl IdRange {
    pub(super) fn of(id: InvocationId) -> Self {
        Self { lowest: id, highest: id }
    }

    pub(super) fn including(self, other: Self) -> Self {
        Self { lowest: self.lowest.min(other.lowest), highest: self.highest.max(other.highest) }
    }

    fn seal(self) -> Vec<u8> {
        let ids = [self.lowest.0.to_be_bytes(), self.highest.0.to_be_bytes()].concat();
        let checksum = crc32fast::hash(&ids).to_le_bytes();
        [SEAL_MAGIC.as_slice(), &ids, &checksum].concat()
    }

    fn from_seal(seal: &[u8]) -> Option<Self> {
        let ids = seal.strip_prefix(SEAL_MAGIC)?;
        let (lowest, rest) = ids.split_first_chunk::<16>()?;
        let (highest, checksum) = rest.split_first_chunk::<16>()?;
        let intact = crc32fast::hash(ids.get(..32)?).to_le_bytes() == checksum;
        let id = |bytes: &[u8; 16]| InvocationId(u128::from_be_bytes(*bytes));
        intact.then(|| Self { lowest: id(lowest), highest: id(highest) })
    }
}

/// What is known of one file without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    number: u64,
    /// Whole records end here, at the latest.
    bytes: u64,
    /// None where it has no receipt, or none that this version can read.
    pub(super) ids: Option<IdRange>,
}

/// All segments, oldest first: written by the receipts' thread, read by queries.
#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    segments: Mutex<Vec<Segment>>,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments as they are now.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.lock().clone()
    }

    /// A segment's content; empty where it was deleted meanwhile.
    pub(super) fn read(&self, segment: &Segment) -> Vec<u8> {
        let path = path(&self.folder, segment.number);
        let mut content = Vec::new();
        let read = File::open(&path)
            // Not what is being written at this moment.
            .and_then(|file| file.take(segment.bytes).read_to_end(&mut content));
        match read {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "receipts were not read");
            }
            _ => {}
        }
        content
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.log"))
}

/// Appends to the segments.
pub(super) struct Writer {
    index: Arc<Index>,
    segment_bytes_max: u64,
    total_bytes_max: u64,
    /// The growing file; its segment is the last of the index.
    file: Option<File>,
}

impl Writer {
    /// Reads what is there, cuts what a crash tore, and goes on with the last
    /// segment unless it is sealed.
    ///
    /// # Errors
    /// When the folder can not be made or read.
    pub(super) fn open(
        folder: &Path,
        segment_bytes_max: u64,
        total_bytes_max: u64,
    ) -> io::Result<(Self, Arc<Index>)> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
            let digits = digits.filter(|digits| digits.len() == 16);
            numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let (mut segments, mut file) = (Vec::new(), None);
        for number in numbers {
            let (segment, growing) = open_segment(&path(folder, number), number)?;
            segments.push(segment);
            file = growing;
        }
        let index = Index { folder: folder.to_owned(), segments: Mutex::new(segments) };
        let index = Arc::new(index);
        let writer = Self { index: Arc::clone(&index), segment_bytes_max, total_bytes_max, file };
        Ok((writer, index))
    }

    /// Appends whole records, whose ids are in `ids`.
    ///
    /// # Errors
    /// When the disk is full or fails. None of the records is kept then, and
    /// the next call tries again.
    pub(super) fn append(&mut self, records: &[u8], ids: IdRange) -> io::Result<()> {
        let records_bytes = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let grown = self.index.lock().last().map_or(0, |last| last.bytes) + records_bytes;
        if self.file.is_some() && grown > self.segment_bytes_max {
            self.seal();
        }
        self.delete_oldest(records_bytes);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create_segment(&self.index)?),
        };
        let written = file.write_all(records);
        let mut segments = self.index.lock();
        let Some(last) = segments.last_mut() else {
            return written;
        };
        if written.is_err() {
            // A part may be there: records after it could not be found. If it
            // can not be cut, the file is given up, and ends at its tear.
            if file.set_len(last.bytes).is_err() {
                self.file = None;
            }
            return written;
        }
        last.bytes += records_bytes;
        last.ids = Some(last.ids.map_or(ids, |known| known.including(ids)));
        Ok(())
    }

    /// Ends the growing segment. A segment without a seal only costs time at the
    /// next start: failing is no reason to stop.
    fn seal(&mut self) {
        let Some(mut file) = self.file.take() else {
            return;
        };
        let ids = self.index.lock().last().and_then(|last| last.ids);
        if let Some(ids) = ids
            && let Err(error) = file.write_all(&ids.seal())
        {
            tracing::warn!(%error, "a receipt segment was not sealed");
        }
    }

    fn delete_oldest(&self, coming_bytes: u64) {
        let mut segments = self.index.lock();
        // The last one is growing, or is what queries look at first.
        while segments.len() > 1
            && segments.iter().map(|segment| segment.bytes).sum::<u64>() + coming_bytes
                > self.total_bytes_max
        {
            let oldest = segments.remove(0);
            let path = path(&self.index.folder, oldest.number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "old receipts were not deleted");
            }
        }
    }

    /// Brings what was appended to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }
}

fn create_segment(index: &Index) -> io::Result<File> {
    let mut segments = index.lock();
    let number = segments.last().map_or(1, |last| last.number + 1);
    let path = path(&index.folder, number);
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(error) = file.write_all(SEGMENT_MAGIC) {
        // Or the next attempt would find its name taken.
        fs::remove_file(&path)?;
        return Err(error);
    }
    let bytes = u64::try_from(SEGMENT_MAGIC.len()).unwrap_or_default();
    segments.push(Segment { number, bytes, ids: None });
    Ok(file)
}

/// What a file holds, and the file to go on with if it is not sealed.
fn open_segment(path: &Path, number: u64) -> io::Result<(Segment, Option<File>)> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    let seal_bytes = u64::try_from(SEAL_BYTES).unwrap_or(u64::MAX);
    if let Some(seal_at) = bytes.checked_sub(seal_bytes) {
        let mut seal = Vec::new();
        file.seek(SeekFrom::Start(seal_at))?;
        (&file).take(seal_bytes).read_to_end(&mut seal)?;
        if let Some(ids) = IdRange::from_seal(&seal) {
            return Ok((Segment { number, bytes, ids: Some(ids) }, None));
        }
        file.seek(SeekFrom::Start(0))?;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    if content.is_empty() || SEGMENT_MAGIC.strip_prefix(content.as_slice()).is_some() {
        // The crash came before the first record.
        file.set_len(0)?;
        file.write_all(SEGMENT_MAGIC)?;
        let bytes = u64::try_from(SEGMENT_MAGIC.len()).unwrap_or_default();
        return Ok((Segment { number, bytes, ids: None }, Some(file)));
    }
    let Some(mut records) = Records::of(&content) else {
        tracing::warn!(path = %path.display(), "not a receipt segment of this version");
        return Ok((Segment { number, bytes, ids: None }, None));
    };
    let ids = records.by_ref().map(|record| IdRange::of(record.id)).reduce(IdRange::including);
    let torn_bytes = u64::try_from(records.rest_bytes()).unwrap_or_default();
    let bytes = bytes.saturating_sub(torn_bytes);
    if torn_bytes > 0 {
        tracing::info!(path = %path.display(), torn_bytes, "cutting receipts that a crash tore");
        file.set_len(bytes)?;
    }
    Ok((Segment { number, bytes, ids }, Some(file)))
}
