//! What of a snapshot's memory stays mapped from one guest to the next.
//!
//! Clearing a memory, wasmtime asks the kernel for the pages that were written. It
//! takes 32 runs of them, writes those anew, and unmaps all that lies behind. A guest
//! that begins as a started interpreter writes to some pages in each of hundreds of
//! places: what is unmapped is faulted in again, a page at a time, and each of these
//! faults interrupts every core. So the smallest of the gaps between them are made to
//! look written as well, once for each slot of the pool, until there are few enough
//! runs. The guest does that itself, in a function that [`super::merge`] gave it; which
//! pages it wrote is in the kernel's page map.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, TypedFunc, WasmList};

use super::pool::SNAPSHOT_KEEP_RESIDENT_BYTES;
use super::store::GuestState;
use crate::model::ids::Digest;

/// Runs of pages that are aimed for. The rest of wasmtime's 32 (`MAX_REGIONS` in its
/// `pagemap.rs`) is for what a later guest writes elsewhere.
const RUNS_MAX: usize = 28;
/// Of a larger memory this much is looked at, in bytes: what a snapshot begins with is
/// there, and what it needs besides lies together.
const PLANNED_BYTES_MAX: usize = 64 << 20;
/// Later than any guest goes on, in epochs.
const NEVER: u64 = 1 << 40;

/// What the function is exported as. Its name has the digest of what was uploaded in it,
/// which nobody can name who makes an upload: the function is always the host's own.
#[must_use]
pub fn export_name(digest: &str) -> String {
    format!("touch-x{digest}")
}

/// Tells which pages of this process are in memory and its own, as
/// `/proc/self/pagemap` does (the kernel's `admin-guide/mm/pagemap.rst`).
#[derive(Debug)]
pub struct PageMap {
    file: File,
    page_bytes: usize,
}

impl PageMap {
    /// Opens the page map.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/pagemap")?;
        Ok(Self { file, page_bytes: rustix::param::page_size() })
    }

    /// For each of so many pages, whether it is private: written to since it was mapped.
    fn private(&self, address: usize, pages: Range<usize>) -> io::Result<Vec<bool>> {
        const ENTRY_BYTES: usize = 8;
        const PRESENT: u64 = 1 << 63;
        const OF_A_FILE: u64 = 1 << 61;
        /// Not the page of zeros, which all have in common.
        const EXCLUSIVE: u64 = 1 << 56;
        let mut entries = vec![0; pages.len() * ENTRY_BYTES];
        let first = address / self.page_bytes + pages.start;
        self.file.read_exact_at(&mut entries, (first * ENTRY_BYTES) as u64)?;
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        let is_private = |entry: &[u8; ENTRY_BYTES]| {
            let wanted = PRESENT | EXCLUSIVE;
            u64::from_ne_bytes(*entry) & (wanted | OF_A_FILE) == wanted
        };
        Ok(entries.iter().map(is_private).collect())
    }
}

/// What is kept of the memory of one component.
#[derive(Debug)]
pub struct Resident {
    touch: ComponentExportIndex,
    map: Arc<PageMap>,
    plan: Mutex<Plan>,
}

/// Which pages are to be private, as far as is known.
#[derive(Debug, Default)]
struct Plan {
    /// How many pages are planned for: those that all guests had.
    pages: usize,
    /// Those that guests write to.
    written: BTreeSet<usize>,
    /// Those that are made private: the same, and the smallest gaps between them.
    kept: Vec<Range<usize>>,
    /// One more, the last that guests do not write to. Where it is not private, the slot
    /// is new, or had more runs than wasmtime takes.
    mark: Option<usize>,
}

impl Resident {
    /// What is to be kept of a component, if it has the function for that.
    #[must_use]
    pub fn of(component: &Component, digest: Digest, map: &Arc<PageMap>) -> Option<Self> {
        let touch = component.get_export_index(None, export_name(&digest.hex()))?;
        Some(Self { touch, map: Arc::clone(map), plan: Mutex::default() })
    }

    /// Sees to it that the memory of a guest that has ended will be cleared in few runs
    /// of pages. Has much to do after the first guest of a slot, and little after others.
    ///
    /// # Errors
    /// When the guest can not be called any more, or the kernel does not tell. What was
    /// not done makes the next guest slower, and nothing else.
    pub async fn keep(
        &self,
        store: &mut Store<GuestState>,
        instance: Instance,
    ) -> wasmtime::Result<()> {
        let touch = instance.get_typed_func(&mut *store, self.touch)?;
        // What is called is the host's own, and it ends.
        store.set_epoch_deadline(NEVER);
        store.set_hostcall_fuel(usize::MAX);
        let (address, bytes) = call(store, touch, 0..0).await?;
        let page_bytes = self.map.page_bytes;
        let pages = bytes.min(PLANNED_BYTES_MAX) / page_bytes;
        let mark = self.plan().mark_of(pages);
        if let Some(mark) = mark
            && self.map.private(address, mark..mark + 1)? == [true]
        {
            return Ok(());
        }
        let private = self.map.private(address, 0..pages)?;
        let kept = self.plan().learn(&private, SNAPSHOT_KEEP_RESIDENT_BYTES / page_bytes);
        for run in kept {
            call(store, touch, run.start * page_bytes..run.end * page_bytes).await?;
        }
        Ok(())
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Touch = TypedFunc<(u32, u32), (WasmList<u8>,)>;

/// Makes the pages of these addresses private. Returns where the memory is in the
/// process, and its size in bytes.
async fn call(
    store: &mut Store<GuestState>,
    touch: Touch,
    addresses: Range<usize>,
) -> wasmtime::Result<(usize, usize)> {
    let (begin, end) = (u32::try_from(addresses.start)?, u32::try_from(addresses.end)?);
    let (memory,) = touch.call_async(&mut *store, (begin, end)).await?;
    let memory = memory.as_le_slice(&*store);
    Ok((memory.as_ptr().addr(), memory.len()))
}

impl Plan {
    /// The mark in a memory of so many pages, if that is planned for.
    fn mark_of(&self, pages: usize) -> Option<usize> {
        self.mark.filter(|_| self.pages <= pages)
    }

    fn is_kept(&self, page: usize) -> bool {
        self.mark == Some(page) || self.kept.iter().any(|run| run.contains(&page))
    }

    /// Takes in which pages of a memory are private. Returns those that are to be, of
    /// which wasmtime keeps so many.
    fn learn(&mut self, private: &[bool], kept_max: usize) -> Vec<Range<usize>> {
        let is_first = self.pages == 0;
        self.pages = if is_first { private.len() } else { self.pages.min(private.len()) };
        // What is kept already says nothing of guests.
        let found = private.iter().enumerate().filter(|(_, is_private)| **is_private);
        let found: Vec<_> =
            found.map(|(page, _)| page).filter(|page| !self.is_kept(*page)).collect();
        self.written.extend(found);
        self.written.retain(|page| *page < self.pages);
        self.kept = with_gaps(runs(&self.written));
        let mut left = kept_max;
        self.kept.retain(|run| {
            left = left.saturating_sub(run.len());
            left > 0
        });
        self.mark = None;
        self.mark = (0..self.pages).rev().find(|page| !self.is_kept(*page));
        let mark = self.mark.map(|mark| mark..mark + 1);
        self.kept.iter().cloned().chain(mark).collect()
    }
}

/// Pages in order, those that lie together as one.
fn runs(pages: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == *page => run.end += 1,
            _ => runs.push(*page..page + 1),
        }
    }
    runs
}

/// The same with the smallest of the gaps between them filled, so that few are left.
fn with_gaps(runs: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let gap = |pair: &[Range<usize>]| Some(pair.last()?.start - pair.first()?.end);
    let mut gaps: Vec<usize> = runs.windows(2).filter_map(gap).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    // What is as large as the first that is filled is filled too.
    let filled = gaps.get(RUNS_MAX - 1).copied().unwrap_or(0);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start - last.end <= filled => last.end = run.end,
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT_MAX: usize = 2000;

    fn private(pages: usize, written: &[usize]) -> Vec<bool> {
        (0..pages).map(|page| written.contains(&page)).collect()
    }

    #[test]
    fn few_runs_are_kept_as_they_are() {
        let mut plan = Plan::default();
        let kept = plan.learn(&private(20, &[3, 4, 9]), KEPT_MAX);
        assert_eq!(kept, [3..5, 9..10, 19..20]);
        assert_eq!(
            (plan.mark_of(20), plan.mark_of(21), plan.mark_of(19)),
            (Some(19), Some(19), None)
        );
    }

    #[test]
    fn the_smallest_gaps_between_many_are_filled() {
        // 39 gaps, of 1 to 39 pages.
        let written: Vec<usize> =
            (0..40).map(|number| number + number * (number + 1) / 2).collect();
        let mut plan = Plan::default();
        let kept = plan.learn(&private(1000, &written), KEPT_MAX);
        assert_eq!(kept.len(), RUNS_MAX + 1, "and the mark");
        assert!(written.iter().all(|page| kept.iter().any(|run| run.contains(page))));
        let sizes = kept.windows(2).map(|pair| pair[1].start - pair[0].end);
        assert_eq!(sizes.take(RUNS_MAX - 1).min(), Some(39 - (RUNS_MAX - 2)));
    }

    #[test]
    fn what_is_learned_later_is_added() {
        let mut plan = Plan::default();
        plan.learn(&private(20, &[3]), KEPT_MAX);
        // The mark is private because it was made so; a page of another guest is not.
        assert_eq!(plan.learn(&private(20, &[3, 8, 19]), KEPT_MAX), [3..4, 8..9, 19..20]);
        // A guest writes to the last page: another is the mark.
        assert_eq!(plan.learn(&private(20, &[18, 19]), KEPT_MAX), [3..4, 8..9, 18..19, 19..20]);
        // A smaller memory: what lies behind its end is not planned for.
        assert_eq!(plan.learn(&private(10, &[]), KEPT_MAX), [3..4, 8..9, 9..10]);
        assert_eq!(plan.mark_of(20), Some(9));
    }

    #[test]
    fn no_more_is_kept_than_wasmtime_keeps() {
        let mut plan = Plan::default();
        let kept = plan.learn(&private(20, &[3, 4, 5, 9, 10, 15]), 5);
        assert_eq!(kept, [3..6, 19..20]);
    }

    #[test]
    fn a_memory_that_is_written_to_as_a_whole_has_no_mark() {
        let mut plan = Plan::default();
        let kept = plan.learn(&private(3, &[0, 1, 2]), KEPT_MAX);
        assert_eq!((kept.len(), kept.first()), (1, Some(&(0..3))));
        assert_eq!(plan.mark_of(3), None);
    }

    #[test]
    fn the_page_map_tells_what_was_written() {
        let map = PageMap::open().unwrap();
        // More than an allocator has at hand; the page is in the middle of it, where no
        // large page of the kernel has it together with what is written before.
        let (pages, page) = (1 << 14, 1 << 13);
        let mut memory = vec![0_u8; (pages + 1) * map.page_bytes];
        let address = memory.as_ptr().addr().next_multiple_of(map.page_bytes);
        let first = address - memory.as_ptr().addr();
        let is_private = || map.private(address, page..page + 1).unwrap();
        assert_eq!(is_private(), [false]);
        memory[first + page * map.page_bytes] = 1;
        assert_eq!(is_private(), [true]);
        assert!(map.private(address, 0..pages).unwrap()[page]);
    }
}
