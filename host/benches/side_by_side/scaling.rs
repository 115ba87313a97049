//! What a host makes of more cores: hello, with one of them and with all.

use anyhow::bail;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Options;
use crate::guests::{self, Guest};
use crate::host::Host;
use crate::http;
use crate::report::{self, Section, Table, median};
use crate::throughput::{self, Contestant, Round};

const GUESTS: [Guest; 3] = [guests::HTTP_02, guests::HTTP_03, guests::CGI];

/// A host, and the cores of those who ask it.
struct Side {
    host: Host,
    generator: CpuSet,
    contestants: Vec<Contestant>,
}

/// Runs the workload and makes its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<Section> {
    let all = sched_getaffinity(None)?;
    let measured = compare(options, &all);
    sched_setaffinity(None, &all)?;
    report::progress("");
    let sides = measured?;
    Ok(section(&sides, all.count()))
}

fn compare(options: &Options, all: &CpuSet) -> anyhow::Result<[Side; 2]> {
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let [first, .., last] = cores.as_slice() else { bail!("this takes two cores") };
    let folder = tempfile::tempdir()?;
    let start = |name: &str, cores: &CpuSet, generator: CpuSet| -> anyhow::Result<Side> {
        // Inherited, and looked at when the host decides on its threads.
        sched_setaffinity(None, cores)?;
        let host = Host::start(&folder.path().join(name), &options.settings)?;
        Ok(Side { host, generator, contestants: Vec::new() })
    };
    let mut sides = [start("one", &only(*first), only(*last))?, start("all", all, *all)?];
    for side in &mut sides {
        sched_setaffinity(None, &side.generator)?;
        for guest in GUESTS {
            side.enter(guest)?;
        }
    }
    for round in 1..=options.rounds {
        for side in &mut sides {
            sched_setaffinity(None, &side.generator)?;
            for contestant in &mut side.contestants {
                let what = &contestant.name;
                report::progress(&format!("round {round} of {}: {what}", options.rounds));
                let seen = throughput::measure(contestant, options)?;
                if seen.errors > 0 {
                    bail!("{what}: {} errors", seen.errors);
                }
                contestant.rounds.push(seen);
            }
        }
    }
    Ok(sides)
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

impl Side {
    fn enter(&mut self, guest: Guest) -> anyhow::Result<()> {
        let path = format!("f{}", self.contestants.len());
        self.host.deploy(&path, &guest.component()?)?;
        let request = http::get(&format!("/{path}/"));
        let (address, pid) = (self.host.server.address, self.host.server.pid());
        let is_right = |body: &[u8]| !body.is_empty();
        self.contestants.push(Contestant::new(guest.name, address, pid, request, is_right)?);
        Ok(())
    }
}

fn section(sides: &[Side; 2], cores: u32) -> Section {
    let mut table = Table::new(&[
        "guest",
        "1 core req/s",
        "CPU µs/req",
        "all cores req/s",
        "CPU µs/req",
        "all ÷ 1, generator accounted for",
    ]);
    let [one, all] = sides;
    for (one, all) in one.contestants.iter().zip(&all.contestants) {
        let of =
            |side: &Contestant, value: fn(&Round) -> f64| median(side.rounds.iter().map(value));
        let (cpu_one, cpu_all) = (of(one, |round| round.cpu_us), of(all, |round| round.cpu_us));
        table.row(vec![
            one.name.clone(),
            format!("{:.0}", of(one, |round| round.per_second)),
            format!("{cpu_one:.1}"),
            format!("{:.0}", of(all, |round| round.per_second)),
            format!("{cpu_all:.1}"),
            format!("{:.2}", f64::from(cores) * cpu_one / cpu_all),
        ]);
    }
    let notes = vec![
        "One core: the host is kept on the first, the generator on the last. All: both are where \
         the kernel puts them, and the generator takes its part."
            .to_owned(),
        format!(
            "Accounted for: requests for each second of the host's CPU time, of {cores} cores \
             against 1."
        ),
    ];
    Section { table, notes, skipped: Vec::new() }
}
