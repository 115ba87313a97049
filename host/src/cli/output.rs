//! What commands print: tables, sizes, times, errors, progress.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::client::ApiError;
use crate::model::quantity::ByteSize;

/// For what matters least.
pub(super) const DIM: Style = Style::new().dimmed();
/// For headings.
pub(super) const BOLD: Style = Style::new().bold();
/// For what went well.
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
/// For what was left out.
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// For what failed.
pub(super) const RED: Style = AnsiColor::Red.on_default().bold();

/// All that is going on, below what is printed meanwhile.
static PROGRESS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints a line to stdout; colours only on a terminal.
pub(super) fn line(text: impl AsRef<str>) -> io::Result<()> {
    PROGRESS.suspend(|| {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(text.as_ref().as_bytes())?;
        stdout.write_all(b"\n")
    })
}

/// Prints a line to stderr, for people. Nobody reads it if that fails.
pub(super) fn note(text: impl AsRef<str>) {
    let _ = PROGRESS.suspend(|| writeln!(anstream::stderr().lock(), "{}", text.as_ref()));
}

/// Prints one JSON document.
pub(super) fn document(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string_pretty(value)?)?)
}

/// Prints one JSON document on one line, for streams.
pub(super) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string(value)?)?)
}

/// Prints what ended the command, with everything below it, and what to try.
pub(super) fn error(error: &anyhow::Error, json: bool) {
    let api = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>());
    let code = api.map(|api| api.problem.code.as_ref());
    if json {
        return note(json!({ "error": format!("{error:#}"), "code": code }).to_string());
    }
    note(format!("{RED}error{RED:#}: {error:#}"));
    let hint = match code {
        Some("not_found") => "`whit list` shows what is deployed",
        Some("nothing_to_roll_back_to") => "`whit revisions NAME` shows what there is",
        _ => return,
    };
    note(format!("{DIM}{hint}{DIM:#}"));
}

/// Whether the reader of our output has left.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Rows under a heading, in columns as wide as they need.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(heading.get(column).map_or(0, |cell| cell.len()))
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.trim_end().to_owned()
    };
    let mut text = format!("{BOLD}{}{BOLD:#}", print(&mut heading.iter().copied()));
    for row in rows {
        text.push('\n');
        text.push_str(&print(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A size for people: `1.4 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, factor)| bytes >= *factor) {
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / factor as f64),
        None => ByteSize(bytes).to_string(),
    }
}

/// A moment, in UTC: `2026-03-01 12:30:05`.
pub(super) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date that many days after 1970-01-01: Howard Hinnant's `civil_from_days`,
/// for days that are not negative.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// A time of day with milliseconds, for logs: `12:30:05.123`.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let time = time(unix_ms);
    let (_, time) = time.split_once(' ').unwrap_or(("", &time));
    format!("{time}.{:03}", unix_ms % 1000)
}

/// Shows on a terminal that something goes on; gone when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    what: String,
}

impl Progress {
    /// Begins to show `what`. Off a terminal it is one line, so that a log says
    /// what took so long.
    pub(super) fn start(what: impl Into<String>, quiet: bool) -> Self {
        let what = what.into();
        let terminal = io::stderr().is_terminal();
        let bar = if quiet || !terminal {
            ProgressBar::hidden()
        } else {
            PROGRESS.add(ProgressBar::new_spinner())
        };
        if !quiet && !terminal {
            note(format!("{what} ..."));
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, what }
    }

    /// Shows a tool's latest line beside what goes on.
    pub(super) fn detail(&self, line: &str) {
        let line: String = line.chars().filter(|character| !character.is_control()).collect();
        self.bar.set_message(format!("{}: {}", self.what, line.trim()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        PROGRESS.remove(&self.bar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_772_323_199_999), "2026-02-28 23:59:59");
        assert_eq!(time(1_772_323_200_000), "2026-03-01 00:00:00");
        assert_eq!(time_of_day(1_772_323_199_007), "23:59:59.007");
        assert_eq!(size(512), "512B");
        assert_eq!(size(1_468_006), "1.4 MiB");
    }

    #[test]
    fn tables_align() {
        let text = table(&["NAME", "N"], &[vec!["longer-name".into(), "1".into()]]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME         N\nlonger-name  1");
    }
}
