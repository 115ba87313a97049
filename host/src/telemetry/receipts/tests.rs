use std::fs;

use super::*;
use crate::model::ids::RevisionNumber;

pub(in crate::telemetry) fn function(name: &str) -> FunctionId {
    FunctionId { tenant: "default".parse().unwrap(), name: name.parse().unwrap() }
}

/// A receipt of an invocation that arrived `unix_ms` after 1970.
pub(in crate::telemetry) fn receipt(unix_ms: u64, name: Option<&str>, outcome: Outcome) -> Receipt {
    Receipt {
        id: InvocationId::new(unix_ms, 7),
        function: name.map(function),
        revision: name.map(|_| RevisionNumber(3)),
        outcome,
        status: 200,
        cold: false,
        total_us: 1200,
        queue_us: 1,
        load_us: 0,
        init_us: 40,
        run_us: 1100,
        cpu_us: 250,
        memory_peak_bytes: 1 << 20,
        request_bytes: 0,
        response_bytes: 300,
        log_bytes: 12,
        error: (outcome != Outcome::Ok).then(|| "wasm trap: unreachable".to_owned()),
    }
}

fn open(folder: &Path, bounds: ReceiptBounds) -> (ReceiptLog, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (ReceiptLog::open(folder, bounds, Arc::clone(&metrics)).unwrap(), metrics)
}

fn all() -> ReceiptQuery {
    ReceiptQuery { function: None, outcome: None, before: None, limit: LIST_MAX }
}

fn times(receipts: &[Receipt]) -> Vec<u64> {
    receipts.iter().map(|receipt| receipt.id.unix_ms()).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn small(segment_bytes_max: u64, total_bytes_max: u64) -> ReceiptBounds {
    ReceiptBounds { total_bytes_max, segment_bytes_max, ..ReceiptBounds::default() }
}

#[test]
fn what_is_recorded_is_found_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (log, metrics) = open(folder.path(), ReceiptBounds::default());
    let trapped = receipt(5, Some("hello"), Outcome::Trapped);
    log.record(receipt(4, Some("hello"), Outcome::Ok));
    log.record(trapped.clone());
    assert_eq!(log.get(trapped.id), Some(trapped.clone()));
    assert_eq!(log.get(InvocationId::new(5, 8)), None);
    assert_eq!(times(&log.list(&all())), [5, 4]);
    assert!(metrics.render().contains("outcome=\"trapped\"} 1"));
    log.close();
    log.record(receipt(6, None, Outcome::NoRoute));
    assert_eq!(log.lost(), 1, "closed");
    let (log, _) = open(folder.path(), ReceiptBounds::default());
    assert_eq!(log.get(trapped.id), Some(trapped));
    log.record(receipt(7, Some("hello"), Outcome::Ok));
    assert_eq!(times(&log.list(&all())), [7, 5, 4]);
    assert_eq!(files(folder.path()).len(), 1, "the last segment goes on");
}

#[test]
fn they_are_written_within_the_stated_time_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path(), ReceiptBounds::default());
    log.record(receipt(1, Some("hello"), Outcome::Ok));
    let deadline = Instant::now() + WRITE_INTERVAL + Duration::from_secs(4);
    while files(folder.path()).is_empty() {
        assert!(Instant::now() < deadline, "not written in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(log);
}

#[test]
fn queries_filter_and_page() {
    let folder = tempfile::tempdir().unwrap();
    // Several segments, and ids that are not in the order of writing.
    let (log, _) = open(folder.path(), small(600, 1 << 20));
    for step in 0..100_u64 {
        let ms = if step % 10 == 9 { step - 9 } else { step + 1 };
        let outcome = if ms % 3 == 0 { Outcome::Timeout } else { Outcome::Ok };
        log.record(receipt(ms, Some(if ms % 2 == 0 { "even" } else { "odd" }), outcome));
        if step % 4 == 0 {
            log.flush();
        }
    }
    log.flush();
    assert!(files(folder.path()).len() > 5);
    let expected = |wanted: &dyn Fn(u64) -> bool| -> Vec<u64> {
        (0..100).rev().filter(|ms| wanted(*ms)).collect()
    };
    assert_eq!(times(&log.list(&all())), expected(&|_| true));
    let even = ReceiptQuery { function: Some(function("even")), ..all() };
    assert_eq!(times(&log.list(&even)), expected(&|ms| ms % 2 == 0));
    let both = ReceiptQuery { outcome: Some(Outcome::Timeout), ..even.clone() };
    assert_eq!(times(&log.list(&both)), expected(&|ms| ms % 6 == 0));
    // A name that another begins with is another.
    let prefix = ReceiptQuery { function: Some(function("eve")), ..all() };
    assert_eq!(log.list(&prefix), []);
    let (mut paged, mut page) = (Vec::new(), ReceiptQuery { limit: 7, ..even });
    loop {
        let found = log.list(&page);
        assert!(found.len() <= 7);
        let Some(last) = found.last() else { break };
        page.before = Some(last.id);
        paged.extend(times(&found));
    }
    assert_eq!(paged, expected(&|ms| ms % 2 == 0), "each once, none left out");
    assert_eq!(log.list(&ReceiptQuery { limit: 0, ..all() }), []);
}

#[test]
fn a_torn_tail_is_cut_and_writing_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path(), ReceiptBounds::default());
    for ms in 1..=3 {
        log.record(receipt(ms, Some("hello"), Outcome::Ok));
    }
    log.close();
    let path = files(folder.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    // Torn anywhere, also within the first bytes, or followed by rubbish.
    let torn = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec());
    for content in torn.chain([[whole.as_slice(), &[0; 1000]].concat()]) {
        let kept = Records::of(&content).map_or(0, Iterator::count);
        fs::write(&path, &content).unwrap();
        let (log, _) = open(folder.path(), ReceiptBounds::default());
        log.record(receipt(9, Some("hello"), Outcome::Ok));
        let listed = log.list(&all());
        assert_eq!(listed.len(), kept + 1, "torn to {}", content.len());
        assert_eq!(listed[0].id.unix_ms(), 9);
    }
}

#[test]
fn segments_rotate_and_all_together_stay_within_their_bound() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = small(2000, 10_000);
    let (log, _) = open(folder.path(), bounds);
    for ms in 1..=1000 {
        log.record(receipt(ms, Some("hello"), Outcome::Ok));
        if ms % 5 == 0 {
            log.flush();
            let sizes = files(folder.path()).into_iter().map(|path| path.metadata().unwrap().len());
            let sizes: Vec<u64> = sizes.collect();
            // A seal is written beyond the bound of one segment.
            assert!(sizes.iter().all(|size| *size <= 2000 + 44), "{sizes:?}");
            assert!(sizes.iter().sum::<u64>() <= 10_000 + 44 * 6, "{sizes:?}");
        }
    }
    let before = times(&log.list(&all()));
    assert!(before.len() > 80, "{}", before.len());
    assert_eq!(before, (1..=1000).rev().take(before.len()).collect::<Vec<_>>(), "the latest");
    assert_eq!(log.get(InvocationId::new(1, 7)), None);
    drop(log);
    let (log, _) = open(folder.path(), bounds);
    assert_eq!(times(&log.list(&all())), before, "from the seals");
}

#[test]
fn a_full_queue_loses_receipts_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let (log, metrics) = open(folder.path(), ReceiptBounds { waiting_max: 0, ..small(1, 1) });
    for ms in 1..=5 {
        log.record(receipt(ms, Some("hello"), Outcome::Ok));
    }
    assert_eq!(log.lost(), 5);
    assert!(metrics.render().contains("whit_receipts_lost_total 5"));
    assert_eq!(log.list(&all()), []);
}

#[test]
fn receipts_that_can_not_be_written_are_counted_and_the_next_ones_are_tried() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("receipts");
    let (log, metrics) = open(&inner, ReceiptBounds::default());
    fs::remove_dir(&inner).unwrap();
    log.record(receipt(1, Some("hello"), Outcome::Ok));
    log.flush();
    assert_eq!(log.lost(), 1);
    assert!(metrics.render().contains("outcome=\"ok\"} 1"), "metrics do not depend on the disk");
    fs::create_dir(&inner).unwrap();
    log.record(receipt(2, Some("hello"), Outcome::Ok));
    assert_eq!(times(&log.list(&all())), [2]);
}

/// The promise behind it: 100,000 receipts a second are cheap. Prints what it
/// measures; fails only where it is off by orders of magnitude.
#[test]
fn recording_is_cheap_from_many_threads() {
    const THREADS: u64 = 4;
    const EACH: u64 = 12_000;
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path(), ReceiptBounds::default());
    let made: Vec<Vec<Receipt>> = (0..THREADS)
        .map(|thread| {
            let times = (0..EACH).map(|step| step * THREADS + thread);
            times.map(|ms| receipt(ms, Some("hello"), Outcome::Ok)).collect()
        })
        .collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for receipts in made {
            scope.spawn(|| receipts.into_iter().for_each(|receipt| log.record(receipt)));
        }
    });
    let recorded = start.elapsed();
    log.flush();
    let written = start.elapsed();
    println!("{} receipts: {recorded:?} to record, {written:?} to write", THREADS * EACH);
    assert_eq!(log.lost(), 0);
    assert!(written < Duration::from_secs(5));
    let segments = log.index.segments();
    let kept: usize = segments
        .iter()
        .map(|segment| Records::of(&log.index.read(segment)).map_or(0, Iterator::count))
        .sum();
    assert_eq!(kept as u64, THREADS * EACH);
}
