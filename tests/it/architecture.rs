//! The shape of the sources: who may know whom, and how long things may get.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::guests::repository;

/// Most lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 80;

/// Modules by layer: one may use its own layer and those below it.
const LAYERS: [&[&str]; 8] = [
    &["model"],
    &["telemetry", "sandbox"],
    &["engine", "capabilities", "router", "storage"],
    &["invoke", "registry", "config", "dev"],
    &["http_error"],
    &["ingress", "admin", "triggers", "cluster", "shutdown"],
    &["server"],
    &["cli"],
];

/// What only some modules may know; a module is a file or folder of `host/src`.
const RESERVED: [(&[&str], &[&str]); 7] = [
    (&["wasmtime::", "wasmtime_wasi"], &["engine", "capabilities"]),
    (&["wit_component::", "wasmparser::", "wasm_encoder::", "wasmtime_wizer"], &["engine"]),
    (&["axum::"], &["admin", "http_error", "server"]),
    (&["hyper::", "hyper_util::"], &["ingress", "capabilities"]),
    (&["rusqlite::"], &["storage"]),
    (&["std::env::var", "env::var(", "env::var_os", "env::vars"], &["config"]),
    (&["reqwest::"], &["cli"]),
];

/// A source file of the host.
struct Source {
    path: PathBuf,
    /// The file or folder directly below `host/src`, without an ending.
    module: String,
    text: String,
}

impl Source {
    /// Its lines of code, numbered from 1, without comments and unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let own = self.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = own.lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(at, line)| (at + 1, line))
    }

    fn shown(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn host_sources() -> Vec<Source> {
    let root = repository().join("host/src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let sources = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    sources
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source");
            let path = path.strip_prefix(&root).expect("below it").to_owned();
            let first = path.iter().next().expect("a name").to_string_lossy().into_owned();
            let module = first.trim_end_matches(".rs").to_owned();
            Source { path, module, text }
        })
        .filter(|source| source.path.file_name().is_some_and(|name| name != "tests.rs"))
        .collect()
}

/// All files below a folder, but for what is built or hidden.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "target" || name == "node_modules" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn every_module_has_a_layer() {
    let modules: BTreeSet<String> =
        host_sources().into_iter().map(|source| source.module).collect();
    let unknown = modules.into_iter().filter(|module| !["lib", "main"].contains(&module.as_str()));
    let unknown: Vec<String> = unknown.filter(|module| layer(module).is_none()).collect();
    none("no layer", &unknown);
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut found = Vec::new();
    for source in host_sources() {
        let Some(own) = layer(&source.module) else { continue };
        for (number, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if layer(&used).is_some_and(|other| other > own) {
                    found.push(format!("{}: {} uses {used}", source.shown(number), source.module));
                }
            }
        }
    }
    none("used from below", &found);
}

#[test]
fn what_is_reserved_is_used_by_its_modules_alone() {
    let mut found = Vec::new();
    for source in host_sources() {
        for (names, modules) in RESERVED {
            if modules.contains(&source.module.as_str()) {
                continue;
            }
            for (number, line) in source.code() {
                if let Some(name) = names.iter().find(|name| mentions(line, name)) {
                    found.push(format!("{}: {name}", source.shown(number)));
                }
            }
        }
    }
    none("used elsewhere", &found);
}

/// Whether a line has the name, and not as the end of a longer one.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            || name.starts_with("std") && line[..at].ends_with("::")
    })
}

#[test]
fn unsafe_code_is_in_one_place() {
    let found: Vec<String> = host_sources()
        .iter()
        .filter(|source| source.path != Path::new("engine/artifact.rs"))
        .flat_map(|source| {
            let lines = source.code().filter(|(_, line)| line.contains("unsafe "));
            lines.map(|(number, _)| source.shown(number)).collect::<Vec<_>>()
        })
        .collect();
    none("unsafe", &found);
}

#[test]
fn nothing_is_left_to_do() {
    let mut found = Vec::new();
    for source in host_sources() {
        for (number, line) in source.code() {
            for macro_name in ["todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(macro_name) {
                    found.push(format!("{}: {macro_name})", source.shown(number)));
                }
            }
        }
    }
    none("left to do", &found);
}

#[test]
fn files_and_functions_can_be_read_at_once() {
    let mut found = Vec::new();
    for source in host_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines", source.path.display()));
        }
        let code: Vec<(usize, &str)> = source.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if !is_function(line.trim_start()) {
                continue;
            }
            // rustfmt puts the end where the beginning is.
            let end = format!("{}}}", " ".repeat(indent));
            let last = code[at..].iter().find(|(_, line)| *line == end);
            let length = last.map_or(1, |(last, _)| last - number + 1);
            if length > FUNCTION_LINES_MAX && !line.trim_end().ends_with(';') {
                found.push(format!("{}: {length} lines", source.shown(*number)));
            }
        }
    }
    none("too long", &found);
}

fn is_function(line: &str) -> bool {
    let words = line.split(' ').take_while(|word| !word.contains('('));
    let words: Vec<&str> = words.collect();
    line.starts_with("fn ")
        || words.contains(&"fn")
            && ["pub", "pub(crate)", "pub(super)", "async", "const"].contains(&words[0])
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let root = repository();
    let mut files = Vec::new();
    for folder in ["host", "guest-sdk", "examples", "tests"] {
        walk(&root.join(folder), &mut files);
    }
    for file in fs::read_dir(&root).expect("the repository") {
        let path = file.expect("an entry").path();
        // Not what git itself keeps there.
        files.extend((path.is_file() && !path.ends_with(".git")).then_some(path));
    }
    // In two parts, so that this file does not find itself.
    let homes =
        [["/ro", "ot/"], ["/wo", "rk/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|p| p.concat());
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let starts = |home: &String| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| c.is_whitespace() || "\"'`=(:".contains(c))
                })
            };
            if homes.iter().any(starts) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    none("a path of one machine", &found);
}
