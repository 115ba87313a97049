//! What functions write: kept in memory for a quick look, in files for after a
//! restart, and passed on to whoever follows.
//!
//! [`FunctionLogs::append`] never waits for a disk. Lines go into the function's
//! own ring and its own list of lines to write, both bounded: a function that
//! writes faster than the disk loses its own lines, never another's, and its
//! log says how many. One thread writes the lists to files.

mod file;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use self::file::LogFile;
use super::sanitise::sanitise;
use crate::model::ids::{FunctionId, InvocationId};
use crate::model::invocation::{LogLine, LogStream};

/// Longest time that a line waits to be written to its file.
pub const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// Lines that a follower may be behind before it misses some.
pub const FOLLOW_LINES_MAX: usize = 1024;
/// Most lines of one answer of [`FunctionLogs::tail`].
pub const TAIL_LINES_MAX: usize = 10_000;

/// What a line uses beside its text, in bytes: names, numbers, allocations.
const LINE_OVERHEAD_BYTES: usize = 200;

/// How much logs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Lines of one function in memory.
    pub ring_lines_max: usize,
    /// Lines of one function in memory, in bytes; and as much again for those
    /// that wait to be written.
    pub ring_bytes_max: usize,
    /// Lines of all functions in memory, in bytes.
    pub memory_bytes_max: usize,
    /// One of the two files of one function, in bytes.
    pub file_bytes_max: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self {
            ring_lines_max: 1000,
            ring_bytes_max: 256 << 10,
            memory_bytes_max: 64 << 20,
            file_bytes_max: 1 << 20,
        }
    }
}

enum Message {
    /// This log has lines to write, at the next occasion.
    Due(Arc<Log>),
    /// Write what is due now; the sender, if any, is dropped then.
    Write(Option<mpsc::SyncSender<()>>),
    Close,
}

/// The log of one function.
#[derive(Debug)]
struct Log {
    /// Taken before `state`, never while holding it.
    file: Mutex<LogFile>,
    /// Held for moments, never while reading or writing a file.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<Arc<LogLine>>,
    ring_bytes: usize,
    /// To be written to the file.
    waiting: Vec<Arc<LogLine>>,
    waiting_bytes: usize,
    /// The thread knows that there is something to write.
    due: bool,
    /// The thread was asked to hurry.
    hurried: bool,
    dropped: u64,
    /// A line that was dropped, without its text: where and when it would have been.
    dropped_line: Option<LogLine>,
    followers: Option<broadcast::Sender<Arc<LogLine>>>,
    /// No longer in the map: who holds it looks again.
    detached: bool,
    used_unix_ms: u64,
}

fn cost(line: &LogLine) -> usize {
    line.text.len() + LINE_OVERHEAD_BYTES
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    bounds: LogBounds,
    logs: RwLock<HashMap<FunctionId, Arc<Log>>>,
    /// Of all rings and waiting lists; a line in both counts twice.
    memory_bytes: AtomicUsize,
}

/// See the module.
#[derive(Debug)]
pub struct FunctionLogs {
    shared: Arc<Shared>,
    /// At most one message for each log, and a few besides.
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FunctionLogs {
    /// Opens the logs in `folder`, making it if need be.
    ///
    /// # Errors
    /// When the folder can not be made or the thread not be started.
    pub fn open(folder: &Path, bounds: LogBounds) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            bounds,
            logs: RwLock::default(),
            memory_bytes: AtomicUsize::new(0),
        });
        let (queue, receiver) = mpsc::channel();
        let writer = Writer { shared: Arc::clone(&shared), due: Vec::new(), failing: false };
        let thread = std::thread::Builder::new()
            .name("whit-logs".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self { shared, queue, thread: Mutex::new(Some(thread)) })
    }

    /// Adds a line, which is [sanitised](sanitise) first. Waits
    /// for nothing but other lines of the same function. Where the function's
    /// log is too far behind, the line is dropped and counted.
    pub fn append(&self, mut line: LogLine) {
        line.text = sanitise(line.text.as_bytes());
        let function = line.function.clone();
        self.shared.with_log(&function, |log, state| {
            if self.shared.has_room(state, cost(&line)) {
                self.shared.mark_dropped(state);
                self.shared.push(state, line);
            } else {
                line.text.clear();
                state.dropped += 1;
                state.dropped_line = Some(line);
            }
            // Sent under the lock: who sees the flags knows that the thread was
            // told. After the close nobody listens, and lines stay in memory.
            if !std::mem::replace(&mut state.due, true) {
                let _ = self.queue.send(Message::Due(Arc::clone(log)));
            }
            let behind = state.dropped > 0 || self.shared.is_filling(state);
            if behind && !std::mem::replace(&mut state.hurried, true) {
                let _ = self.queue.send(Message::Write(None));
            }
        });
    }

    /// The lines that come from now on. A receiver that is more than
    /// [`FOLLOW_LINES_MAX`] behind is told how many it missed.
    #[must_use]
    pub fn follow(&self, function: &FunctionId) -> broadcast::Receiver<Arc<LogLine>> {
        self.shared.with_log(function, |_, state| state.subscribe())
    }

    /// The last lines, oldest first, of one invocation or of all; at most
    /// `limit` and [`TAIL_LINES_MAX`]. Reads files: blocks.
    #[must_use]
    pub fn tail(
        &self,
        function: &FunctionId,
        limit: usize,
        invocation: Option<InvocationId>,
    ) -> Vec<LogLine> {
        let log = self.shared.find(function);
        // Nothing in memory: no reason to keep something there.
        let log = log.unwrap_or_else(|| Arc::new(self.shared.new_log(function)));
        self.shared.look(&log, limit, invocation, false).0
    }

    /// [`Self::tail`] and [`Self::follow`] at one moment: each line is in one of
    /// the two, none in both. Blocks.
    #[must_use]
    pub fn tail_and_follow(
        &self,
        function: &FunctionId,
        limit: usize,
        invocation: Option<InvocationId>,
    ) -> (Vec<LogLine>, broadcast::Receiver<Arc<LogLine>>) {
        loop {
            let log = self.shared.with_log(function, |log, _| Arc::clone(log));
            if let (lines, Some(receiver)) = self.shared.look(&log, limit, invocation, true) {
                return (lines, receiver);
            }
            // Detached in between: again, with its successor.
        }
    }

    /// Removes a function's log; its followers come to an end. Blocks. A line
    /// that an invocation still writes afterwards begins a new log.
    pub fn remove(&self, function: &FunctionId) {
        let log = self.shared.logs.write().unwrap_or_else(PoisonError::into_inner).remove(function);
        let log = log.unwrap_or_else(|| Arc::new(self.shared.new_log(function)));
        let mut file = lock(&log.file);
        let mut state = lock(&log.state);
        self.shared.empty_ring(&mut state);
        self.shared.take_waiting(&mut state);
        (state.detached, state.followers, state.dropped_line) = (true, None, None);
        drop(state);
        file.remove();
    }

    /// Removes the logs of functions that are not in `used`: for the start,
    /// when a crash may have left some. Blocks.
    ///
    /// # Errors
    /// When the folder can not be read.
    pub fn retain(&self, used: &BTreeSet<FunctionId>) -> io::Result<()> {
        file::retain(&self.shared.folder, used.iter())
    }

    /// Waits until all lines so far are in their files (not synced). Blocks.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.send(Message::Write(Some(done))).is_ok() {
            // An error says the sender was dropped: that is the sign.
            let _ = written.recv();
        }
    }

    /// Writes all lines and ends the thread. Blocks. Lines that come later are
    /// kept in memory only.
    pub fn close(&self) {
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        // An error says that the thread has ended; joining tells how.
        let _ = self.queue.send(Message::Close);
        if thread.join().is_err() {
            tracing::error!("the logs thread panicked");
        }
    }
}

impl Drop for FunctionLogs {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn subscribe(&mut self) -> broadcast::Receiver<Arc<LogLine>> {
        match &self.followers {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = broadcast::channel(FOLLOW_LINES_MAX);
                self.followers = Some(sender);
                receiver
            }
        }
    }
}

impl Shared {
    fn new_log(&self, function: &FunctionId) -> Log {
        let file = LogFile::new(&self.folder, function, self.bounds.file_bytes_max);
        Log { file: Mutex::new(file), state: Mutex::default() }
    }

    fn find(&self, function: &FunctionId) -> Option<Arc<Log>> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner).get(function).cloned()
    }

    /// Runs `work` with the function's log, found or made.
    fn with_log<T>(
        &self,
        function: &FunctionId,
        work: impl FnOnce(&Arc<Log>, &mut State) -> T,
    ) -> T {
        loop {
            let log = self.find(function).unwrap_or_else(|| {
                let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
                let log = logs.entry(function.clone());
                Arc::clone(log.or_insert_with(|| Arc::new(self.new_log(function))))
            });
            let mut state = lock(&log.state);
            // Removed between the look-up and the lock: there is another by now.
            if !state.detached {
                return work(&log, &mut state);
            }
        }
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.waiting_bytes + bytes <= self.bounds.ring_bytes_max
            && self.memory_bytes.load(Ordering::Relaxed) + 2 * bytes <= self.bounds.memory_bytes_max
    }

    /// Whether the thread had better come before its time.
    fn is_filling(&self, state: &State) -> bool {
        state.waiting_bytes > self.bounds.ring_bytes_max / 2 || self.is_crowded()
    }

    fn is_crowded(&self) -> bool {
        self.memory_bytes.load(Ordering::Relaxed) > self.bounds.memory_bytes_max / 4 * 3
    }

    fn push(&self, state: &mut State, line: LogLine) {
        let (bytes, line) = (cost(&line), Arc::new(line));
        self.memory_bytes.fetch_add(2 * bytes, Ordering::Relaxed);
        state.used_unix_ms = line.unix_ms;
        state.ring.push_back(Arc::clone(&line));
        state.ring_bytes += bytes;
        state.waiting.push(Arc::clone(&line));
        state.waiting_bytes += bytes;
        while state.ring.len() > self.bounds.ring_lines_max
            || state.ring_bytes > self.bounds.ring_bytes_max
        {
            let Some(oldest) = state.ring.pop_front() else {
                break;
            };
            state.ring_bytes -= cost(&oldest);
            self.memory_bytes.fetch_sub(cost(&oldest), Ordering::Relaxed);
        }
        // Sending fails when the last follower has left.
        if state.followers.as_ref().is_some_and(|followers| followers.send(line).is_err()) {
            state.followers = None;
        }
    }

    /// Says in the log how many lines are missing at this place, if any.
    fn mark_dropped(&self, state: &mut State) {
        let Some(mut line) = state.dropped_line.take() else {
            return;
        };
        let dropped = std::mem::take(&mut state.dropped);
        let lines = if dropped == 1 { "line" } else { "lines" };
        line.text = format!("{dropped} {lines} dropped: more came than could be written");
        line.stream = LogStream::Host;
        self.push(state, line);
    }

    fn empty_ring(&self, state: &mut State) {
        self.memory_bytes.fetch_sub(state.ring_bytes, Ordering::Relaxed);
        (state.ring, state.ring_bytes) = (VecDeque::new(), 0);
    }

    fn take_waiting(&self, state: &mut State) -> Vec<Arc<LogLine>> {
        self.memory_bytes.fetch_sub(state.waiting_bytes, Ordering::Relaxed);
        state.waiting_bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    /// The last lines, and what comes after them if `subscribe`; no receiver
    /// where the log was detached.
    fn look(
        &self,
        log: &Log,
        limit: usize,
        invocation: Option<InvocationId>,
        subscribe: bool,
    ) -> (Vec<LogLine>, Option<broadcast::Receiver<Arc<LogLine>>>) {
        let limit = limit.min(TAIL_LINES_MAX);
        // While this is held, lines that come later wait: the file has exactly
        // those from before the subscription.
        let mut file = lock(&log.file);
        let mut state = lock(&log.state);
        self.mark_dropped(&mut state);
        let receiver = (subscribe && !state.detached).then(|| state.subscribe());
        let matching = |line: &&Arc<LogLine>| invocation.is_none_or(|it| it == line.invocation);
        let newest_first = state.ring.iter().rev().filter(matching).take(limit);
        let in_memory: Vec<Arc<LogLine>> = newest_first.cloned().collect();
        let waiting = self.take_waiting(&mut state);
        drop(state);
        if !waiting.is_empty()
            && let Err(error) = file.append(&waiting)
        {
            tracing::debug!(%error, "log lines were not written");
        }
        // The files hold all that the ring does, and what came before.
        if in_memory.len() < limit && !file.failed {
            return (file.tail(limit, invocation), receiver);
        }
        let lines = in_memory.iter().rev().map(|line| LogLine::clone(line)).collect();
        (lines, receiver)
    }

    /// Empties the rings that were not used for longest, down to half of the
    /// bound. Their lines are in their files.
    fn make_room(&self) {
        if !self.is_crowded() {
            return;
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let mut by_age: Vec<(u64, FunctionId)> = logs
            .iter()
            .map(|(function, log)| (lock(&log.state).used_unix_ms, function.clone()))
            .collect();
        by_age.sort_unstable();
        for (_, function) in by_age {
            if self.memory_bytes.load(Ordering::Relaxed) <= self.bounds.memory_bytes_max / 2 {
                break;
            }
            let Some(log) = logs.get(&function) else {
                continue;
            };
            let mut state = lock(&log.state);
            if state.due || !state.waiting.is_empty() {
                continue;
            }
            self.empty_ring(&mut state);
            let followed =
                state.followers.as_ref().is_some_and(|sender| sender.receiver_count() > 0);
            state.detached = !followed;
            drop(state);
            if !followed {
                logs.remove(&function);
            }
        }
    }
}

/// The thread's state.
struct Writer {
    shared: Arc<Shared>,
    due: Vec<Arc<Log>>,
    /// The last write failed: it is said once, not each time.
    failing: bool,
}

impl Writer {
    fn run(mut self, receiver: &mpsc::Receiver<Message>) {
        let mut since: Option<Instant> = None;
        loop {
            let message = match since {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => {
                    receiver.recv_timeout(WRITE_INTERVAL.saturating_sub(since.elapsed()))
                }
            };
            match message {
                Ok(Message::Due(log)) => {
                    self.due.push(log);
                    since.get_or_insert_with(Instant::now);
                    continue;
                }
                Ok(Message::Write(done)) => {
                    self.write();
                    drop(done);
                }
                Err(RecvTimeoutError::Timeout) => self.write(),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            since = None;
        }
        // Of appends that raced with the close.
        self.due.extend(receiver.try_iter().filter_map(|message| match message {
            Message::Due(log) => Some(log),
            Message::Write(_) | Message::Close => None,
        }));
        self.write();
    }

    fn write(&mut self) {
        for log in std::mem::take(&mut self.due) {
            let mut file = lock(&log.file);
            let mut state = lock(&log.state);
            self.shared.mark_dropped(&mut state);
            let waiting = self.shared.take_waiting(&mut state);
            (state.due, state.hurried) = (false, false);
            drop(state);
            if waiting.is_empty() {
                continue;
            }
            match file.append(&waiting) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    if !self.failing {
                        tracing::warn!(%error, "log lines can not be written to their files");
                    }
                    self.failing = true;
                }
            }
        }
        self.shared.make_room();
    }
}

#[cfg(test)]
mod tests;
