//! What there is to build and deploy at a path: a component, a file or folder
//! with source, a `whit.toml`, or a folder of any of these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{UsageError, convention};
use crate::dev::languages::{self, Engine, Language};
use crate::dev::watch::is_ignored_name;
use crate::model::ids::FunctionName;
use crate::model::spec::{FunctionEntry, FunctionSpec, Manifest};

/// Name of the manifest.
pub(super) const MANIFEST: &str = "whit.toml";
/// Deepest folder below the given one that is looked into.
const DEPTH_MAX: usize = 6;

/// Which functions are meant.
#[derive(Debug, Clone, Args)]
pub(super) struct Selection {
    /// A .wasm or .wat file, a source file, or a folder: with a whit.toml, with source, or with
    /// several of these below
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    pub(super) path: PathBuf,
    /// Only this function of a whit.toml or folder; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) only: Vec<FunctionName>,
}

/// Where a function's component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is there: `.wasm`, or `.wat` to be converted.
    Component(PathBuf),
    /// It is built by a recipe.
    Source {
        /// The recipe.
        language: Language,
        /// Folder or file.
        source: PathBuf,
        /// The folder whose `package.json`, `requirements.txt` and so on count
        /// where there is none nearer to the source.
        root: PathBuf,
        /// What runs it, if it is JavaScript.
        engine: Engine,
    },
    /// It is made of the files in a folder.
    Static(PathBuf),
    /// It is built by a command of the manifest.
    Command {
        /// Run by the shell.
        command: String,
        /// Where it runs.
        folder: PathBuf,
        /// What it leaves.
        component: PathBuf,
    },
}

/// One function to build and deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name on the host.
    pub(super) name: FunctionName,
    /// How it is to run; what is there already where absent.
    pub(super) spec: Option<FunctionSpec>,
    /// Where the component comes from.
    pub(super) origin: Origin,
}

impl Unit {
    /// The file or folder whose change means a new build.
    pub(super) fn place(&self) -> &Path {
        match &self.origin {
            Origin::Component(path)
            | Origin::Static(path)
            | Origin::Source { source: path, .. } => path,
            Origin::Command { folder, .. } => folder,
        }
    }

    /// The language, where a recipe builds it.
    pub(super) fn language(&self) -> Option<Language> {
        match self.origin {
            Origin::Source { language, .. } => Some(language),
            Origin::Component(_) | Origin::Static(_) | Origin::Command { .. } => None,
        }
    }
}

/// All functions at a path.
#[derive(Debug)]
pub(super) struct Project {
    /// The folder that builds keep their intermediate results below, in `.whit`.
    pub(super) root: PathBuf,
    /// The functions, by name.
    pub(super) units: Vec<Unit>,
    /// What is no function and should be one: the others are built without it.
    pub(super) problems: Vec<Problem>,
}

/// Why a file or folder is no function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// The function that it would be, or the file.
    pub(super) name: String,
    /// What is wrong, and what to do.
    pub(super) error: String,
}

/// What a search has found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    units: BTreeMap<FunctionName, Unit>,
    problems: Vec<Problem>,
    /// Names that two places claim: neither gets it.
    contested: BTreeSet<FunctionName>,
}

impl Found {
    pub(super) fn problem(&mut self, place: &Path, error: impl Into<String>) {
        let name = place.display().to_string();
        self.problems.push(Problem { name, error: error.into() });
    }

    pub(super) fn add(&mut self, unit: Unit) {
        let Some(other) = self.units.get(&unit.name) else {
            if !self.contested.contains(&unit.name) {
                self.units.insert(unit.name.clone(), unit);
            }
            return;
        };
        let error = format!(
            "both {} and {} would be called {}; rename one, or name both in a {MANIFEST}",
            other.place().display(),
            unit.place().display(),
            unit.name
        );
        self.contest(&unit.name, error);
    }

    /// Takes a name away from whoever has it.
    pub(super) fn contest(&mut self, name: &FunctionName, error: String) {
        self.units.remove(name);
        self.contested.insert(name.clone());
        self.problems.push(Problem { name: name.to_string(), error });
    }
}

/// Finds the functions that `selection` means; at least one.
pub(super) fn find(selection: &Selection) -> anyhow::Result<Project> {
    let path = fs::canonicalize(&selection.path)
        .with_context(|| format!("{}: can not be read", selection.path.display()))?;
    let mut found = Found::default();
    let root = if path.is_file() {
        found.add(unit_of_file(&path)?);
        path.parent().unwrap_or(Path::new("/")).to_owned()
    } else {
        look_into(&path, DEPTH_MAX, &mut found)?;
        path
    };
    let Found { units: found, problems, contested: _ } = found;
    if found.is_empty() && problems.is_empty() {
        bail!(
            "{}: nothing to deploy; expected a .wasm or .wat file, a {MANIFEST}, folders api/ or \
             public/, or source in one of {}",
            selection.path.display(),
            Language::names()
        );
    }
    if let Some(name) = selection.only.iter().find(|name| !found.contains_key(*name)) {
        let names: Vec<String> = found.keys().map(ToString::to_string).collect();
        bail!(UsageError(format!("--only {name}: there are {}", names.join(", "))));
    }
    let wanted = |name: &FunctionName| selection.only.is_empty() || selection.only.contains(name);
    let units = found.into_values().filter(|unit| wanted(&unit.name)).collect();
    Ok(Project { root, units, problems })
}

fn unit_of_file(path: &Path) -> anyhow::Result<Unit> {
    let root = path.parent().unwrap_or(Path::new("/"));
    Ok(Unit { name: name_of(path)?, spec: None, origin: origin_of_file(path, root)? })
}

/// What a file that is a function by itself is built with.
pub(super) fn origin_of_file(path: &Path, root: &Path) -> anyhow::Result<Origin> {
    if component_file(path) {
        return Ok(Origin::Component(path.to_owned()));
    }
    match languages::detect(path)? {
        Some(language) => Ok(Origin::Source {
            language,
            source: path.to_owned(),
            root: root.to_owned(),
            engine: Engine::default(),
        }),
        None => bail!("{}: neither a component nor source in a known language", path.display()),
    }
}

fn look_into(folder: &Path, depth: usize, found: &mut Found) -> anyhow::Result<()> {
    let manifest = folder.join(MANIFEST);
    if manifest.is_file() {
        return from_manifest(&manifest, found);
    }
    if convention::applies(folder)? {
        return convention::look_into(folder, found);
    }
    if let Some(language) = languages::detect(folder)? {
        let (source, root) = (folder.to_owned(), folder.to_owned());
        let origin = Origin::Source { language, source, root, engine: Engine::default() };
        found.add(Unit { name: name_of(folder)?, spec: None, origin });
        return Ok(());
    }
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if is_ignored_name(&entry.file_name()) {
            continue;
        }
        let looked = if path.is_file() && component_file(&path) {
            unit_of_file(&path).map(|unit| found.add(unit))
        } else if path.is_dir() && !path.is_symlink() && depth > 0 {
            look_into(&path, depth - 1, found)
        } else {
            Ok(())
        };
        // One broken folder is no reason not to build the others.
        if let Err(error) = looked {
            found.problem(&path, format!("{error:#}"));
        }
    }
    Ok(())
}

fn from_manifest(path: &Path, found: &mut Found) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let manifest = Manifest::from_toml(&text).with_context(|| path.display().to_string())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for (name, entry) in manifest.functions {
        let origin =
            origin(folder, &entry).with_context(|| format!("{}: {name}", path.display()))?;
        found.add(Unit { name, spec: Some(entry.spec), origin });
    }
    Ok(())
}

fn origin(folder: &Path, entry: &FunctionEntry) -> anyhow::Result<Origin> {
    let component = entry.component.as_ref().map(|component| folder.join(component));
    if let Some(command) = &entry.build {
        let component = component.context("`build` needs `component`: the file it leaves")?;
        let folder = folder.to_owned();
        return Ok(Origin::Command { command: command.clone(), folder, component });
    }
    if let Some(component) = component {
        if entry.source.is_some() {
            bail!("give either `source` or `component`; both only together with `build`");
        }
        return Ok(Origin::Component(component));
    }
    let source = folder.join(entry.source.as_deref().unwrap_or("."));
    let source = fs::canonicalize(&source)
        .with_context(|| format!("source {}: can not be read", source.display()))?;
    let language = match &entry.language {
        Some(name) => name.parse()?,
        None => languages::detect(&source)?.with_context(|| {
            format!("{}: no known language; set `language` or `build`", source.display())
        })?,
    };
    let root = if source.is_dir() { source.clone() } else { folder.to_owned() };
    let engine = match (&entry.engine, language) {
        (None, _) => Engine::default(),
        (Some(name), Language::JavaScript) => name.parse().map_err(anyhow::Error::msg)?,
        (Some(_), _) => bail!("`engine` is for JavaScript and TypeScript; this is {language}"),
    };
    Ok(Origin::Source { language, source, root, engine })
}

fn component_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat")
}

/// The function's name, from that of its file or folder.
fn name_of(path: &Path) -> anyhow::Result<FunctionName> {
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    let name = derive_name(&name.unwrap_or_default().to_string_lossy());
    name.parse().with_context(|| {
        format!(
            "{}: its name makes no function name; give one with --name or in a {MANIFEST}",
            path.display()
        )
    })
}

fn derive_name(stem: &str) -> String {
    let mapped: String = stem
        .to_lowercase()
        .chars()
        .map(|character| if matches!(character, '_' | '.' | ' ') { '-' } else { character })
        .collect();
    mapped.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Selection) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let selection = Selection { path: folder.path().to_owned(), only: vec![] };
        (folder, selection)
    }

    fn names(project: &Project) -> Vec<&str> {
        project.units.iter().map(|unit| unit.name.as_str()).collect()
    }

    #[test]
    fn names_come_from_files_and_folders() {
        for (stem, name) in
            [("Hello_World", "hello-world"), ("a.component", "a-component"), ("_x_", "x")]
        {
            assert_eq!(derive_name(stem), name);
        }
    }

    #[test]
    fn the_examples_are_one_project_without_a_problem() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let project = find(&Selection { path: examples, only: vec![] }).unwrap();
        assert_eq!(project.problems, []);
        assert!(names(&project).contains(&"hello-c"), "{:?}", names(&project));
    }

    #[test]
    fn a_folder_of_folders_is_all_their_functions() {
        let (_folder, mut selection) = project(&[
            ("hello_py/app.py", ""),
            (
                "many/whit.toml",
                "[functions.one]\ncomponent = 'a.wasm'\n[functions.two]\nbuild = 'make'\ncomponent = 'b.wasm'",
            ),
            ("ready.wat", "(component)"),
            ("deep/er/main.go", ""),
            ("deep/er/go.mod", ""),
            ("target/no.wasm", ""),
            ("node_modules/no/package.json", "{}"),
            (".hidden/app.py", ""),
            ("README.md", ""),
        ]);
        let found = find(&selection).unwrap();
        assert_eq!(names(&found), ["er", "hello-py", "one", "ready", "two"]);
        assert_eq!(found.units[1].language(), Some(Language::Python));
        assert!(matches!(found.units[4].origin, Origin::Command { .. }));
        selection.only = vec!["two".parse().unwrap()];
        assert_eq!(names(&find(&selection).unwrap()), ["two"]);
        selection.only = vec!["three".parse().unwrap()];
        assert!(find(&selection).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn mistakes_say_where_they_are() {
        let (_folder, selection) =
            project(&[("a_b.wasm", ""), ("a-b.wat", ""), ("c.wasm", ""), ("d/whit.toml", "x")]);
        let found = find(&selection).unwrap();
        assert_eq!(names(&found), ["c"], "the rest is built");
        let said: Vec<&str> = found.problems.iter().map(|one| one.error.as_str()).collect();
        assert!(said[0].contains("would be called a-b"), "{said:?}");
        assert!(said[1].contains("whit.toml"), "{said:?}");
        for (files, expected) in [
            (vec![("README.md", "")], "nothing to deploy"),
            (vec![("whit.toml", "[functions.a]\nmemroy = '1MiB'")], "did you mean"),
            (vec![("whit.toml", "[functions.a]\nbuild = 'make'")], "needs `component`"),
            (vec![("whit.toml", "[functions.a]\nsource = 'gone'")], "can not be read"),
            (vec![("whit.toml", "[functions.a]")], "no known language"),
            (vec![("app.js", ""), ("whit.toml", "[functions.a]\nengine = 'v8'")], "quickjs and"),
            (vec![("app.py", ""), ("whit.toml", "[functions.a]\nengine = 'quickjs'")], "is python"),
        ] {
            let (_folder, selection) = project(&files);
            let error = format!("{:#}", find(&selection).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
