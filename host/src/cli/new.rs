//! `whit new`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::output::{self, BOLD, DIM, GREEN};
use super::{Global, UsageError, builder};
use crate::dev::languages;
use crate::dev::templates::{self, Template};
use crate::model::ids::FunctionName;

/// Arguments of `whit new`.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Name of the function, and of the folder to make
    name: FunctionName,
    /// rust, c, cpp, go, zig, javascript, typescript, python, assemblyscript or wat
    #[arg(short, long, value_name = "LANGUAGE")]
    lang: String,
}

pub(super) fn run(args: &NewArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let template = templates::find(&args.lang).map_err(UsageError)?;
    let name = args.name.as_str();
    if template.name == "rust" && name.starts_with(|first: char| first.is_ascii_digit()) {
        bail!(UsageError(format!("{name}: names of Rust packages do not start with a digit")));
    }
    if let Err(error) = template.write(name, Path::new(name)) {
        if error.kind() == ErrorKind::AlreadyExists {
            bail!("{name} is there already; nothing was written");
        }
        return Err(error).with_context(|| format!("write {name}"));
    }
    if global.json {
        let files: Vec<&str> = template.files.iter().map(|(path, _)| *path).collect();
        output::document(&json!({ "name": name, "language": template.name, "files": files }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(text(name, template))?;
    Ok(ExitCode::SUCCESS)
}

fn text(name: &str, template: &Template) -> String {
    let toolchains = builder::toolchains();
    let lacks = template
        .language
        .is_some_and(|language| !languages::missing(language, &toolchains).is_empty());
    let (command, why) = match lacks {
        true => ("whit dev --install", "gets what is missing, builds, serves, follows changes"),
        false => ("whit dev", "builds, serves, follows changes"),
    };
    let main = template.main;
    format!(
        "{GREEN}created{GREEN:#} {name}/ {DIM}in {}; begin with {name}/{main}{DIM:#}\n\
         \n  {BOLD}cd {name}{BOLD:#}\n  {BOLD}{command}{BOLD:#}   {DIM}{why}{DIM:#}",
        template.name
    )
}
