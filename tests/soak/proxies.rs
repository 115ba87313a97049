//! Behind another server, which reads requests before we do: what the two could
//! read in two ways reaches no function, and no answer goes to another request.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Connection, Host, Request, Response, eventually, guests};

use crate::{PROXIED_REQUESTS, alone, host};

/// Connections at the same time.
const CLIENTS: usize = 16;
/// Longest wait for the end of a connection; the proxies' own limits are shorter.
const CONNECTION_MAX: Duration = Duration::from_secs(20);

/// A server that can stand before a host: it gives each request that it forwards a
/// number as `x-proxy-id`. Its log has a line for each request that it has read:
/// `request`, that number, the one that the function has seen, and the status of the
/// answer.
struct Kind {
    program: &'static str,
    /// Of itself at the first address, before a host at the second one.
    configuration: fn(&str, &str, &Path) -> String,
    /// What is said before the file with the configuration.
    arguments: fn(&str, &Path) -> String,
    /// What tells it to finish what it does, and end.
    stop: Signal,
    /// Writes the log, if it does not.
    logger: Option<fn(&Path) -> Command>,
    /// The status of its answer to a request whose body has broken off once some of it
    /// was sent on. Others wait for all of it.
    broken_off: Option<&'static str>,
}

const NGINX: Kind = Kind {
    program: "nginx",
    configuration: nginx,
    arguments: |_, folder| format!("-e {}/errors -c", folder.display()),
    stop: Signal::QUIT,
    logger: None,
    broken_off: None,
};
const HAPROXY: Kind = Kind {
    program: "haproxy",
    configuration: haproxy,
    arguments: |_, _| "-db -f".to_owned(),
    stop: Signal::USR1,
    logger: None,
    broken_off: None,
};
const VARNISH: Kind = Kind {
    program: "varnishd",
    configuration: varnish,
    arguments: |own, folder| {
        format!("-F -j none -s malloc,32m -n {}/varnish -a {own} -f", folder.display())
    },
    stop: Signal::TERM,
    logger: Some(varnish_logger),
    // To the host it ends such a body like a whole one.
    broken_off: Some("503"),
};

/// One that runs.
struct Proxy<'a> {
    kind: &'a Kind,
    processes: Vec<Child>,
    address: String,
    folder: tempfile::TempDir,
}

impl<'a> Proxy<'a> {
    /// Starts one, if it is installed.
    fn start(kind: &'a Kind, host: &Host) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port").to_string();
        let file = folder.path().join("configuration");
        let configuration = (kind.configuration)(&address, host.address(), folder.path());
        fs::write(&file, configuration).expect("write");
        let mut command = Command::new(kind.program);
        command.args((kind.arguments)(&address, folder.path()).split(' ')).arg(&file);
        let log = File::create(log_of(folder.path())).expect("the log");
        let process = match command.stdout(log).stderr(Stdio::null()).spawn() {
            Ok(process) => process,
            Err(error) => {
                println!("skipped: {} is not here: {error}", kind.program);
                return None;
            }
        };
        let mut proxy = Self { kind, processes: vec![process], address, folder };
        eventually(proxy.kind.program, || TcpStream::connect(&proxy.address).ok());
        if let Some(logger) = proxy.kind.logger {
            proxy.processes.push(logger(proxy.folder.path()).spawn().expect("the logger"));
        }
        // Loggers begin with what comes once they are there.
        eventually("its log", || {
            proxy.ask("/nowhere/");
            (!proxy.log().is_empty()).then_some(())
        });
        Some(proxy)
    }

    fn ask(&self, path: &str) -> Response {
        Connection::open(&self.address).call(&Request::get(path))
    }

    fn log(&self) -> String {
        fs::read_to_string(log_of(self.folder.path())).expect("the log")
    }

    /// Ends it, once it has written of all its requests; what it has said.
    fn end(mut self) -> String {
        let last = self.ask("/witness/last");
        let line = format!("request {} ", last.header("x-witness").expect("a witness"));
        eventually("the line of the last request", || self.log().contains(&line).then_some(()));
        // Its logger first.
        for process in self.processes.iter_mut().rev() {
            kill_process(Pid::from_child(process), self.kind.stop).expect("tell it to end");
            process.wait().expect("its end");
        }
        self.log()
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Both fail only if it has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// As little strict as it can be, with connections to the host that are used again.
fn nginx(own: &str, host: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "user root; daemon off; worker_processes 1; pid {folder}/pid;
        events {{ worker_connections 512; }}
        http {{
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
            fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            log_format ids 'request $request_id $upstream_http_x_witness $upstream_status';
            access_log {folder}/log ids;
            client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 2s;
            ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;
            upstream whit {{ server {host}; keepalive 8; }}
            server {{
                listen {own};
                location / {{
                    proxy_pass http://whit; proxy_http_version 1.1; proxy_next_upstream off;
                    proxy_set_header Connection ''; proxy_set_header X-Proxy-Id $request_id;
                    proxy_ignore_client_abort on;
                }}
            }}
        }}"
    )
}

/// The same. One thread: of several, one that can not have the log at once throws its
/// line away.
fn haproxy(own: &str, host: &str, _: &Path) -> String {
    format!(
        "global
    log stdout format raw local0
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 2s
    timeout server 20s
    timeout http-request 2s
    timeout http-keep-alive 2s
    option http-buffer-request
    option http-keep-alive
    retries 0
frontend clients
    bind {own}
    option accept-invalid-http-request
    unique-id-format %[uuid()]
    unique-id-header X-Proxy-Id
    capture response header X-Witness len 64
    log global
    log-format \"request %ID %[capture.res.hdr(0)] %ST\"
    default_backend whit
backend whit
    http-reuse always
    server whit {host}
"
    )
}

/// The same; its log is in memory, where another program reads it.
fn varnish(_: &str, host: &str, _: &Path) -> String {
    let (address, port) = host.rsplit_once(':').expect("an address");
    format!(
        "vcl 4.1;
backend whit {{ .host = \"{address}\"; .port = \"{port}\"; }}
sub vcl_recv {{ set req.http.X-Proxy-Id = req.xid; return (pass); }}
"
    )
}

fn varnish_logger(folder: &Path) -> Command {
    let mut command = Command::new("varnishncsa");
    command.arg("-n").arg(folder.join("varnish")).arg("-w").arg(log_of(folder));
    command.args(["-F", "request %{x-proxy-id}i %{x-witness}o %s"]);
    command
}

/// Numbers that look random, the same at each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Requests that servers are known to read in different ways, after their first line.
const HEADS: [&str; 33] = [
    "host: a\r\n\r\n",
    "host: a\r\ncontent-length: 0\r\n\r\n",
    "host: a\r\ncontent-length: 5\r\n\r\nhello",
    "host: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "host: a\r\ncontent-length: 5\r\ncontent-length: 0\r\n\r\nhello",
    "host: a\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\nhello",
    "host: a\r\ncontent-length: 5, 5\r\n\r\nhello",
    "host: a\r\ncontent-length: +5\r\n\r\nhello",
    "host: a\r\ncontent-length: 05\r\n\r\nhello",
    "host: a\r\ncontent-length : 5\r\n\r\nhello",
    "host: a\r\ncontent-length:\r\n 5\r\n\r\nhello",
    "host: a\r\ncontent_length: 5\r\n\r\nhello",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: xchunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "host: a\r\nx: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "host: a\r\nx: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\nc\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "host: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n",
    "host: a\r\nconnection: content-length, close\r\ncontent-length: 5\r\n\r\nhello",
    "host: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
    "host: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n\r\n",
];

/// What is put into requests.
const PIECES: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    "\x0b",
    ":",
    ",",
    ";",
    "0",
    "5",
    "\r\n ",
    "\u{e9}",
    "\x7f",
    "content-length: 5\r\n",
    "content-length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "0\r\n\r\n",
    "connection: transfer-encoding\r\n",
    "HTTP/1.0",
    "host: b\r\n",
];

/// A request with up to three mistakes, one that is hidden where its body may end,
/// and a good one after it. All have the token.
fn mutated(numbers: &mut Numbers, token: &str) -> Vec<u8> {
    let method = numbers.one_of(&["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS"]);
    let version = numbers.one_of(&["1.1", "1.1", "1.1", "1.0"]);
    let head = numbers.one_of(&HEADS);
    let mut bytes =
        format!("{method} /witness/{token}/first HTTP/{version}\r\n{head}").into_bytes();
    for _ in 0..numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(4) {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = numbers.one_of(&PIECES).as_bytes()[0],
            _ => drop(bytes.splice(at..at, numbers.one_of(&PIECES).bytes())),
        }
    }
    if numbers.below(2) == 0 {
        bytes.extend(format!("GET /witness/{token}/hidden HTTP/1.1\r\nx: ").bytes());
    }
    bytes.extend(format!("GET /witness/{token}/next HTTP/1.1\r\nhost: a\r\n\r\n").bytes());
    bytes
}

/// What comes back until the connection ends.
fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(address).expect("connect");
    connection.set_read_timeout(Some(CONNECTION_MAX)).expect("a timeout");
    let mut answers = Vec::new();
    // Both may find that it is closed already.
    let _ = connection.write_all(bytes).and_then(|()| connection.shutdown(Shutdown::Write));
    if let Err(error) = connection.read_to_end(&mut answers) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{:?}", bytes.escape_ascii());
    }
    answers
}

fn token(number: usize) -> String {
    format!("{:016x}", Numbers(number as u64).next())
}

/// Sends mutated requests; each answer has the token of its connection, or none.
fn attack(address: &str) {
    let tokens: HashMap<String, usize> =
        (0..PROXIED_REQUESTS).map(|one| (token(one), one)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= PROXIED_REQUESTS {
                        return;
                    }
                    let bytes = mutated(&mut Numbers(!(number as u64)), &token(number));
                    let answers = send(address, &bytes);
                    let answers = String::from_utf8_lossy(&answers).into_owned();
                    for part in answers.split("/witness/").skip(1) {
                        let seen = part.get(..16).and_then(|token| tokens.get(token));
                        let is_own = seen.is_none_or(|seen| *seen == number);
                        assert!(is_own, "{:?} got {answers:?}", bytes.escape_ascii().to_string());
                    }
                }
            });
        }
    });
}

/// Every request that has reached the function is one that the proxy has forwarded,
/// and the proxy took its answer for that request's.
fn compare(kind: &Kind, host: &Host, log: &str) {
    let name = kind.program;
    let (mut read, mut witnessed) = (0, 0);
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    // What else it says begins in other ways.
    for line in log.lines().filter_map(|line| line.strip_prefix("request ")) {
        let [id, seen, status] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{name} says {line:?}");
        };
        read += usize::from(seen != "-" || status != "-");
        if seen != "-" {
            assert_eq!(id, seen, "{name} took one answer for another");
            witnessed += 1;
        } else {
            *others.entry(status).or_default() += 1;
        }
    }
    // Its receipt comes after those of all before it.
    let last = host.call(&Request::get("/witness/last").header("x-proxy-id", "last"));
    let _ = host.admin().receipt(&last.request_id());
    let metrics = host.admin().get("/metrics").text();
    let ended = |outcome: &str| -> usize {
        let start = format!("whit_requests_total{{function=\"witness\",outcome=\"{outcome}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&start));
        count.map_or(0, |count| count.parse().expect("a number"))
    };
    // Bodies that turn out to be broken while the function reads are refused.
    let reached = ended("ok") - 1;
    println!(
        "{PROXIED_REQUESTS} mutated requests through {name}: {read} read, {witnessed} answered by the function, {reached} have reached it"
    );
    assert_eq!(ended("trapped"), 0, "requests that {name} has not forwarded as such");
    let broken_off = kind.broken_off.and_then(|status| others.get(status)).copied().unwrap_or(0);
    assert!(
        (witnessed..=witnessed + broken_off).contains(&reached),
        "{name} and the host have not read the same requests; without a witness: {others:?}"
    );
    // An answer that was on its way is not lost because a connection ends.
    assert_eq!(others.get("502"), None, "{name} had no answer to a request");
    // It is a test of what gets through, too.
    assert!(witnessed * 10 > PROXIED_REQUESTS, "{name}: {witnessed}");
}

fn behind(kind: &Kind) {
    let _alone = alone();
    let host = host().start();
    host.admin().deploy("witness", guests::witness());
    let Some(proxy) = Proxy::start(kind, &host) else { return };
    attack(&proxy.address);
    host.admin().metric_becomes("whit_invocations_running", 0.0);
    let log = proxy.end();
    compare(kind, &host, &log);
}

#[test]
fn behind_nginx_no_request_is_two() {
    behind(&NGINX);
}

#[test]
fn behind_haproxy_no_request_is_two() {
    behind(&HAPROXY);
}

#[test]
fn behind_varnish_no_request_is_two() {
    behind(&VARNISH);
}
