use std::fs;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::super::receipts::tests::function;
use super::*;
use crate::model::ids::RevisionNumber;

fn line(name: &str, invocation: u64, text: &str) -> LogLine {
    LogLine {
        unix_ms: 1_700_000_000_000 + invocation,
        function: function(name),
        revision: RevisionNumber(3),
        invocation: InvocationId::new(invocation, 7),
        stream: LogStream::Stderr,
        text: text.to_owned(),
    }
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn tail(logs: &FunctionLogs, name: &str) -> Vec<LogLine> {
    logs.tail(&function(name), TAIL_LINES_MAX, None)
}

fn open(folder: &Path) -> FunctionLogs {
    FunctionLogs::open(folder, LogBounds::default()).unwrap()
}

fn memory(logs: &FunctionLogs) -> usize {
    logs.shared.memory_bytes.load(Ordering::Relaxed)
}

#[test]
fn lines_are_there_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    logs.append(line("a", 1, "one"));
    logs.append(line("a", 2, "\x1b[2Jtwo\r"));
    logs.append(line("b", 3, "other"));
    let before = tail(&logs, "a");
    assert_eq!(texts(&before), ["one", "\\u{1b}[2Jtwo"]);
    assert_eq!(texts(&logs.tail(&function("a"), 1, None)), ["\\u{1b}[2Jtwo"]);
    assert_eq!(logs.tail(&function("a"), 0, None), []);
    let of_one = logs.tail(&function("a"), 10, Some(InvocationId::new(1, 7)));
    assert_eq!(texts(&of_one), ["one"]);
    logs.append(line("a", 4, "at the end"));
    logs.close();
    logs.append(line("a", 5, "after the end"));
    let logs = open(folder.path());
    logs.append(line("a", 6, "anew"));
    let after = tail(&logs, "a");
    assert_eq!(after[..2], before);
    assert_eq!(texts(&after[2..]), ["at the end", "anew"]);
    assert_eq!(texts(&tail(&logs, "b")), ["other"]);
    assert_eq!(tail(&logs, "unknown"), []);
    for file in fs::read_dir(folder.path()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".log").unwrap();
        assert!(stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }
}

#[test]
fn a_torn_line_does_not_take_the_next_one_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    logs.append(line("a", 1, "one"));
    logs.append(line("a", 1, "two"));
    logs.close();
    let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() - 5]).unwrap();
    let logs = open(folder.path());
    assert_eq!(texts(&tail(&logs, "a")), ["one"]);
    logs.append(line("a", 1, "three"));
    assert_eq!(texts(&tail(&logs, "a")), ["one", "three"]);
}

#[test]
fn memory_and_files_of_one_function_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    for index in 0..12_000_u64 {
        logs.append(line("a", index, &format!("{index:0200}")));
        if index % 100 == 0 {
            logs.flush();
        }
    }
    {
        let log = logs.shared.find(&function("a")).unwrap();
        let state = lock(&log.state);
        assert!(state.ring.len() <= 1000 && state.ring_bytes <= 256 << 10);
        assert!(state.ring_bytes > 200 << 10);
    }
    let sizes: Vec<u64> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
    let kept = tail(&logs, "a");
    assert!(kept.len() > 2000, "{}", kept.len());
    let numbers: Vec<u64> = kept.iter().map(|line| line.invocation.unix_ms()).collect();
    let oldest = 12_000 - kept.len() as u64;
    assert_eq!(numbers, (oldest..12_000).collect::<Vec<_>>(), "the latest, none missing");
}

#[test]
fn all_functions_together_are_bounded_and_lose_nothing_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = LogBounds { memory_bytes_max: 100_000, ..LogBounds::default() };
    let logs = FunctionLogs::open(folder.path(), bounds).unwrap();
    let _follower = logs.follow(&function("f0"));
    for index in 0..200 {
        for _ in 0..10 {
            logs.append(line(&format!("f{index}"), index, "some text"));
        }
        logs.flush();
        assert!(memory(&logs) <= 100_000);
    }
    let kept = logs.shared.logs.read().unwrap().len();
    assert!(kept < 60, "{kept} logs in memory");
    assert!(logs.shared.find(&function("f0")).is_some(), "it is followed");
    for index in 0..200 {
        assert_eq!(tail(&logs, &format!("f{index}")).len(), 10, "f{index}");
    }
}

#[test]
fn lines_that_come_too_fast_are_counted_where_they_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = LogBounds { ring_bytes_max: 2000, ..LogBounds::default() };
    let logs = FunctionLogs::open(folder.path(), bounds).unwrap();
    {
        let log = logs.shared.with_log(&function("a"), |log, _| Arc::clone(log));
        // Nobody can write while this is held: as with a disk that stands still.
        let _stuck = lock(&log.file);
        for index in 0..20 {
            logs.append(line("a", index, "0123456789"));
        }
        logs.append(line("b", 1, "not held up"));
    }
    let lines = tail(&logs, "a");
    let marks: Vec<&LogLine> = lines.iter().filter(|line| line.stream == LogStream::Host).collect();
    assert_eq!(marks.len(), 1, "{lines:?}");
    let kept = lines.len() - 1;
    let expected = format!("{} lines dropped: more came than could be written", 20 - kept);
    assert_eq!(marks[0].text, expected);
    assert!((1..10).contains(&kept), "{kept}");
    assert_eq!(marks[0].revision, RevisionNumber(3));
    assert_eq!(texts(&tail(&logs, "b")), ["not held up"]);
}

#[tokio::test]
async fn followers_get_what_comes_and_cost_nothing_when_gone() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    logs.append(line("a", 1, "before"));
    let mut follower = logs.follow(&function("a"));
    logs.append(line("b", 2, "of another"));
    logs.append(line("a", 3, "\x07after"));
    assert_eq!(follower.recv().await.unwrap().text, "\\u{7}after");
    assert_eq!(follower.try_recv().unwrap_err(), TryRecvError::Empty);
    drop(follower);
    logs.append(line("a", 4, "nobody looks"));
    let log = logs.shared.find(&function("a")).unwrap();
    assert!(lock(&log.state).followers.is_none());
    let mut slow = logs.follow(&function("a"));
    for index in 0..2000 {
        logs.append(line("a", index, "x"));
    }
    assert!(matches!(slow.recv().await, Err(RecvError::Lagged(_))));
    logs.remove(&function("a"));
    // Then what is left, possibly with another gap, and then the end.
    while slow.recv().await != Err(RecvError::Closed) {}
}

#[test]
fn tail_and_follow_meet_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 0..400 {
                logs.append(line("a", index, "x"));
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        for _ in 0..20 {
            let (lines, mut receiver) = logs.tail_and_follow(&function("a"), 1000, None);
            std::thread::sleep(Duration::from_millis(1));
            let mut numbers: Vec<u64> =
                lines.iter().map(|line| line.invocation.unix_ms()).collect();
            while let Ok(line) = receiver.try_recv() {
                numbers.push(line.invocation.unix_ms());
            }
            let count = numbers.len() as u64;
            assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
    });
}

#[test]
fn removed_logs_are_gone_and_unused_ones_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let logs = open(folder.path());
    for name in ["a", "b", "c"] {
        logs.append(line(name, 1, "secret"));
    }
    logs.flush();
    logs.append(line("a", 2, "still waiting"));
    logs.remove(&function("a"));
    assert_eq!(tail(&logs, "a"), []);
    logs.close();
    drop(logs);
    let logs = open(folder.path());
    logs.retain(&BTreeSet::from([function("b")])).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(texts(&tail(&logs, "b")), ["secret"]);
    assert_eq!(tail(&logs, "c"), []);
    logs.remove(&function("b"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn without_a_disk_the_memory_still_answers() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("logs");
    let logs = open(&inner);
    fs::remove_dir(&inner).unwrap();
    logs.append(line("a", 1, "one"));
    logs.flush();
    logs.append(line("a", 2, "two"));
    assert_eq!(texts(&tail(&logs, "a")), ["one", "two"]);
}

#[test]
fn many_threads_keep_the_account_straight() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = LogBounds { memory_bytes_max: 50_000, ..LogBounds::default() };
    let logs = FunctionLogs::open(folder.path(), bounds).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let logs = &logs;
            scope.spawn(move || {
                for index in 0..500 {
                    let name = format!("f{}", (index + thread) % 7);
                    logs.append(line(&name, index, "text"));
                    match index % 50 {
                        20 => logs.remove(&function(&name)),
                        40 => drop(tail(logs, &name)),
                        _ => {}
                    }
                }
            });
        }
    });
    for index in 0..7 {
        logs.remove(&function(&format!("f{index}")));
    }
    assert_eq!(memory(&logs), 0);
}
