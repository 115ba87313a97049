//! Throughput, latency and CPU time of servers under the same load, in turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use whit::dev::languages::Language;

use crate::Options;
use crate::guests::{self, Guest};
use crate::host::Host;
use crate::http::{self, Client};
use crate::load::{Load, Order, Until};
use crate::many;
use crate::process;
use crate::report::{self, Section, Table, median, range};
use crate::servers::{self, Server, WASMTIME_TUNED};

const WARM_UP: Duration = Duration::from_secs(1);

/// Guests that do what `work.rs` says.
const WORKERS: [Guest; 2] = [
    guests::guest("http-0.2", Language::Rust, "host/benches/guests/work-02"),
    guests::guest("http-0.3", Language::Rust, "host/benches/guests/work-03"),
];

/// What all servers of one table are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Hello,
    /// JSON of this many KiB, read and written again.
    Json(usize),
    /// Counting primes: CPU time of the guest's.
    Primes,
}

/// One server that is asked, and how.
pub(crate) struct Contestant {
    pub(crate) name: String,
    address: SocketAddr,
    pid: u32,
    requests: Vec<Vec<u8>>,
    body_bytes: usize,
    pub(crate) rounds: Vec<Round>,
}

impl Contestant {
    /// Asks a server once; its answer has to be a right one.
    pub(crate) fn new(
        name: &str,
        address: SocketAddr,
        pid: u32,
        request: Vec<u8>,
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> anyhow::Result<Self> {
        let response = Client::connect(address)?.call(&request)?;
        if response.status != 200 || !is_right(&response.body) {
            let body = String::from_utf8_lossy(&response.body);
            bail!("{name} answers wrongly: {} {body:.200}", response.status);
        }
        let (requests, body_bytes) = (vec![request], response.body.len());
        Ok(Self { name: name.to_owned(), address, pid, requests, body_bytes, rounds: Vec::new() })
    }
}

/// What was seen of a contestant in one turn.
pub(crate) struct Round {
    pub(crate) per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of the server for each request.
    pub(crate) cpu_us: f64,
    pub(crate) errors: u64,
    /// Part of the machine that neither the server nor the generator used.
    others: f64,
}

/// Runs a workload and makes its table.
pub(crate) fn run(workload: Workload, options: &Options) -> anyhow::Result<Section> {
    let mut field = Field::new(workload, options)?;
    field.enter_all()?;
    for round in 1..=options.rounds {
        for contestant in &mut field.contestants {
            report::progress(&format!("round {round} of {}: {}", options.rounds, contestant.name));
            let seen = measure(contestant, options)?;
            contestant.rounds.push(seen);
        }
    }
    report::progress("");
    Ok(section(&field))
}

/// All that take part, and those that can not.
struct Field<'a> {
    workload: Workload,
    options: &'a Options,
    folder: tempfile::TempDir,
    /// Kept running until the end.
    servers: Vec<Server>,
    hosts: Vec<Host>,
    contestants: Vec<Contestant>,
    skipped: Vec<String>,
}

impl<'a> Field<'a> {
    fn new(workload: Workload, options: &'a Options) -> anyhow::Result<Self> {
        Ok(Self {
            workload,
            options,
            folder: tempfile::tempdir()?,
            servers: Vec::new(),
            hosts: Vec::new(),
            contestants: Vec::new(),
            skipped: Vec::new(),
        })
    }

    fn enter_all(&mut self) -> anyhow::Result<()> {
        let native = servers::native()?;
        self.enter("native axum", native.address, native.pid(), "")?;
        self.servers.push(native);
        self.enter_whit()?;
        if self.workload == Workload::Primes {
            return Ok(());
        }
        self.enter_peer("node http", servers::node)?;
        if self.workload == Workload::Hello {
            let folder = self.folder.path().to_owned();
            self.enter_peer("workerd", || servers::workerd(&folder))?;
            self.enter_wasmtime()?;
        }
        Ok(())
    }

    /// One host with a function for each guest.
    fn enter_whit(&mut self) -> anyhow::Result<()> {
        let settings = &self.options.settings;
        let host = Host::start(&self.folder.path().join("whit"), settings)?;
        let guests: &[Guest] = match self.workload {
            Workload::Hello => &guests::HELLOS,
            Workload::Json(_) | Workload::Primes => &WORKERS,
        };
        let (address, pid) = (host.server.address, host.server.pid());
        for (index, guest) in guests.iter().enumerate() {
            let name = format!("whit, {}", guest.name);
            if !self.options.takes_part(&name) {
                continue;
            }
            let (name, component) = match guest.component() {
                Ok(component) => (name, component),
                Err(error) if guest.name == guests::CGI.name => {
                    self.skipped.push(format!("{name}: {error:#}"));
                    ("whit, CGI, WAT".to_owned(), many::answering("hello\\0a")?)
                }
                Err(error) => {
                    self.skipped.push(format!("{name}: {error:#}"));
                    continue;
                }
            };
            host.deploy(&format!("f{index}"), &component)?;
            self.enter(&name, address, pid, &format!("/f{index}"))?;
        }
        self.hosts.push(host);
        Ok(())
    }

    fn enter_wasmtime(&mut self) -> anyhow::Result<()> {
        let concurrent = ["-S", "p3=y", "-W", "component-model-async=y"];
        for (guest, needed) in [(guests::HTTP_02, [].as_slice()), (guests::HTTP_03, &concurrent)] {
            let component = self.folder.path().join(format!("{}.wasm", guest.name));
            std::fs::write(&component, guest.component()?)?;
            let name = format!("wasmtime serve, {}", guest.name);
            self.enter_peer(&name, || servers::wasmtime(&component, needed))?;
            let tuned = [needed, &WASMTIME_TUNED].concat();
            self.enter_peer(&format!("{name}, tuned"), || servers::wasmtime(&component, &tuned))?;
        }
        Ok(())
    }

    /// Enters a server of others', or notes why it is not there.
    fn enter_peer(
        &mut self,
        name: &str,
        start: impl FnOnce() -> anyhow::Result<Server>,
    ) -> anyhow::Result<()> {
        if !self.options.takes_part(name) {
            return Ok(());
        }
        match start() {
            Ok(server) => {
                self.enter(name, server.address, server.pid(), "")?;
                self.servers.push(server);
            }
            Err(error) => self.skipped.push(format!("{name}: {error:#}")),
        }
        Ok(())
    }

    /// Asks a server once, and checks its answer.
    fn enter(
        &mut self,
        name: &str,
        address: SocketAddr,
        pid: u32,
        prefix: &str,
    ) -> anyhow::Result<()> {
        let json = match self.workload {
            Workload::Json(kib) => json(kib << 10),
            Workload::Hello | Workload::Primes => String::new(),
        };
        let request = match self.workload {
            Workload::Hello => http::get(&format!("{prefix}/")),
            Workload::Primes => http::get(&format!("{prefix}/primes")),
            Workload::Json(_) => {
                let headers = "Content-Type: application/json\r\n";
                http::request("POST", &format!("{prefix}/json"), headers, json.as_bytes())
            }
        };
        let contestant =
            Contestant::new(name, address, pid, request, |body| match self.workload {
                Workload::Hello => !body.is_empty(),
                Workload::Primes => body == b"25997\n",
                Workload::Json(_) => body == json.as_bytes(),
            })?;
        self.contestants.push(contestant);
        Ok(())
    }
}

/// A JSON document of this many bytes, its keys in order.
fn json(bytes: usize) -> String {
    let mut text = String::from(r#"{"items":["#);
    let mut id = 0;
    while text.len() + 200 < bytes {
        let comma = if id == 0 { "" } else { "," };
        text.push_str(&format!(
            r#"{comma}{{"id":{id},"name":"item number {id}","price":{}.5,"tags":["a","b\n"]}}"#,
            id * 7
        ));
        id += 1;
    }
    text.push_str(r#"],"padding":""#);
    let padding = bytes.saturating_sub(text.len() + 2);
    text.push_str(&"x".repeat(padding));
    text.push_str("\"}");
    text
}

/// Puts a server under load for a turn.
pub(crate) fn measure(contestant: &Contestant, options: &Options) -> anyhow::Result<Round> {
    let Contestant { address, requests, body_bytes, pid, .. } = contestant;
    let mut load = Load::new(*address, requests, *body_bytes, Order::InTurn, options.connections)?;
    load.run(Until::Elapsed(WARM_UP))?;
    let cpu_times = || {
        let own = process::cpu_time(std::process::id())?;
        anyhow::Ok((process::cpu_time(*pid)?, own, process::machine_cpu_time()?))
    };
    let (server, own, machine) = cpu_times()?;
    let started = Instant::now();
    let sample = load.run(Until::Elapsed(options.time))?;
    let elapsed = started.elapsed();
    let (server_then, own_then, machine_then) = cpu_times()?;
    let (server, own) = (server_then.saturating_sub(server), own_then.saturating_sub(own));
    let others = machine_then.saturating_sub(machine).saturating_sub(server + own);
    Ok(Round {
        per_second: sample.per_second(),
        p50_ms: sample.percentile_ms(50.0),
        p99_ms: sample.percentile_ms(99.0),
        cpu_us: server.as_secs_f64() * 1e6 / sample.answered().max(1) as f64,
        errors: sample.errors,
        others: others.as_secs_f64() / elapsed.as_secs_f64() / process::cores() as f64,
    })
}

fn section(field: &Field<'_>) -> Section {
    let mut table = Table::new(&[
        "server",
        "req/s",
        "÷ native (range)",
        "p50 ms",
        "p99 ms",
        "p99 ÷ native",
        "CPU µs/req",
        "÷ native",
        "errors",
    ]);
    let native: &[Round] =
        field.contestants.first().map(|native| native.rounds.as_slice()).unwrap_or_default();
    for Contestant { name, rounds, .. } in &field.contestants {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        // Of the same round: what slows the machine for a while slows both.
        let ratios = |value: fn(&Round) -> f64| {
            rounds.iter().zip(native).map(move |(own, native)| value(own) / value(native))
        };
        let (low, high) = range(ratios(|round| round.per_second));
        table.row(vec![
            name.clone(),
            format!("{:.0}", of(|round| round.per_second)),
            format!("{:.2} ({low:.2}–{high:.2})", median(ratios(|round| round.per_second))),
            format!("{:.2}", of(|round| round.p50_ms)),
            format!("{:.2}", of(|round| round.p99_ms)),
            format!("{:.1}", median(ratios(|round| round.p99_ms))),
            format!("{:.1}", of(|round| round.cpu_us)),
            format!("{:.1}", median(ratios(|round| round.cpu_us))),
            rounds.iter().map(|round| round.errors).sum::<u64>().to_string(),
        ]);
    }
    let others = || field.contestants.iter().flat_map(|one| &one.rounds).map(|round| round.others);
    let (_, most) = range(others());
    let Options { connections, time, rounds, .. } = field.options;
    let notes = vec![
        format!(
            "{connections} connections, {rounds} round(s) of {time:?} in turns after {WARM_UP:?} of \
             warm-up each; medians; ratios are of the same round."
        ),
        format!(
            "Load generator on the same cores. Other processes used {:.0} % of the machine (median; \
             at most {:.0} %).",
            median(others()) * 100.0,
            most * 100.0
        ),
    ];
    Section { table, notes, skipped: field.skipped.clone() }
}
