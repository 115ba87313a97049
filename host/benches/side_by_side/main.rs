//! Whit and its peers under the same load, in one run:
//! `cargo bench --bench side_by_side [-- FILTER…]`. `-- --help` says more.

#[path = "../guests/mod.rs"]
mod guests;
#[path = "../guests/work.rs"]
mod work;

mod cold;
mod deploy;
mod host;
mod http;
mod load;
mod many;
mod native;
mod process;
mod report;
mod scaling;
mod servers;
mod throughput;

use std::time::Duration;

use anyhow::{Context as _, bail};

use report::Section;
use throughput::Workload;

const HELP: &str = "cargo bench --bench side_by_side [-- [OPTIONS] FILTER…]

Runs the workloads whose name contains one of the words; all of them without any:
  hello      hello world, one function for each kind of guest
  json-1k    JSON of 1 KiB, read and written again
  json-64k   the same of 64 KiB
  primes     about a millisecond of a guest's own work
  cold       the first request of a function that is not in memory
  many       many functions: memory, host start, requests spread over all
  deploy     from an upload to the first answer
  scaling    hello with one core and with all of them

Peers take part where they are on the PATH: node, workerd, wasmtime.

Options:
  --only WORD        of hello, json and primes, only servers whose name contains it
                     (again for more words; the native server always takes part)
  --rounds N         turns of each server [default: 3]
  --seconds N        of each turn [default: 5]
  --connections N    of the load generator [default: 32]
  --functions N      of `many` [default: 1000]
  --setting LINE     of Whit's configuration file, as in sandbox='off'
                     (again for more)
  --write            put the results into host/benches/RESULTS.md";

/// What to measure, and how long.
pub(crate) struct Options {
    filters: Vec<String>,
    only: Vec<String>,
    rounds: usize,
    time: Duration,
    connections: usize,
    functions: usize,
    settings: String,
    write: bool,
}

impl Options {
    /// `None` where only the help was wanted.
    fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<Self>> {
        let mut options = Self {
            filters: Vec::new(),
            only: Vec::new(),
            rounds: 3,
            time: Duration::from_secs(5),
            connections: 32,
            functions: 1000,
            settings: String::new(),
            write: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} of what?"));
            match argument.as_str() {
                // cargo says it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--only" => options.only.push(value()?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
                "--connections" => options.connections = value()?.parse()?,
                "--functions" => options.functions = value()?.parse()?,
                "--setting" => options.settings += &format!("{}\n", value()?),
                "--write" => options.write = true,
                word if word.starts_with('-') => bail!("unknown option {word}; see --help"),
                word => options.filters.push(word.to_owned()),
            }
        }
        if options.write && !(options.only.is_empty() && options.settings.is_empty()) {
            bail!("--write is for whole tables of hosts as they come");
        }
        if options.rounds == 0 || options.connections == 0 || options.functions == 0 {
            bail!("at least 1");
        }
        Ok(Some(options))
    }

    /// Whether a server is asked for.
    pub(crate) fn takes_part(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    fn asks_for(&self, workload: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|word| workload.contains(word.as_str()))
    }
}

type Run = fn(&Options) -> anyhow::Result<Section>;

/// Each workload: its name and its heading in RESULTS.md.
const WORKLOADS: [(&str, &str, Run); 8] = [
    ("hello", "Hello world", |options| throughput::run(Workload::Hello, options)),
    ("json-1k", "JSON echo, 1 KiB", |options| throughput::run(Workload::Json(1), options)),
    ("json-64k", "JSON echo, 64 KiB", |options| throughput::run(Workload::Json(64), options)),
    ("primes", "CPU-bound", |options| throughput::run(Workload::Primes, options)),
    ("cold", "Cold start", cold::run),
    ("many", "Many functions", many::run),
    ("deploy", "Deploy to first answer", deploy::run),
    ("scaling", "Scaling over cores", scaling::run),
];

fn main() -> anyhow::Result<()> {
    // The allocator is the host's: see `whit::cli::main`.
    let _ = mimalloc::MiMalloc.version();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == native::ARGUMENT) {
        return native::serve();
    }
    // `cargo test --all-targets` runs benchmarks too, without this argument.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let Some(options) = Options::parse(arguments.into_iter())? else {
        println!("{HELP}");
        return Ok(());
    };
    let circumstances = report::circumstances();
    println!("{circumstances}");
    let mut sections = Vec::new();
    for (name, title, run) in WORKLOADS {
        if !options.asks_for(name) {
            continue;
        }
        let section = run(&options).with_context(|| format!("workload {name}"))?.render();
        println!("## {title}\n\n{section}");
        sections.push((title, format!("{circumstances}\n{section}")));
    }
    if sections.is_empty() {
        bail!("no workload of that name; see --help");
    }
    if options.write {
        let order = WORKLOADS.map(|(_, title, _)| title);
        println!("written to {}", report::write(&order, &sections)?.display());
    }
    Ok(())
}
