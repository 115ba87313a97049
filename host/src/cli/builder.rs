//! From a [`Unit`] to the file that is uploaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::output::{self, Progress};
use super::project::{Origin, Project, Unit};
use crate::dev::languages::{self, BuildError, BuildRequest, Language, MissingTool, Toolchains};
use crate::dev::static_files;

/// Where builds keep what they need, below a project.
const BUILDS: &str = ".whit/build";
/// Lines of a tool's output that are shown when it fails.
const FAILURE_LINES_MAX: usize = 60;

/// The toolchains of this machine.
pub(super) fn toolchains() -> Toolchains {
    Toolchains { root: crate::config::toolchains_dir() }
}

/// The languages of these units whose tools are not all there.
pub(super) fn missing(units: &[Unit]) -> Vec<(Language, Vec<MissingTool>)> {
    let mut wanted: Vec<Language> = units.iter().filter_map(Unit::language).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let toolchains = toolchains();
    wanted
        .into_iter()
        .map(|language| (language, languages::missing(language, &toolchains)))
        .filter(|(_, missing)| !missing.is_empty())
        .collect()
}

/// Installs what is missing for these units. A language that can not be
/// installed is no error: its functions are what fails, with the reason.
pub(super) async fn install_missing(units: &[Unit], quiet: bool) {
    let missing: Vec<Language> = missing(units).into_iter().map(|(language, _)| language).collect();
    if !missing.is_empty() {
        install(&missing, quiet).await;
    }
}

/// Installs what these languages lack, showing what is about to be done, what
/// is done, and what failed.
pub(super) async fn install(languages: &[Language], quiet: bool) {
    let wanted = languages.to_vec();
    let names: Vec<&str> = wanted.iter().map(|language| language.name()).collect();
    let progress = Progress::start(format!("installing tools for {}", names.join(", ")), quiet);
    let installed = tokio::task::spawn_blocking(move || {
        let mut show = |line: &str| match quiet {
            true => progress.detail(line),
            false => output::note(format!("  {line}")),
        };
        languages::install(&wanted, &toolchains(), &mut show)
    });
    match installed.await {
        // What it said has been shown.
        Ok(Ok(()) | Err(BuildError::ToolFailed { .. })) => {}
        Ok(Err(error)) => output::note(format!("{error}")),
        Err(error) => output::note(format!("the installation ended early: {error}")),
    }
}

/// Builds a unit. The result is a component or core module, below
/// `.whit/build` unless it was there from the start.
pub(super) async fn build(unit: &Unit, project: &Project, quiet: bool) -> anyhow::Result<PathBuf> {
    let folder = build_folder(&project.root)?;
    let converted = folder.join(format!("{}.wasm", unit.name));
    match &unit.origin {
        Origin::Component(path) => ready(path, &converted),
        Origin::Command { command, folder, component } => {
            let progress = Progress::start(format!("building {}", unit.name), quiet);
            run_command(command, folder, &progress).await?;
            if !component.is_file() {
                bail!("`{command}` ended well but left no {}", component.display());
            }
            ready(component, &converted)
        }
        Origin::Static(folder) => {
            let packed = static_files::component(folder)?;
            fs::write(&converted, packed)
                .with_context(|| format!("write {}", converted.display()))?;
            Ok(converted)
        }
        Origin::Source { language, .. } => {
            let request = request(unit, project).context("the recipe")?;
            let what = format!("building {} ({language})", unit.name);
            let progress = Progress::start(what, quiet);
            let built = tokio::task::spawn_blocking(move || {
                languages::build(&request, &mut |line| progress.detail(line))
            });
            if let Err(error) = built.await.context("the build ended early")? {
                show_failure(&error);
                return Err(error.into());
            }
            Ok(converted)
        }
    }
}

/// What its recipe is asked for, if it is built by one.
fn request(unit: &Unit, project: &Project) -> Option<BuildRequest> {
    let Origin::Source { language, source, root, engine } = &unit.origin else { return None };
    let folder = project.root.join(BUILDS);
    Some(BuildRequest {
        language: *language,
        engine: *engine,
        source: source.clone(),
        root: root.clone(),
        work: folder.join(unit.name.as_str()),
        component: folder.join(format!("{}.wasm", unit.name)),
        toolchains: toolchains(),
    })
}

/// What a unit is made of besides its place: see [`languages::inputs`].
pub(super) async fn inputs(unit: &Unit, project: &Project) -> Vec<PathBuf> {
    let Some(request) = request(unit, project) else { return Vec::new() };
    let inputs = tokio::task::spawn_blocking(move || languages::inputs(&request));
    inputs.await.unwrap_or_default()
}

/// `.whit/build` below `root`, kept out of version control.
fn build_folder(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join(BUILDS);
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        let ignore = root.join(".whit/.gitignore");
        if !ignore.exists() {
            fs::write(ignore, "*\n")?;
        }
        Ok(())
    };
    make().with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// A component as it can be uploaded: text is converted first.
fn ready(path: &Path, converted: &Path) -> anyhow::Result<PathBuf> {
    if path.extension().is_none_or(|extension| extension != "wat") {
        return Ok(path.to_owned());
    }
    // The error shows file, line and column.
    let bytes = wat::parse_file(path)?;
    fs::write(converted, bytes).with_context(|| format!("write {}", converted.display()))?;
    Ok(converted.to_owned())
}

async fn run_command(command: &str, folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    // One pipe for both streams keeps their order.
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start `{command}`"))?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            progress.detail(&line);
            said.push(line);
        }
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(());
    }
    show_lines(said.iter().map(String::as_str));
    bail!("`{command}` failed ({status})");
}

/// A tool's own words, which the error does not repeat.
fn show_failure(error: &BuildError) {
    if let BuildError::ToolFailed { output, .. } = error {
        show_lines(output.lines());
    }
}

fn show_lines<'a>(lines: impl Iterator<Item = &'a str>) {
    let lines: Vec<&str> = lines.collect();
    let cut = lines.len().saturating_sub(FAILURE_LINES_MAX);
    if cut > 0 {
        output::note(format!("  ({cut} lines before these)"));
    }
    for line in lines.iter().skip(cut) {
        output::note(format!("  {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn text_is_converted_and_commands_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        fs::write(root.join("a.wat"), "(component)").unwrap();
        let unit = |origin| Unit { name: "a".parse().unwrap(), spec: None, origin };
        let project = Project { root: root.clone(), units: vec![], problems: vec![] };

        let text = unit(Origin::Component(root.join("a.wat")));
        let built = build(&text, &project, true).await.unwrap();
        assert!(fs::read(built).unwrap().starts_with(b"\0asm"));

        let command = |command: &str| {
            unit(Origin::Command {
                command: command.into(),
                folder: root.clone(),
                component: root.join("b.wasm"),
            })
        };
        let error = build(&command("true"), &project, true).await.unwrap_err();
        assert!(error.to_string().contains("left no"), "{error}");
        let error = build(&command("exit 3"), &project, true).await.unwrap_err();
        assert!(error.to_string().contains("failed"), "{error}");
        let built = build(&command("echo > b.wasm"), &project, true).await.unwrap();
        assert_eq!(built, root.join("b.wasm"));
    }
}
