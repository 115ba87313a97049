//! The matrix of languages in README: `cargo bench -p whit --bench languages`.
//!
//! Each row is what somebody meets who begins with `whit new`: the hello of that
//! language, built anew after an edit, deployed, and called for the first time
//! after the host has started (cold) and again (warm). Times of requests are the
//! host's own, from `Server-Timing`; the builds are those of the whole command.
//! From an edit to its answer is what somebody waits who saves a file under
//! `whit dev`: the middle of some edits, to the first answer that shows it.

#![allow(missing_docs, reason = "a program of its own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it stops at once")]
#![allow(clippy::indexing_slicing, reason = "it stops at once")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use whit::dev::templates::{TEMPLATES, Template};

const WHIT: &str = env!("CARGO_BIN_EXE_whit");
const WARM_CALLS: usize = 200;
/// What the hellos say instead, one edit after the other.
const GREETINGS: [&str; 3] = ["Howdy,", "Welcome,", "Ahoy,"];
/// Pause between two calls while an edit is waited for. Each takes CPU time that
/// the build could have.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    // Cargo passes `--bench`; what else is given names languages.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("| language | kind | size | build after an edit | edit to answer | cold | warm |");
    println!("|---|---|---|---|---|---|---|");
    for template in &TEMPLATES {
        if wanted.is_empty() || wanted.iter().any(|name| name == template.name) {
            row(template);
        }
    }
}

fn row(template: &Template) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    whit(folder.path(), &data, &["new", "hello", "--lang", template.name]);
    let project = folder.path().join("hello");
    whit(&project, &data, &["build"]);
    let main = project.join(template.main);
    let text = fs::read_to_string(&main).expect("the main file");
    fs::write(&main, text.replace("Hello,", "Howdy,")).expect("edit it");
    let begun = Instant::now();
    whit(&project, &data, &["build"]);
    let build = begun.elapsed();

    let (host, _) = Host::start(&data);
    let said = whit(&project, &data, &["deploy", "--json"]);
    let published: Value = serde_json::from_str(&said).expect("JSON");
    drop(host);
    let (host, address) = Host::start(&data);
    let cold = call(&address);
    let mut warm: Vec<f64> = (0..WARM_CALLS).map(|_| call(&address)).collect();
    warm.sort_by(f64::total_cmp);
    drop(host);
    let edit_to_answer = edit_to_answer(&project, &data.with_file_name("dev"), &main, "Howdy,");

    let revision = &published["revision"];
    let kibibytes = revision["component_bytes"].as_u64().expect("a size").div_ceil(1024);
    println!(
        "| {} | {} | {kibibytes} KiB | {:.1} s | {:.1} s | {cold:.2} ms | {:.2} ms |",
        template.name,
        revision["kind"].as_str().expect("a kind"),
        build.as_secs_f64(),
        edit_to_answer.as_secs_f64(),
        warm[WARM_CALLS / 2],
    );
}

/// From saving the file `main`, which says `greeting`, to an answer that shows it.
fn edit_to_answer(project: &Path, data: &Path, main: &Path, greeting: &str) -> Duration {
    let mut dev = Command::new(WHIT);
    dev.args(["dev", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    dev.arg("--data-dir").arg(data).current_dir(project);
    let mut dev = dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start whit dev");
    let lines = BufReader::new(dev.stdout.take().expect("stdout")).lines();
    let (sender, events) = mpsc::channel::<Value>();
    // Read all the time: each request may be an event, and a full pipe would stop it.
    let reading = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).expect("an event"));
        }
    });
    let event = |name: &str| events.iter().find(|event| event["event"] == name).expect("the event");
    let ready = event("ready");
    let url = ready["ready"]["data"].as_str().expect("an address");
    let address = url.trim_start_matches("http://").to_owned();
    event("watching");
    let mut text = fs::read_to_string(main).expect("the main file");
    let mut said = greeting;
    let mut times = Vec::new();
    for greeting in GREETINGS.into_iter().filter(|other| *other != greeting).chain([greeting]) {
        text = text.replace(said, greeting);
        said = greeting;
        let begun = Instant::now();
        fs::write(main, &text).expect("edit it");
        while !answer(&address).contains(greeting) {
            std::thread::sleep(PAUSE);
        }
        times.push(begun.elapsed());
        event("deployed");
    }
    let pid = dev.id().to_string();
    Command::new("kill").arg(pid).status().expect("end whit dev");
    dev.wait().expect("its end");
    reading.join().expect("all events");
    times.sort();
    times[times.len() / 2]
}

fn whit(folder: &Path, data: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(WHIT);
    command.args(arguments).arg("--data-dir").arg(data).current_dir(folder);
    let output = command.stderr(Stdio::null()).output().expect("start whit");
    assert!(output.status.success(), "whit {arguments:?} in {}", folder.display());
    String::from_utf8(output.stdout).expect("text")
}

struct Host(Child);

impl Host {
    fn start(data: &Path) -> (Self, String) {
        let mut command = Command::new(WHIT);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--ready-json", "--until-stdin-ends", "--data-dir"]).arg(data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start a host");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("the ready line");
        let url = ready["data"].as_str().expect("an address");
        let address = url.trim_start_matches("http://").to_owned();
        (Self(child), address)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("its end");
    }
}

/// Milliseconds that the host needed for one call, all its parts together.
fn call(address: &str) -> f64 {
    let answer = answer(address);
    assert!(answer.contains("Howdy, world, from "), "{answer}");
    let timing = answer.lines().find_map(|line| line.strip_prefix("server-timing: "));
    let parts = timing.expect("Server-Timing").split(", ");
    parts
        .map(|part| part.split("dur=").nth(1).expect("a time").parse::<f64>().expect("a number"))
        .sum()
}

fn answer(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    let request = "GET /hello/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
