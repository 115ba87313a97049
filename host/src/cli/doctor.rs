//! `whit doctor`: which languages work on this machine.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{self, DIM, GREEN, YELLOW};
use super::{Global, UsageError, builder};
use crate::dev::languages::{self, Language, MissingTool};

/// Arguments of `whit doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Languages to look at; all where none is given
    #[arg(value_name = "LANGUAGE")]
    languages: Vec<String>,
    /// Get what is missing; says first what that will do
    #[arg(long)]
    install: bool,
}

/// What one language needs and has not.
struct Finding {
    language: Language,
    missing: Vec<MissingTool>,
}

pub(super) async fn run(args: DoctorArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut wanted = Vec::new();
    // Text needs no tools: asked for, there is nothing to look at.
    for name in args.languages.iter().filter(|name| *name != "wat") {
        wanted.push(name.parse::<Language>().map_err(|error| UsageError(error.to_string()))?);
    }
    if args.languages.is_empty() {
        wanted.extend(Language::ALL);
    }
    wanted.sort_unstable();
    wanted.dedup();
    if args.install {
        builder::install(&wanted, global.json).await;
    }
    let findings = examine(wanted).await?;
    if global.json {
        let of = |finding: &Finding| {
            let lacks = |tool: &MissingTool| json!({ "tool": tool.tool, "why": tool.why });
            json!({
                "language": finding.language.name(),
                "ready": finding.missing.is_empty(),
                "missing": finding.missing.iter().map(lacks).collect::<Vec<_>>(),
                "fix": finding.missing.first().map(|tool| &tool.fix),
            })
        };
        output::document(&findings.iter().map(of).collect::<Vec<_>>())?;
    } else {
        output::line(table(&findings, args.languages.is_empty()))?;
    }
    // A look at everything is no failure, whatever it sees; a language that was
    // asked for by name, or was to be installed, has to be ready.
    let asked = args.install || !args.languages.is_empty();
    let lacks = findings.iter().any(|finding| !finding.missing.is_empty());
    Ok(ExitCode::from(u8::from(asked && lacks)))
}

/// Looking starts programs, so it is done elsewhere.
async fn examine(languages: Vec<Language>) -> anyhow::Result<Vec<Finding>> {
    let look = || {
        let toolchains = builder::toolchains();
        let of =
            |language| Finding { language, missing: languages::missing(language, &toolchains) };
        languages.into_iter().map(of).collect()
    };
    Ok(tokio::task::spawn_blocking(look).await?)
}

fn table(findings: &[Finding], all: bool) -> String {
    let mut lines = Vec::new();
    for Finding { language, missing } in findings {
        let also = if *language == Language::JavaScript { " (and typescript)" } else { "" };
        if missing.is_empty() {
            lines.push(format!("{GREEN}  ready{GREEN:#} {language}{also}"));
            continue;
        }
        lines.push(format!("{YELLOW}missing{YELLOW:#} {language}{also}"));
        for tool in missing {
            lines.push(format!("        {}: {DIM}{}{DIM:#}", tool.tool, tool.why));
        }
        lines.extend(missing.first().map(|tool| format!("        get it by `{}`", tool.fix)));
    }
    if all {
        lines.push(format!("{GREEN}  ready{GREEN:#} wat {DIM}needs no tools{DIM:#}"));
    }
    let root = builder::toolchains().root;
    lines.push(format!("{DIM}tools are kept in {}{DIM:#}", root.display()));
    lines.join("\n")
}
