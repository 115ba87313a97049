//! A host in a process of its own, with its own data folder and its own ports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::http::{Connection, Request, Response};
use crate::wait::{PATIENCE, eventually};

/// Settings of every host that does not say otherwise. Small pools: tests run in
/// parallel, and none needs a thousand guests at once.
const SETTINGS: [(&str, &str); 2] = [("instances_max", "64"), ("log", "info")];

/// Where a host listens unless told otherwise.
const ANY_PORT: &str = "127.0.0.1:0";
/// Ports that the system gives to nobody by itself.
const FIXED_PORTS: std::ops::Range<u32> = 20_000..30_000;

/// How a host is to be started.
#[derive(Debug, Clone)]
pub struct HostBuilder {
    binary: PathBuf,
    data: Arc<DataFolder>,
    settings: BTreeMap<String, String>,
    listen: String,
    descriptors: Option<u64>,
    expected: Vec<String>,
    allowed: Vec<String>,
}

#[derive(Debug)]
struct DataFolder {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl HostBuilder {
    /// A host of this binary with a new data folder, which goes with it.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        let temporary = tempfile::tempdir().expect("make a data folder");
        let data = DataFolder { path: temporary.path().join("data"), _temporary: Some(temporary) };
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            binary: binary.into(),
            data: Arc::new(data),
            settings: settings.into(),
            listen: ANY_PORT.to_owned(),
            descriptors: None,
            expected: Vec::new(),
            allowed: Vec::new(),
        }
    }

    /// A setting by its name in the configuration file, given as `WHIT_NAME`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// Has the data plane listen where the next host on this data folder will, too.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn same_port(mut self) -> Self {
        let first = std::process::id() % FIXED_PORTS.len() as u32;
        let ports = FIXED_PORTS.cycle().skip(first as usize).take(FIXED_PORTS.len());
        let free = ports.map(|port| format!("127.0.0.1:{port}"));
        let mut free = free.filter(|address| std::net::TcpListener::bind(address).is_ok());
        self.listen = free.next().expect("a free port");
        self
    }

    /// Gives it so many open files, and no more.
    #[must_use]
    pub fn descriptors(mut self, descriptors: u64) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// A data folder that is somebody else's to make and remove.
    #[must_use]
    pub fn data_folder(mut self, path: &Path) -> Self {
        self.data = Arc::new(DataFolder { path: path.to_owned(), _temporary: None });
        self
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data.path
    }

    /// Starts the host and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Host {
        let mut command = match self.descriptors {
            None => Command::new(&self.binary),
            Some(descriptors) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(&self.binary);
                shell
            }
        };
        command
            .args(["serve", "--listen", &self.listen])
            .args(["--admin-listen", ANY_PORT, "--ready-json"])
            .arg("--data-dir")
            .arg(&self.data.path)
            // Otherwise the process replaces itself first, to turn them off.
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHIT_")) {
            command.env_remove(name);
        }
        for (name, value) in &self.settings {
            command.env(format!("WHIT_{}", name.to_uppercase()), value);
        }
        let mut child = command.spawn().expect("start the host");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        let lines = Arc::clone(&log);
        let log_reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("the log").push(line);
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody waits for a second line.
                let _ = sender.send(line);
            }
        });
        let mut host = Host {
            child,
            log,
            log_reader: Some(log_reader),
            data: String::new(),
            admin: String::new(),
            token: String::new(),
            running: true,
            builder: self,
        };
        let line = match ready.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the host did not get ready"),
            Err(RecvTimeoutError::Disconnected) => panic!("the host ended at its start"),
        };
        host.read_ready_line(&line);
        host
    }
}

/// A running host. At its end, unless the test has failed already, it is stopped
/// as an operator would, and has to have logged nothing that it should not.
pub struct Host {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
    data: String,
    admin: String,
    token: String,
    running: bool,
    builder: HostBuilder,
}

impl Host {
    fn read_ready_line(&mut self, line: &str) {
        let ready: Value = serde_json::from_str(line).expect("the ready line is JSON");
        let address = |name: &str| {
            let url = ready[name].as_str();
            let address = url.and_then(|url| url.split_once("://").map(|(_, address)| address));
            address.unwrap_or_else(|| panic!("no {name} URL in {line}")).to_owned()
        };
        (self.data, self.admin) = (address("data"), address("admin"));
        let token = std::fs::read_to_string(self.folder().join("admin.token"));
        self.token = token.expect("the admin token").trim().to_owned();
    }

    /// `ADDRESS:PORT` of the data plane.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.data
    }

    /// `ADDRESS:PORT` of the admin API.
    #[must_use]
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// The admin token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.builder.data()
    }

    /// The admin API, with the token.
    #[must_use]
    pub fn admin(&self) -> Admin<'_> {
        Admin::new(&self.admin, &self.token)
    }

    /// A connection to the data plane.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(&self.data)
    }

    /// Sends a request to the data plane, on a connection of its own.
    #[track_caller]
    pub fn call(&self, request: &Request) -> Response {
        self.connect().call(request)
    }

    /// `GET path` from the data plane.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.call(&Request::get(path))
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A line of `/proc/PID/status` that has a size in kB, in bytes.
    #[must_use]
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes =
            line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
        kilobytes.map_or_else(|| panic!("no {field} in {status}"), |kb: u64| kb << 10)
    }

    /// The processor time that the process has used.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        // utime and stime.
        let ticks: u64 = self.state().skip(11).take(2).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// How often the process has used a page of memory that the kernel had to get first,
    /// if not from a disk.
    #[must_use]
    pub fn page_faults(&self) -> u64 {
        self.state().nth(7).expect("minflt")
    }

    /// What `/proc/PID/stat` has behind the process's name, from its state on, as far as
    /// it is numbers; the others are 0.
    fn state(&self) -> impl Iterator<Item = u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("the process's state");
        // The name may hold anything.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
        fields.into_iter()
    }

    /// Sets how many files the process may have open from now on.
    pub fn limit_descriptors(&self, current: u64) {
        let pid = Some(Pid::from_child(&self.child));
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(pid, Resource::Nofile, limit).expect("limit the descriptors");
    }

    /// The number that the next file that the process opens will have.
    #[must_use]
    pub fn next_descriptor(&self) -> u64 {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let open = open.expect("the process's descriptors").map_while(Result::ok);
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let numbers: BTreeSet<u64> = numbers.collect();
        (0..).find(|number| !numbers.contains(number)).unwrap_or(0)
    }

    /// The process's memory now, from where [`Self::growth_bytes`] counts.
    #[must_use]
    pub fn mark_memory(&self) -> u64 {
        // 5 resets the peak: proc(5), /proc/PID/clear_refs.
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("reset the peak");
        self.memory_bytes("VmRSS")
    }

    /// How far the process's memory rose above `mark` at its highest.
    #[must_use]
    pub fn growth_bytes(&self, mark: u64) -> u64 {
        self.memory_bytes("VmHWM").saturating_sub(mark)
    }

    /// What the host has logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    /// Allows and demands a warning or error that contains this text.
    pub fn expect_warning(&mut self, text: &str) {
        self.builder.expected.push(text.to_owned());
    }

    /// Allows a warning or error that contains this text, and does not demand it.
    pub fn allow_warning(&mut self, text: &str) {
        self.builder.allowed.push(text.to_owned());
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signal the host");
    }

    /// Waits for the end of a host that was told to stop, and checks how it ended.
    #[track_caller]
    pub fn finish(mut self) -> HostBuilder {
        self.ended_well();
        self.builder.clone()
    }

    /// Stops the host gracefully and checks how it ended. What is returned starts
    /// one on the same data folder.
    #[track_caller]
    pub fn stop(self) -> HostBuilder {
        self.terminate();
        self.finish()
    }

    /// Stops the host gracefully and starts one on the same data folder.
    #[must_use]
    #[track_caller]
    pub fn restart(self) -> Host {
        self.stop().start()
    }

    /// `kill -9`: no time to tidy up. Follow it with [`Self::reap`].
    pub fn kill_now(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for the end of a host that was killed. What is returned starts one on
    /// the same data folder.
    #[must_use]
    #[track_caller]
    pub fn reap(mut self) -> HostBuilder {
        self.wait();
        self.check_log();
        self.builder.clone()
    }

    fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the host's end", || child.try_wait().expect("the host's status"));
        self.running = false;
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the log's reader");
        }
        status
    }

    #[track_caller]
    fn ended_well(&mut self) {
        let status = self.wait();
        assert!(status.success(), "the host ended with {status}");
        self.check_log();
    }

    /// Warnings and errors are for what an operator has to know: any that a test
    /// does not expect is a bug, and so is one that does not come.
    #[track_caller]
    fn check_log(&mut self) {
        let expected = std::mem::take(&mut self.builder.expected);
        let allowed = std::mem::take(&mut self.builder.allowed);
        let log = self.log();
        let bad = |line: &&String| {
            let level = line.split_whitespace().nth(1);
            matches!(level, Some("WARN" | "ERROR")) || line.contains("panicked at")
        };
        let bad: Vec<&String> = log.iter().filter(bad).collect();
        let unexpected: Vec<_> = bad
            .iter()
            .filter(|line| !expected.iter().chain(&allowed).any(|text| line.contains(text)))
            .collect();
        let missing: Vec<_> = expected
            .iter()
            .filter(|text| !bad.iter().any(|line| line.contains(text.as_str())))
            .collect();
        if !(unexpected.is_empty() && missing.is_empty()) {
            self.print_log();
            panic!("unexpected in the host's log: {unexpected:#?}; missing: {missing:#?}");
        }
    }

    fn print_log(&self) {
        eprintln!("--- the host's log ---");
        for line in self.log() {
            eprintln!("{line}");
        }
        eprintln!("--- end of the host's log ---");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.print_log();
        } else if self.running {
            self.terminate();
            self.ended_well();
        }
    }
}
