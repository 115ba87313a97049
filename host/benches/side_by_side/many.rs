//! Many functions on one host: what an idle one costs, how long a host with all
//! of them takes to start, and what requests spread over all of them see.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Options;
use crate::host::{self, Host};
use crate::http;
use crate::load::{Load, Order, Sample, Until};
use crate::process::{self, Memory};
use crate::report::{self, Section, Table};

/// Uploads at the same time.
const UPLOADERS: usize = 4;
/// The answer of every function, which has its number in it.
const ANSWER_BYTES: usize = "function 0000000".len();

/// Runs the workload and makes its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<Section> {
    let functions = options.functions;
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("whit");
    // What a host without functions needs, when it is not its first start.
    Host::start(&folder, &options.settings)?.server.stop();
    let empty = Host::start(&folder, &options.settings)?;
    let (empty_start, empty_memory) = (empty.start_time, process::memory(empty.server.pid())?);
    let deploy_time = deploy_all(&empty, functions)?;
    empty.server.stop();

    let host = Host::start(&folder, &options.settings)?;
    let idle_memory = process::memory(host.server.pid())?;
    let requests: Vec<Vec<u8>> =
        (0..functions).map(|number| http::get(&format!("/f{number}/"))).collect();
    let load = |order, connections| {
        Load::new(host.server.address, &requests, ANSWER_BYTES, order, connections)
    };
    let first = load(Order::InTurn, options.connections)?.run(Until::Answered(functions as u64))?;
    let used_memory = process::memory(host.server.pid())?;
    let spread = load(Order::Random, options.connections)?.run(Until::Elapsed(options.time))?;
    let single = load(Order::Random, 1)?.run(Until::Elapsed(options.time))?;
    ensure!(first.errors + spread.errors + single.errors == 0, "a function did not answer");

    let mut table = Table::new(&["what", "value"]);
    let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    let milliseconds = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
    row("functions, each of its own component", functions.to_string());
    row("one upload, 4 at a time", milliseconds(deploy_time / u32::try_from(functions)?));
    row("host start without functions", milliseconds(empty_start));
    row("host start with all of them", milliseconds(host.start_time));
    row("memory of each idle function", growth(empty_memory, idle_memory, functions));
    row("further memory of each that was called", growth(idle_memory, used_memory, functions));
    row("first request of each, cold", latencies(&first));
    row("requests spread at random", latencies(&spread));
    row("the same on one connection", latencies(&single));
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count")?;
    let notes = vec![
        "Memory: resident, and of that anonymous (not mapped files, which the kernel can drop)."
            .to_owned(),
        format!(
            "{} connections where not said otherwise. vm.max_map_count is {}, which bounds how \
             many components are in memory (`whit serve --check` tells: loaded_max).",
            options.connections,
            mappings.trim()
        ),
    ];
    Ok(Section { table, notes, skipped: Vec::new() })
}

fn growth(before: Memory, after: Memory, functions: usize) -> String {
    let each =
        |before: u64, after: u64| after.saturating_sub(before) as f64 / 1024.0 / functions as f64;
    let resident = each(before.resident, after.resident);
    let anonymous = each(before.anonymous, after.anonymous);
    format!("{resident:.1} KiB, {anonymous:.1} KiB")
}

fn latencies(sample: &Sample) -> String {
    let (p50, p99) = (sample.percentile_ms(50.0), sample.percentile_ms(99.0));
    format!("{:.0} req/s, p50 {p50:.2} ms, p99 {p99:.2} ms", sample.per_second())
}

/// Uploads all functions, one after the other on a few connections.
fn deploy_all(host: &Host, functions: usize) -> anyhow::Result<Duration> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let upload = || -> anyhow::Result<()> {
        let mut admin = host.admin()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= functions {
                return Ok(());
            }
            if number.is_multiple_of(100) {
                report::progress(&format!("deploying {number} of {functions}"));
            }
            let component = answering(&format!("function {number:07}"))?;
            host::deployed(&mut admin, &host.upload(&format!("f{number}"), &component))?;
        }
    };
    let uploaded = std::thread::scope(|scope| {
        let uploaders: Vec<_> = (0..UPLOADERS).map(|_| scope.spawn(upload)).collect();
        uploaders
            .into_iter()
            .try_for_each(|uploader| uploader.join().ok().context("an uploader")?)
    });
    report::progress("");
    uploaded?;
    Ok(started.elapsed())
}

/// The smallest CGI guest: a core command that prints this text.
pub(crate) fn answering(text: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = "Content-Type: text/plain\n\n".len() + text.len();
    Ok(wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00")
            (data (i32.const 16) "Content-Type: text/plain\0a\0a{text}")
            (func (export "_start")
                (i32.store (i32.const 4) (i32.const {bytes}))
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))?)
}
