//! What the kernel knows of processes and of the machine.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(1)
}

/// CPU time that a process has used, all its threads together.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a server has ended")?;
    // proc(5): the name, in parentheses, may hold anything; utime and stime are
    // the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let times = fields.split(' ').skip(11).take(2);
    Ok(ticks(times.filter_map(|field| field.parse::<u64>().ok()).sum()))
}

/// CPU time that all processes have used, without interrupts.
pub(crate) fn machine_cpu_time() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat")?;
    // user, nice, system.
    let times = line.split_whitespace().skip(1).take(3);
    Ok(ticks(times.filter_map(|field| field.parse::<u64>().ok()).sum()))
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All that is in memory, mapped files too.
    pub(crate) resident: u64,
    /// What is its own: not files, which the kernel can drop and read again.
    pub(crate) anonymous: u64,
}

pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a server has ended")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok()?;
        Some(kilobytes << 10)
    };
    let resident = field("VmRSS").context("VmRSS")?;
    Ok(Memory { resident, anonymous: field("RssAnon").context("RssAnon")? })
}

/// CPU model, cores and kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    format!("{model}, {} cores, Linux {}", cores(), read("/proc/sys/kernel/osrelease").trim())
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
