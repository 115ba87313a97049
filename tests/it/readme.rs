//! README.md says what is so: its transcripts are what happens, and what it names
//! is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::command;
use tests::dev::Dev;
use tests::guests::{self, repository};
use tests::readme::{self, Curl};
use whit::dev::templates;

use crate::WHIT;

fn text() -> String {
    fs::read_to_string(repository().join("README.md")).expect("README.md")
}

/// What README's commands are tried in.
struct Desk {
    folder: tempfile::TempDir,
    dev: Option<Dev>,
}

impl Desk {
    /// What a command of README prints, with the address and the folder that
    /// README has.
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["whit", "new", name, "--lang", language] => {
                let template = templates::find(language).expect("a template");
                template.language.into_iter().for_each(guests::get_ready);
                let mut new = command::command(WHIT, self.folder.path());
                new.args(["new", name, "--lang", language]).current_dir(self.folder.path());
                command::run(&mut new).succeeded()
            }
            ["cd", name, "&&", "whit", "dev", "&"] => {
                let home = self.folder.path().canonicalize().expect("the folder");
                let dev = Dev::start(WHIT, &home.join(name));
                let printed = dev.is_ready().replace(dev.address(), "127.0.0.1:8080");
                self.dev = Some(dev);
                printed.replace(&home.display().to_string(), "~")
            }
            ["curl", ..] => {
                let curl = Curl::parse(line, Path::new(".")).expect("a curl line");
                curl.run(self.dev.as_ref().expect("a host").address())
            }
            _ => panic!("README shows what {line:?} prints; nobody has tried it"),
        }
    }
}

#[test]
fn its_transcripts_are_what_happens() {
    let _turn = guests::take_turns();
    let mut desk = Desk { folder: tempfile::tempdir().expect("a folder"), dev: None };
    let mut tried = 0;
    for (line, shown) in readme::shown(&text()) {
        if !shown.is_empty() {
            assert_eq!(desk.run(&line).trim_end(), shown.trim_end(), "{line}");
            tried += 1;
        }
    }
    assert!(tried >= 9, "{tried}");
}

/// The commands that README names, in blocks and in lines, without comments.
fn commands(text: &str) -> BTreeSet<String> {
    let shown = readme::shown(text).into_iter().map(|(line, _)| line);
    let named = text.lines().filter(|line| !line.starts_with("```"));
    let named = named.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned);
    let parts = shown.chain(named).flat_map(|line| {
        let line = line.split(" #").next().unwrap_or_default().to_owned();
        line.split(" && ")
            .map(|part| part.trim_end_matches(" &").trim().to_owned())
            .collect::<Vec<_>>()
    });
    parts.filter(|part| part.starts_with("whit ") || part.starts_with("make ")).collect()
}

#[test]
fn its_commands_are_there_with_their_flags() {
    let makefile = fs::read_to_string(repository().join("Makefile")).expect("the Makefile");
    let commands = commands(&text());
    for line in &commands {
        let words: Vec<&str> = line.split_whitespace().collect();
        let has = |what: &str, flag: &str| {
            what.split(|end: char| end.is_whitespace() || end == ',').any(|word| word == flag)
        };
        if words[0] == "make" {
            assert!(makefile.contains(&format!("\n{}:", words[1])), "there is no `{line}`");
            for (variable, _) in words[2..].iter().filter_map(|word| word.split_once('=')) {
                assert!(makefile.contains(&format!("$({variable})")), "{line}: {variable}");
            }
            continue;
        }
        let mut help = command::command(WHIT, Path::new("/nowhere"));
        let help = command::run(help.args([words[1], "--help"])).succeeded();
        for flag in words.iter().filter(|word| word.starts_with('-')) {
            assert!(has(&help, flag), "`{line}`: {flag} is not in:\n{help}");
        }
    }
    assert!(commands.len() >= 15, "{commands:?}");
}

#[test]
fn its_links_lead_somewhere() {
    let text = text();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links: Vec<&str> = links.filter(|link| !link.starts_with("http")).collect();
    for link in &links {
        assert!(repository().join(link).exists(), "README.md leads to {link}");
    }
    assert!(links.len() >= 10, "{links:?}");
}
