//! Configuration: file, then environment, then flags, the later winning.
//!
//! This is the only reader of the environment. Everything is checked before a
//! port is bound, and every problem is reported at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::compile::CompileBounds;
use crate::engine::pool::{self, PoolBounds};
use crate::model::quantity::{ByteSize, Millis};
use crate::sandbox::Mode;

/// Most guests at the same time: the address space that the pools reserve for
/// each of them, 39 GB with all guard pages, has to fit into 128 TB.
const INSTANCES_MAX: u32 = 2500;

/// Mappings of an artifact: what is before its code, the code, what is behind it.
const MAPPINGS_PER_COMPONENT: u32 = 3;
/// Mappings of the host itself: its libraries, threads and heap.
const OTHER_MAPPINGS: u32 = 2_000;
/// Components in memory, if nothing is set, whatever the kernel's bound. With fewer
/// a host of many functions would do little else than load.
const LOADED_DEFAULT_MIN: u32 = 1_000;
/// The same, at most: what is called rarely need not stay.
const LOADED_DEFAULT_MAX: u32 = 10_000;
/// Most that can be asked for.
const LOADED_MAX: u32 = 100_000;

/// Every setting: its name in the file, its default, and what it is. The
/// environment variable is the name in capitals with `WHIT_` before it.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("listen", "127.0.0.1:8080", "address of the data plane"),
    ("admin_listen", "127.0.0.1:8081", "address of the admin API"),
    ("data_dir", "", "folder for everything that must survive"),
    ("instances_max", "1000", "guests that run at the same time, 2500 at most"),
    ("tls_cert", "", "certificate of the data plane, in PEM; with it, HTTPS alone is spoken"),
    ("tls_key", "", "private key of the certificate, in PEM"),
    ("connections_max", "10000", "client connections at the same time"),
    ("head_time_max", "10s", "time for TLS, and for the head of a request to arrive"),
    ("idle_time_max", "60s", "time that a connection may be open without a request"),
    ("body_stall_max", "15s", "longest silence of a client whose body is waited for"),
    ("response_stall_max", "30s", "longest time in which a client takes nothing of a response"),
    ("component_max", "100MiB", "largest upload"),
    ("memory_max", "4GiB", "most memory that a function's spec may ask for"),
    (
        "guest_memory_max",
        "",
        "memory of all guests together [default: three quarters of the machine's]",
    ),
    (
        "loaded_max",
        "",
        "components in memory, others are loaded when called [default: what fits into the \
         kernel's vm.max_map_count, 10000 at most]",
    ),
    ("compile_time_max", "60s", "CPU time of one compile, which may take four times as long"),
    ("compile_memory_max", "2GiB", "address space of one compile"),
    ("compiles_max", "2", "compiles at the same time"),
    ("compile_threads", "1", "processors that one compile may use"),
    ("drain_time_max", "30s", "time for requests in flight at shutdown"),
    ("receipts_max", "512MiB", "disk space for receipts; the oldest go first"),
    (
        "private_egress",
        "false",
        "whether functions may call private addresses that their allow_hosts names: true or false",
    ),
    (
        "sandbox",
        "auto",
        "what the process gives up of its own rights: auto (what the kernel has), on (or it does \
         not start), off",
    ),
    ("fine_clocks", "false", "whether functions see clocks finer than 1 ms: true or false"),
];

/// What the flags said; wins over everything.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    /// A file to read.
    pub config: Option<PathBuf>,
    /// Settings by name.
    pub settings: BTreeMap<&'static str, String>,
}

/// Where a certificate and its private key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to its root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the data plane.
    pub listen: SocketAddr,
    /// Address of the admin API.
    pub admin_listen: SocketAddr,
    /// Folder for everything that must survive.
    pub data_dir: PathBuf,
    /// Size of the pools.
    pub pool: PoolBounds,
    /// Certificate and key of the data plane. None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Client connections at the same time.
    pub connections_max: usize,
    /// Time for TLS, and for the head of a request to arrive.
    pub head_time_max: Duration,
    /// Time that a connection may be open without a request.
    pub idle_time_max: Duration,
    /// Longest silence of a client whose body is waited for.
    pub body_stall_max: Duration,
    /// Longest time in which a client takes nothing of a response.
    pub response_stall_max: Duration,
    /// Largest upload, in bytes.
    pub component_bytes_max: u64,
    /// Components in memory.
    pub loaded_max: usize,
    /// Bounds of the compile child.
    pub compile: CompileBounds,
    /// Time for requests in flight at shutdown.
    pub drain_time_max: Duration,
    /// Disk space for receipts, in bytes.
    pub receipts_bytes_max: u64,
    /// Whether functions may reach private addresses that they name.
    pub private_egress: bool,
    /// Whether the process gives up the rights that it does not need.
    pub sandbox: Mode,
    /// The resolved values and where each came from.
    origins: Vec<(&'static str, String, String)>,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} problem(s):{}", .0.len(), bulleted(.0))]
pub struct ConfigError(pub Vec<String>);

fn bulleted(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let _ = write!(text, "\n  - {problem}");
        text
    })
}

/// Folder of a host's data unless told otherwise.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    user_data_dir().join("data")
}

/// Folder of the guest toolchains: `WHIT_TOOLCHAINS`, or beside the data.
#[must_use]
pub fn toolchains_dir() -> PathBuf {
    match std::env::var_os("WHIT_TOOLCHAINS") {
        Some(folder) => folder.into(),
        None => user_data_dir().join("toolchains"),
    }
}

/// What the log shows: `WHIT_LOG`, in the form of `info,whit=debug`.
#[must_use]
pub fn log_filter() -> String {
    std::env::var("WHIT_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// Certificates of authorities that are used instead of the machine's own:
/// `SSL_CERT_FILE`, and the folders in `SSL_CERT_DIR`.
#[must_use]
pub fn trusted_certificates() -> Vec<PathBuf> {
    let folders = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    std::env::split_paths(&folders).chain(file).collect()
}

/// Whether the standard library captures a backtrace for each error.
#[must_use]
pub fn library_backtraces_are_on() -> bool {
    let set = |name: &str| std::env::var(name).ok();
    // As `std::backtrace` reads them.
    match set("RUST_LIB_BACKTRACE").or_else(|| set("RUST_BACKTRACE")) {
        Some(value) => value != "0",
        None => false,
    }
}

fn user_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(|| PathBuf::from("/var/lib")).join("whit")
}

/// Mappings that a process may have. 65530 is the kernel's own default, many
/// distributions have more.
fn machine_mappings() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

/// Components that fit into a process's mappings beside full pools.
fn loaded_default(machine_mappings: u32, instances: u32) -> u32 {
    let taken = pool::mappings_max(instances).saturating_add(OTHER_MAPPINGS);
    let left = machine_mappings.saturating_sub(taken);
    (left / MAPPINGS_PER_COMPONENT).clamp(LOADED_DEFAULT_MIN, LOADED_DEFAULT_MAX)
}

/// Memory that this process may use, in bytes: the machine's, or its group's.
fn machine_memory_bytes() -> u64 {
    let bytes = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let pages = rustix::system::sysinfo();
    let machine = pages.totalram.saturating_mul(u64::from(pages.mem_unit));
    groups.into_iter().filter_map(bytes).fold(machine, u64::min)
}

impl Config {
    /// Reads file, environment and flags, and checks everything.
    ///
    /// # Errors
    /// All problems at once.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let environment = |name: &str| std::env::var(format!("WHIT_{}", name.to_uppercase())).ok();
        let file = match &flags.config {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                ConfigError(vec![format!("{} can not be read: {error}", path.display())])
            })?,
        };
        Self::resolve(&file, environment, flags)
    }

    fn resolve(
        file: &str,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(file, environment, flags)?;
        let instances = reader.number("instances_max", 1..=INSTANCES_MAX);
        let config = Self {
            listen: reader.value("listen"),
            admin_listen: reader.value("admin_listen"),
            data_dir: reader.data_dir(),
            pool: PoolBounds {
                instances,
                memory_bytes_max: reader.size("memory_max"),
                guest_memory_bytes_max: reader.guest_memory(),
                fine_clocks: reader.parsed("fine_clocks").unwrap_or(false),
            },
            tls: reader.tls(),
            connections_max: reader.number("connections_max", 1..=1_000_000) as usize,
            head_time_max: reader.time("head_time_max"),
            idle_time_max: reader.time("idle_time_max"),
            body_stall_max: reader.time("body_stall_max"),
            response_stall_max: reader.time("response_stall_max"),
            component_bytes_max: reader.size("component_max"),
            loaded_max: reader.loaded(instances) as usize,
            compile: CompileBounds {
                memory_bytes_max: reader.size("compile_memory_max"),
                time_max: reader.time("compile_time_max"),
                children_max: reader.number("compiles_max", 1..=64) as usize,
                threads: reader.number("compile_threads", 1..=64),
            },
            drain_time_max: reader.time("drain_time_max"),
            receipts_bytes_max: reader.size("receipts_max"),
            private_egress: reader.parsed("private_egress").unwrap_or(false),
            sandbox: reader.parsed("sandbox").unwrap_or(Mode::Auto),
            origins: Vec::new(),
        };
        reader.finish(config)
    }

    /// The resolved values and where each came from, a line each.
    #[must_use]
    pub fn explain(&self) -> String {
        self.origins.iter().fold(String::new(), |mut text, (name, value, origin)| {
            let _ = writeln!(text, "{name:<20} {value:<24} {origin}");
            text
        })
    }
}

/// Collects values, their origins and all problems.
struct Reader {
    values: BTreeMap<&'static str, (String, String)>,
    problems: Vec<String>,
}

impl Reader {
    fn new(
        file: &str,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let table: toml::Table = file.parse().map_err(|error| {
            ConfigError(vec![format!("the configuration file is not TOML: {error}")])
        })?;
        let mut problems = Vec::new();
        for key in table.keys().filter(|key| !SETTINGS.iter().any(|(name, ..)| name == key)) {
            let similarity = |name: &str| strsim::jaro_winkler(name, key);
            let nearest = SETTINGS
                .iter()
                .map(|(name, ..)| *name)
                .max_by(|left, right| similarity(left).total_cmp(&similarity(right)));
            let nearest = nearest.unwrap_or_default();
            problems.push(format!("unknown key {key:?}; the nearest known one is {nearest:?}"));
        }
        let mut values = BTreeMap::new();
        for (name, default, _) in SETTINGS {
            let from_flags = flags.settings.get(name).map(|value| (value.clone(), "flag".into()));
            let from_environment = || {
                let variable = format!("WHIT_{}", name.to_uppercase());
                environment(name).map(|value| (value, format!("environment ({variable})")))
            };
            let from_file = || {
                table.get(*name).map(|value| match value {
                    toml::Value::String(text) => (text.clone(), "file".to_owned()),
                    other => (other.to_string(), "file".to_owned()),
                })
            };
            let value = from_flags.or_else(from_environment).or_else(from_file);
            values
                .insert(*name, value.unwrap_or_else(|| ((*default).into(), "default".to_owned())));
        }
        Ok(Self { values, problems })
    }

    fn text(&self, name: &'static str) -> String {
        self.values.get(name).map(|(value, _)| value.clone()).unwrap_or_default()
    }

    fn parsed<T>(&mut self, name: &'static str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(name);
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let origin = self.values.get(name).map(|(_, origin)| origin.as_str());
                let origin = origin.unwrap_or_default();
                self.problems.push(format!("{name} = {text:?} ({origin}): {error}"));
                None
            }
        }
    }

    fn value(&mut self, name: &'static str) -> SocketAddr {
        self.parsed(name).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn size(&mut self, name: &'static str) -> u64 {
        self.parsed::<ByteSize>(name).map_or(0, |size| size.0)
    }

    fn time(&mut self, name: &'static str) -> Duration {
        self.parsed::<Millis>(name).map_or(Duration::ZERO, Millis::duration)
    }

    fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u32>) -> u32 {
        let number = self.parsed(name).unwrap_or(*range.start());
        if !range.contains(&number) {
            let (low, high) = (range.start(), range.end());
            self.problems.push(format!("{name} = {number}: must be from {low} to {high}"));
        }
        number
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        let [certificate, key] = ["tls_cert", "tls_key"].map(|name| self.text(name));
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => None,
            (false, false) => Some(TlsFiles { certificate: certificate.into(), key: key.into() }),
            (one_is_missing, _) => {
                let (missing, given) =
                    if one_is_missing { ("tls_cert", "tls_key") } else { ("tls_key", "tls_cert") };
                self.problems.push(format!("{given} is set and {missing} is not: TLS needs both"));
                None
            }
        }
    }

    /// A host that gives its guests more memory than the machine has is ended by
    /// the kernel, with all of them.
    fn guest_memory(&mut self) -> u64 {
        if !self.text("guest_memory_max").is_empty() {
            return self.size("guest_memory_max");
        }
        let bytes = machine_memory_bytes() / 4 * 3;
        let shown = format!("{}MiB", bytes >> 20);
        self.values.insert("guest_memory_max", (shown, "default".to_owned()));
        bytes
    }

    fn loaded(&mut self, instances: u32) -> u32 {
        if !self.text("loaded_max").is_empty() {
            return self.number("loaded_max", 1..=LOADED_MAX);
        }
        let loaded = loaded_default(machine_mappings(), instances);
        self.values.insert("loaded_max", (loaded.to_string(), "default".to_owned()));
        loaded
    }

    fn data_dir(&mut self) -> PathBuf {
        let folder = self.text("data_dir");
        if !folder.is_empty() {
            return folder.into();
        }
        let folder = default_data_dir();
        let shown = folder.display().to_string();
        self.values.insert("data_dir", (shown, "default".to_owned()));
        folder
    }

    fn finish(self, mut config: Config) -> Result<Config, ConfigError> {
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        config.origins =
            self.values.into_iter().map(|(name, (value, origin))| (name, value, origin)).collect();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_components_stay_as_the_kernel_has_mappings_for() {
        // The kernel's default, and what many distributions have.
        assert_eq!(loaded_default(65_530, 1_000), 5_010);
        assert_eq!(loaded_default(1_048_576, 1_000), 10_000);
        assert_eq!(loaded_default(65_530, 100), 10_000);
        assert_eq!(loaded_default(65_530, INSTANCES_MAX), 1_000);
        let mut shown = Config::resolve("", |_| None, &Flags::default()).unwrap().explain();
        shown.retain(|character| character != ' ');
        let loaded = loaded_default(machine_mappings(), 1_000);
        assert!(shown.contains(&format!("loaded_max{loaded}")), "{shown}");
    }

    #[test]
    fn later_sources_win() {
        let mut flags = Flags::default();
        flags.settings.insert("listen", "127.0.0.1:1".into());
        let environment = |name: &str| match name {
            "listen" => Some("127.0.0.1:2".to_owned()),
            "instances_max" => Some("7".to_owned()),
            _ => None,
        };
        let file = "listen = '127.0.0.1:3'\ninstances_max = 8\ndrain_time_max = '5s'";
        let config = Config::resolve(file, environment, &flags).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.pool.instances, 7);
        assert_eq!(config.drain_time_max, Duration::from_secs(5));
        assert!(config.explain().contains("environment (WHIT_INSTANCES_MAX)"));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let file =
            "lisen = 'x'\ninstances_max = 0\ndrain_time_max = '5 parsecs'\ntls_key = 'key.pem'";
        let error = Config::resolve(file, |_| None, &Flags::default()).unwrap_err().to_string();
        for part in [
            "4 problem(s)",
            "\"listen\"",
            "from 1 to 2500",
            "5 parsecs",
            "tls_key is set and tls_cert is not",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
