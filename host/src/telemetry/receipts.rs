//! Receipts: one for each invocation, recorded without making it wait.
//!
//! [`ReceiptLog::record`] only pushes into a queue. One thread empties it in
//! batches, feeds the [`Metrics`] and writes to segment files: at least every
//! [`WRITE_INTERVAL`] or [`WRITE_BYTES`], which is what the end of the process
//! without a shutdown may lose. Files are not synced before [`ReceiptLog::close`]:
//! a power failure may lose what the system had not written by itself.

mod encoding;
mod segments;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

pub use self::encoding::ERROR_BYTES_MAX;
use self::encoding::{Record, Records};
use self::segments::{IdRange, Index, Writer};
use super::metrics::Metrics;
use crate::model::ids::{FunctionId, InvocationId};
use crate::model::invocation::{Outcome, Receipt};

/// Longest time that a receipt waits to be written.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Most bytes of receipts that wait to be written.
pub const WRITE_BYTES: usize = 256 << 10;
/// Most receipts of one answer of [`ReceiptLog::list`]: a page, and one more that
/// tells that there is another.
pub const LIST_MAX: usize = 1001;

/// Between two looks into the queue. Sending to a thread that waits costs the
/// sender a system call to wake it: under load, it sleeps instead of waiting.
const NAP: Duration = Duration::from_millis(5);
/// Most receipts taken out of the queue between two looks at the clock.
const BATCH: usize = 1024;

/// How much receipts may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptBounds {
    /// Disk space of all receipts, in bytes; the oldest are deleted.
    pub total_bytes_max: u64,
    /// One file, in bytes: the unit of deletion.
    pub segment_bytes_max: u64,
    /// Receipts that wait for the thread. Those beyond are lost and counted.
    /// Waiting ones use some 250 bytes each.
    pub waiting_max: usize,
}

impl Default for ReceiptBounds {
    fn default() -> Self {
        Self {
            total_bytes_max: 512 << 20,
            segment_bytes_max: 8 << 20,
            // 0.6 s of 100,000 receipts a second: longer than a disk hiccup.
            waiting_max: 1 << 16,
        }
    }
}

/// Which receipts to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptQuery {
    /// Only those of this function.
    pub function: Option<FunctionId>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only those with a lower id: the last one of the page before.
    pub before: Option<InvocationId>,
    /// At most this many; [`LIST_MAX`] is the most.
    pub limit: usize,
}

enum Message {
    Receipt(Receipt),
    /// Write what came before, then drop the sender.
    Flush(mpsc::SyncSender<()>),
    Close,
}

/// See the module.
#[derive(Debug)]
pub struct ReceiptLog {
    /// Unbounded in itself: it allocates as it fills, in blocks, where a bounded
    /// one would hold the memory of its worst hour all the time.
    queue: mpsc::Sender<Message>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    lost: Counter,
    index: Arc<Index>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ReceiptLog {
    /// Opens or makes the log in `folder`, cutting what a crash tore.
    ///
    /// # Errors
    /// When the folder can not be made, read or written.
    pub fn open(folder: &Path, bounds: ReceiptBounds, metrics: Arc<Metrics>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (writer, index) =
            Writer::open(folder, bounds.segment_bytes_max, bounds.total_bytes_max)?;
        let (queue, receiver) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let lost = metrics.receipts_lost().clone();
        let recorder = Recorder {
            receiver,
            waiting: Arc::clone(&waiting),
            metrics,
            writer,
            buffer: Vec::new(),
            buffered: None,
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("whit-receipts".into())
            .spawn(move || recorder.run())?;
        let (thread, waiting_max) = (Mutex::new(Some(thread)), bounds.waiting_max);
        Ok(Self { queue, waiting, waiting_max, lost, index, thread })
    }

    /// Records a receipt. Never blocks: where the thread is too far behind, the
    /// receipt is lost and counted as such.
    pub fn record(&self, receipt: Receipt) {
        // Relaxed: the count bounds memory and orders nothing.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max
            || self.queue.send(Message::Receipt(receipt)).is_err()
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.inc();
        }
    }

    /// Receipts lost since the start: never recorded, or not written because
    /// the disk was full or failed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Waits until all receipts recorded so far are in the metrics and in their
    /// file (not synced). Blocks, for milliseconds.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // An error says the sender was dropped: that is the sign.
            let _ = written.recv();
        }
    }

    /// The receipt of one invocation, if it is still kept. Blocks.
    #[must_use]
    pub fn get(&self, id: InvocationId) -> Option<Receipt> {
        self.flush();
        let segments = self.index.segments();
        let candidates = segments.iter().rev().filter(|segment| {
            segment.ids.is_some_and(|ids| (ids.lowest..=ids.highest).contains(&id))
        });
        candidates.into_iter().find_map(|segment| {
            let content = self.index.read(segment);
            Records::of(&content)?.find(|record| record.id == id)?.decode()
        })
    }

    /// Receipts, the latest invocation first. Blocks; a query that matches few
    /// of many receipts reads them all.
    #[must_use]
    pub fn list(&self, query: &ReceiptQuery) -> Vec<Receipt> {
        let limit = query.limit.min(LIST_MAX);
        if limit == 0 {
            return Vec::new();
        }
        self.flush();
        let matcher = Matcher::new(query);
        let mut segments: Vec<_> = self
            .index
            .segments()
            .into_iter()
            .filter_map(|segment| segment.ids.map(|ids| (ids, segment)))
            .filter(|(ids, _)| ids.lowest < matcher.before)
            .collect();
        segments.sort_by_key(|(ids, _)| std::cmp::Reverse(ids.highest));
        let mut found: BTreeMap<InvocationId, Receipt> = BTreeMap::new();
        // The lowest of the page, once the page is full.
        let lowest = |found: &BTreeMap<InvocationId, Receipt>| {
            found.first_key_value().filter(|_| found.len() >= limit).map(|(id, _)| *id)
        };
        for (ids, segment) in segments {
            if lowest(&found).is_some_and(|lowest| ids.highest < lowest) {
                break;
            }
            let content = self.index.read(&segment);
            for record in Records::of(&content).into_iter().flatten() {
                let wanted = matcher.matches(&record)
                    && lowest(&found).is_none_or(|lowest| record.id > lowest);
                if let (true, Some(receipt)) = (wanted, record.decode()) {
                    found.insert(record.id, receipt);
                    if found.len() > limit {
                        found.pop_first();
                    }
                }
            }
        }
        found.into_values().rev().collect()
    }

    /// Writes and syncs what was recorded, and ends the thread. Blocks. Receipts
    /// recorded later are lost and counted.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // An error says that the thread has ended; joining tells how.
        let _ = self.queue.send(Message::Close);
        if thread.join().is_err() {
            tracing::error!("the receipts thread panicked");
        }
    }
}

impl Drop for ReceiptLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// A query in the form that records are compared with.
struct Matcher {
    function: Option<Vec<u8>>,
    outcome: Option<Outcome>,
    before: InvocationId,
}

impl Matcher {
    fn new(query: &ReceiptQuery) -> Self {
        let function = query.function.as_ref().map(|function| {
            let mut bytes = Vec::new();
            encoding::encode_function(function, &mut bytes);
            bytes
        });
        let before = query.before.unwrap_or(InvocationId(u128::MAX));
        Self { function, outcome: query.outcome, before }
    }

    fn matches(&self, record: &Record<'_>) -> bool {
        record.id < self.before
            && self.outcome.is_none_or(|outcome| record.has_outcome(outcome))
            && self.function.as_ref().is_none_or(|function| record.has_function(function))
    }
}

/// What is encoded but not written.
struct Buffered {
    since: Instant,
    ids: IdRange,
    receipts: u64,
}

/// The thread's state.
struct Recorder {
    receiver: mpsc::Receiver<Message>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    writer: Writer,
    buffer: Vec<u8>,
    /// None exactly where `buffer` is empty.
    buffered: Option<Buffered>,
    /// The last write failed: it is said once, not each second.
    failing: bool,
}

impl Recorder {
    fn run(mut self) {
        loop {
            let message = match &self.buffered {
                None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(buffered) => {
                    let left = WRITE_INTERVAL.saturating_sub(buffered.since.elapsed());
                    self.receiver.recv_timeout(left)
                }
            };
            let open = match message {
                Ok(message) => self.handle(message) && self.drain(),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !open {
                break;
            }
            if self.buffered.as_ref().is_some_and(|first| first.since.elapsed() >= WRITE_INTERVAL) {
                self.write();
            }
        }
        // Senders that raced with the close.
        self.drain();
        self.write();
        if let Err(error) = self.writer.sync() {
            tracing::warn!(%error, "receipts were not synced");
        }
    }

    /// Takes a batch out of the queue. False when the log is to be closed.
    fn drain(&mut self) -> bool {
        for _ in 0..BATCH {
            match self.receiver.try_recv() {
                Ok(message) => {
                    if !self.handle(message) {
                        return false;
                    }
                }
                Err(_) => {
                    std::thread::sleep(NAP);
                    break;
                }
            }
        }
        true
    }

    fn handle(&mut self, message: Message) -> bool {
        match message {
            Message::Receipt(receipt) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.metrics.observe(&receipt);
                self.encode(&receipt);
                if self.buffer.len() >= WRITE_BYTES {
                    self.write();
                }
                true
            }
            Message::Flush(done) => {
                self.write();
                drop(done);
                true
            }
            Message::Close => false,
        }
    }

    fn encode(&mut self, receipt: &Receipt) {
        encoding::encode(receipt, &mut self.buffer);
        let ids = IdRange::of(receipt.id);
        match &mut self.buffered {
            Some(buffered) => {
                buffered.ids = buffered.ids.including(ids);
                buffered.receipts += 1;
            }
            none => *none = Some(Buffered { since: Instant::now(), ids, receipts: 1 }),
        }
    }

    fn write(&mut self) {
        let Some(buffered) = self.buffered.take() else {
            return;
        };
        match self.writer.append(&self.buffer, buffered.ids) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.metrics.receipts_lost().inc_by(buffered.receipts);
                if !self.failing {
                    tracing::warn!(%error, "receipts are lost: they can not be written");
                }
                self.failing = true;
            }
        }
        self.buffer.clear();
    }
}

#[cfg(test)]
pub(super) mod tests;
