//! READMEs that are tests: each `curl` line in a console block is tried, and has
//! to print what stands below it.

use std::fs;
use std::path::Path;

use crate::host::Host;
use crate::http::{Connection, Request};

/// Tries every `curl` line of the README in `folder`; how many there were.
///
/// # Panics
/// When one prints something else than the README shows.
#[track_caller]
pub fn follow(folder: &Path, host: &Host) -> usize {
    let readme = fs::read_to_string(folder.join("README.md")).expect("a README");
    let mut tried = 0;
    for (line, expected) in shown(&readme) {
        let Some(curl) = Curl::parse(&line, folder) else { continue };
        let printed = curl.run(host.address());
        assert_eq!(printed.trim_end(), expected.trim_end(), "{}: {line}", folder.display());
        tried += 1;
    }
    tried
}

/// The commands of a README's console blocks, each with what it prints.
#[must_use]
pub fn shown(readme: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands.push((command.to_owned(), String::new()));
        } else if let Some((command, output)) = commands.last_mut().filter(|_| inside) {
            match command.strip_suffix('\\') {
                Some(first) => *command = first.to_owned() + line.trim_start(),
                None => output.extend([line, "\n"]),
            }
        }
    }
    commands
}

/// A curl command, as far as READMEs use it.
#[derive(Debug)]
pub struct Curl {
    request: Request,
    /// Whether the body goes to a file.
    to_file: bool,
    /// What is printed after it.
    write_out: String,
}

impl Curl {
    /// Takes a line apart, if it is such a command. Files are in `folder`.
    ///
    /// # Panics
    /// When it is one that is not known here.
    #[must_use]
    #[track_caller]
    pub fn parse(line: &str, folder: &Path) -> Option<Self> {
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
        let has_type =
            headers.iter().any(|header| header.to_lowercase().starts_with("content-type:"));
        for header in headers {
            let (name, value) = header.split_once(": ").expect("a header");
            request = request.header(name, value);
        }
        if let Some(body) = body {
            if !has_type {
                request = request.header("content-type", "application/x-www-form-urlencoded");
            }
            request = request.body(body);
        }
        Some(Self { request, to_file, write_out })
    }

    /// What the command prints, with the host at `address`.
    ///
    /// # Panics
    /// When the answer is not complete.
    #[must_use]
    #[track_caller]
    pub fn run(&self, address: &str) -> String {
        let answer = Connection::open(address).call(&self.request);
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
