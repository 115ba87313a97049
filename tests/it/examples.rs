//! Every example does what its README says: each `curl` line in it is tried, and
//! has to print what stands below it.

use std::fs::{self, File};
use std::path::Path;

use tests::command;
use tests::{Host, Request, guests};
use whit::dev::languages::{self, Language};

use crate::{WHIT, host};

#[test]
fn hello_rust() {
    follow_readme("hello-rust", Language::Rust);
}

#[test]
fn hello_c() {
    follow_readme("hello-c", Language::C);
}

#[test]
fn hello_go() {
    follow_readme("hello-go", Language::Go);
}

#[test]
fn hello_python() {
    follow_readme("hello-python", Language::Python);
}

#[test]
fn hello_javascript() {
    follow_readme("hello-javascript", Language::JavaScript);
}

#[test]
fn thumbnails() {
    let host = follow_readme("thumbnails", Language::Rust);
    let samples = guests::repository().join("examples/thumbnails/samples");
    for (sample, query, size, kind) in [
        ("landscape.jpg", "width=320", (320, 213), "image/jpeg"),
        ("badge.png", "height=50&format=jpeg", (50, 50), "image/jpeg"),
        ("turned.jpg", "width=100", (0, 0), "image/jpeg"),
        ("badge.png", "width=64", (64, 64), "image/png"),
    ] {
        let image = fs::read(samples.join(sample)).expect("a sample");
        let answer = host.call(&Request::post(&format!("/thumbnails/?{query}"), image));
        assert_eq!(answer.status(), 200, "{sample}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(kind), "{sample}");
        let (width, height) = dimensions(&answer.body);
        if size != (0, 0) {
            assert_eq!((width, height), size, "{sample}?{query}");
        }
        assert!(width > 0 && height > 0);
    }
}

/// Deploys an example, as its README says, and tries all that its README shows.
fn follow_readme(name: &str, language: Language) -> Host {
    let folder = guests::repository().join("examples").join(name);
    let readme = fs::read_to_string(folder.join("README.md")).expect("a README");
    let host = host().start();
    {
        let _turn = take_turns();
        get_ready(language);
        let mut deploy = command::command(WHIT, host.folder());
        command::run(deploy.arg("deploy").arg(&folder)).succeeded();
    }
    let mut tried = 0;
    for (line, expected) in shown(&readme) {
        let Some(curl) = Curl::parse(&line, &folder) else { continue };
        let printed = curl.run(&host);
        assert_eq!(printed.trim_end(), expected.trim_end(), "{name}: {line}");
        tried += 1;
    }
    assert!(tried >= 3, "{name}: only {tried} lines to try");
    host
}

/// Builds take turns: each of them uses all processors by itself.
fn take_turns() -> File {
    let work = guests::repository().join("target/guests");
    fs::create_dir_all(&work).expect("the guests' target folder");
    let lock = File::create(work.join("examples-lock")).expect("a lock");
    lock.lock().expect("lock it");
    lock
}

fn get_ready(language: Language) {
    let toolchains = guests::toolchains();
    if !languages::missing(language, &toolchains).is_empty() {
        let mut output = |line: &str| eprintln!("{line}");
        languages::install(&[language], &toolchains, &mut output)
            .unwrap_or_else(|error| panic!("install what {language} needs: {error}"));
    }
    let missing = languages::missing(language, &toolchains);
    assert!(missing.is_empty(), "{language} is not there: {missing:?}");
}

/// The commands of a README's console blocks, each with what it prints.
fn shown(readme: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands.push((command.to_owned(), String::new()));
        } else if let Some((_, output)) = commands.last_mut().filter(|_| inside) {
            output.push_str(line);
            output.push('\n');
        }
    }
    commands
}

/// A curl command, as far as READMEs use it.
struct Curl {
    request: Request,
    /// Whether the body goes to a file.
    to_file: bool,
    /// What is printed after it.
    write_out: String,
}

impl Curl {
    fn parse(line: &str, folder: &Path) -> Option<Self> {
        let mut words = split(line).into_iter();
        if words.next()? != "curl" {
            return None;
        }
        let (mut url, mut method, mut headers) = (String::new(), None, Vec::new());
        let (mut body, mut to_file, mut write_out) = (None, false, String::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{line}: {word} of what?"));
            match word.as_str() {
                "-N" | "-s" | "-i" => {}
                "-X" => method = Some(value()),
                "-H" => headers.push(value()),
                "-d" => body = Some(value().into_bytes()),
                "--data-binary" => {
                    let file = value();
                    let file = file.strip_prefix('@').unwrap_or_else(|| panic!("{line}"));
                    body = Some(fs::read(folder.join(file)).expect("the file of the README"));
                }
                "-o" => to_file = !value().is_empty(),
                "-w" => write_out = value(),
                _ => url = word,
            }
        }
        let url = url.strip_prefix("http://").unwrap_or(&url);
        let path = &url[url.find('/').unwrap_or_else(|| panic!("{line}: no path"))..];
        let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
        let mut request = Request::new(&method, path);
        for header in headers {
            let (name, value) = header.split_once(": ").expect("a header");
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        Some(Self { request, to_file, write_out })
    }

    /// What the command prints.
    fn run(&self, host: &Host) -> String {
        let answer = host.call(&self.request);
        assert!(answer.complete, "{}", self.request.path);
        let written = self
            .write_out
            .replace("%{http_code}", &answer.status().to_string())
            .replace("%{content_type}", answer.header("content-type").unwrap_or_default())
            .replace("\\n", "\n");
        if self.to_file { written } else { answer.text() + &written }
    }
}

/// Words as a shell splits them, single quotes included.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            '#' if !quoted && word.is_none() => break,
            _ => word.get_or_insert_with(String::new).push(character),
        }
    }
    words.extend(word);
    words
}

/// Width and height of a JPEG or PNG, from its head.
fn dimensions(image: &[u8]) -> (u32, u32) {
    let number = |at: usize, bytes: usize| -> u32 {
        image[at..at + bytes].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    if image.starts_with(b"\x89PNG") {
        return (number(16, 4), number(20, 4));
    }
    assert!(image.starts_with(&[0xff, 0xd8]), "neither a PNG nor a JPEG");
    let mut at = 2;
    loop {
        let marker = image[at + 1];
        // The frames that have a size: SOF0 to SOF15 but for tables.
        if (0xc0..=0xcf).contains(&marker) && ![0xc4, 0xc8, 0xcc].contains(&marker) {
            return (number(at + 7, 2), number(at + 5, 2));
        }
        at += 2 + number(at + 2, 2) as usize;
    }
}
