//! Tables, and the file that they are kept in.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// What was seen of one workload.
pub(crate) struct Section {
    pub(crate) table: Table,
    pub(crate) notes: Vec<String>,
    /// What could not take part, and why.
    pub(crate) skipped: Vec<String>,
}

/// A table in Markdown.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|name| (*name).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Figures to the right.
                let _ = match column {
                    0 => write!(text, "| {cell:<width$} "),
                    _ => write!(text, "| {cell:>width$} "),
                };
            }
            text.push_str("|\n");
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if column == 0 { "-" } else { ":" };
                    let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

impl Section {
    pub(crate) fn render(&self) -> String {
        let mut text = self.table.render();
        for note in self
            .notes
            .iter()
            .chain(&self.skipped.iter().map(|why| format!("Left out: {why}.")).collect::<Vec<_>>())
        {
            let _ = write!(text, "\n- {note}");
        }
        text.push('\n');
        text
    }
}

/// Says what is going on, in a line that the next one replaces.
pub(crate) fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{what:<60}{}", if what.is_empty() { "\r" } else { "" });
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(values, 50.0)
}

pub(crate) fn percentile(values: impl Iterator<Item = f64>, percent: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * percent / 100.0).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// The lowest and the highest.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// Whether host and benchmark were built with this flag. A profile of the host
/// under load is one, and relocations, without which its code can not be laid out
/// anew, another.
fn built_with(flag: &str) -> bool {
    option_env!("RUSTFLAGS").is_some_and(|flags| flags.contains(flag))
}

/// Where, when, of what and how something was measured.
pub(crate) fn circumstances() -> String {
    let machine = process::machine();
    let date = output("date", &["-u", "+%Y-%m-%d"]);
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    // The results themselves are always newer than their commit.
    let changes = output("git", &["status", "--porcelain", "--", ".", ":!host/benches/RESULTS.md"]);
    let changed = if changes.is_empty() { "" } else { " with changes" };
    let profile = if cfg!(debug_assertions) { " --profile dev" } else { "" };
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let dashes = if arguments.is_empty() { "" } else { " -- " };
    let guided = built_with("-Cprofile-use=");
    let cargo = if guided { "host/benches/profile-guided" } else { "cargo" };
    let layout = if built_with("--emit-relocs") { " (llvm-bolt is there)" } else { "" };
    let arguments = arguments.join(" ");
    let command = format!("{cargo} bench{profile} --bench side_by_side{dashes}{arguments}");
    let warning =
        if cfg!(debug_assertions) { " **An unoptimised build: no figure counts.**" } else { "" };
    format!("{machine}; {date}; commit {commit}{changed}; `{command}`{layout}.{warning}\n")
}

/// What a program printed, or nothing.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(repository()).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn repository() -> PathBuf {
    crate::guests::repository()
}

const HEAD: &str = "# Results

What `cargo bench --bench side_by_side -- --write` saw; each run replaces the sections that it \
measured. Ratios carry over to other machines, absolute figures do not.
";
/// What follows this is written by hand and kept.
const NOTES: &str = "<!-- Notes: what is below this line is kept. -->";

/// Puts sections into RESULTS.md, in the place of those with the same title.
pub(crate) fn write(order: &[&str], sections: &[(&str, String)]) -> anyhow::Result<PathBuf> {
    let path = repository().join("host/benches/RESULTS.md");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, merged(&before, order, sections)).context("write RESULTS.md")?;
    Ok(path)
}

fn merged(before: &str, order: &[&str], sections: &[(&str, String)]) -> String {
    let (generated, notes) = before.split_once(NOTES).unwrap_or((before, "\n"));
    let kept: Vec<(&str, &str)> =
        generated.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let mut text = HEAD.to_owned();
    for title in order {
        let new = sections.iter().find(|(name, _)| name == title).map(|(_, text)| text.as_str());
        let old = || kept.iter().find(|(name, _)| name == title).map(|(_, text)| *text);
        if let Some(section) = new.or_else(old) {
            let _ = write!(text, "\n## {title}\n\n{}\n", section.trim());
        }
    }
    let _ = write!(text, "\n{NOTES}{notes}");
    text
}
