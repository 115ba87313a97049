//! A project without a manifest: files in `api/` are functions at their paths,
//! files in `public/` are served as they are.
//!
//! | file | route |
//! |---|---|
//! | `api/hello.py` | `/api/hello` |
//! | `api/index.js` | `/api` |
//! | `api/users/[id].go` | `/api/users/{id}` |
//! | `api/docs/[...path].ts` | `/api/docs/{*path}` |
//! | `api/resize/Cargo.toml`, a whole package | `/api/resize` |
//! | `public/logo.svg` | `/logo.svg` |

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::project::{self, Found, Origin, Unit};
use crate::dev::languages::{self, Engine, Language};
use crate::dev::static_files;
use crate::dev::watch::is_ignored_name;
use crate::model::ids::{FunctionName, NAME_BYTES_MAX};
use crate::model::limits::Limits;
use crate::model::quantity::ByteSize;
use crate::model::route::RoutePattern;
use crate::model::spec::FunctionSpec;

const FUNCTIONS: &str = "api";
const FILES: &str = "public";
/// Deepest folder below `api`.
const DEPTH_MAX: usize = 16;
/// What a file server needs besides the files themselves, in bytes.
const SERVER_BYTES: u64 = 4 << 20;

/// Endings of files that may lie beside functions without being one.
const HELPERS: [&str; 16] = [
    "h", "hpp", "hh", "json", "jsonc", "toml", "yaml", "yml", "lock", "mod", "sum", "md", "txt",
    "sql", "css", "html",
];

/// Whether a folder is such a project: it has one of the two folders, and no
/// source of its own, which would make it a function with such folders in it.
pub(super) fn applies(folder: &Path) -> anyhow::Result<bool> {
    if !folder.join(FUNCTIONS).is_dir() && !folder.join(FILES).is_dir() {
        return Ok(false);
    }
    if folder.join("src").is_dir() {
        return Ok(false);
    }
    for entry in read(folder)? {
        let name = entry.to_string_lossy().into_owned();
        let is_configuration = name.contains(".config.") || name.ends_with(".d.ts");
        let path = folder.join(&name);
        if !is_configuration && path.is_file() && languages::detect(&path)?.is_some() {
            // `requirements.txt` and the like only say what functions need.
            if languages::is_source(&path) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Adds the functions of such a project.
pub(super) fn look_into(folder: &Path, found: &mut Found) -> anyhow::Result<()> {
    let mut search = Search { root: folder, routes: BTreeMap::new() };
    let functions = folder.join(FUNCTIONS);
    if functions.is_dir() {
        search.functions(&functions, DEPTH_MAX, found)?;
    }
    let files = folder.join(FILES);
    if files.is_dir() {
        let origin = Origin::Static(files.clone());
        found.add(Unit { name: FILES.parse()?, spec: Some(files_spec(&files)?), origin });
    }
    Ok(())
}

fn files_spec(folder: &Path) -> anyhow::Result<FunctionSpec> {
    let sizes = static_files::sizes(folder);
    let (limits, needed) = (Limits::default(), sizes.bytes + SERVER_BYTES);
    Ok(FunctionSpec {
        // The least specific route there is: whatever no function answers.
        routes: vec!["/*".parse()?],
        memory: (needed > limits.memory_bytes_max).then_some(ByteSize(needed)),
        response_body: (sizes.largest_bytes > limits.response_body_bytes_max)
            .then_some(ByteSize(sizes.largest_bytes)),
        ..FunctionSpec::default()
    })
}

/// The names in a folder that matter, in order.
fn read(folder: &Path) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.with_context(|| format!("read {}", folder.display()))?;
    let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
    names.retain(|name| !is_ignored_name(name));
    names.sort();
    Ok(names)
}

struct Search<'a> {
    root: &'a Path,
    /// Who has claimed a route, by what the route matches.
    routes: BTreeMap<String, (FunctionName, PathBuf)>,
}

impl Search<'_> {
    fn functions(&mut self, folder: &Path, depth: usize, found: &mut Found) -> anyhow::Result<()> {
        for name in read(folder)? {
            let path = folder.join(&name);
            // As Vercel: what begins with an underscore is for the others.
            if name.to_string_lossy().starts_with('_') || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                if is_package(&path) {
                    self.claim(&path, &path, package(&path), found);
                } else if depth > 0 {
                    self.functions(&path, depth - 1, found)?;
                }
            } else if !is_helper(&path) {
                let origin = match languages::detect(&path) {
                    // Gone between the two looks.
                    Err(_) if !path.exists() => continue,
                    _ => project::origin_of_file(&path, self.root).map_err(|_| unknown(&path)),
                };
                self.claim(&path, &path.with_extension(""), origin, found);
            }
        }
        Ok(())
    }

    /// Makes `origin` the function at the route that `path` stands for.
    fn claim(
        &mut self,
        place: &Path,
        path: &Path,
        origin: anyhow::Result<Origin>,
        found: &mut Found,
    ) {
        let shown = place.strip_prefix(self.root).unwrap_or(place);
        let path = path.strip_prefix(self.root).unwrap_or(path);
        let unit = origin.and_then(|origin| {
            let (route, name) = (route(path)?, name(path)?);
            let spec = FunctionSpec { routes: vec![route.clone()], ..FunctionSpec::default() };
            Ok((Unit { name, spec: Some(spec), origin }, route))
        });
        let (unit, route) = match unit {
            Ok(unit) => unit,
            Err(error) => return found.problem(shown, format!("{error:#}")),
        };
        if let Some((name, other)) = self.routes.get(&route.key()) {
            let (other, this) = (other.display(), shown.display());
            found.contest(name, format!("both {other} and {this} claim {route}; rename one"));
            return;
        }
        self.routes.insert(route.key(), (unit.name.clone(), shown.to_owned()));
        found.add(unit);
    }
}

fn unknown(path: &Path) -> anyhow::Error {
    let end = path.extension().and_then(OsStr::to_str);
    let end = end.map_or_else(|| "no ending".to_owned(), |end| format!("the ending .{end}"));
    anyhow::anyhow!(
        "{end} is of no language here; known are {}, .wasm and .wat (a name that begins with '_' \
         is passed over)",
        Language::names()
    )
}

/// A folder that is one function, rather than a part of a path.
fn is_package(folder: &Path) -> bool {
    ["Cargo.toml", "go.mod"].iter().any(|name| folder.join(name).is_file())
}

fn package(folder: &Path) -> anyhow::Result<Origin> {
    let language = languages::detect(folder)?
        .with_context(|| format!("{}: no known language", folder.display()))?;
    let (source, root) = (folder.to_owned(), folder.to_owned());
    Ok(Origin::Source { language, source, root, engine: Engine::default() })
}

fn is_helper(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let end = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    HELPERS.contains(&end)
        || name.ends_with(".d.ts")
        || name.contains(".test.")
        || name.ends_with("_test.go")
        || name.starts_with("test_")
}

/// The route of a path below the project, without the file's ending.
fn route(path: &Path) -> anyhow::Result<RoutePattern> {
    let mut route = String::new();
    let parts: Vec<_> = path.iter().map(OsStr::to_string_lossy).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        if last && part == "index" && index > 0 {
            break;
        }
        let inner = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
        route.push('/');
        match inner.map(|inner| inner.trim_matches(['[', ']'])) {
            // In a route these would be more than text.
            None if part.contains(['{', '}', '*']) => {
                anyhow::bail!("{part} can not be a part of a path; parameters are [name] here")
            }
            None => route.push_str(part),
            Some(inner) => match inner.strip_prefix("...") {
                None => route.push_str(&format!("{{{inner}}}")),
                Some(rest) => route.push_str(&format!("{{*{rest}}}")),
            },
        }
    }
    Ok(route.parse()?)
}

/// A name for the function: `api-users-id` for `api/users/[id]`. Where other
/// files could have the same one, a part of a hash tells them apart.
fn name(path: &Path) -> anyhow::Result<FunctionName> {
    let text = path.to_string_lossy();
    let mut name = String::new();
    let mut exact = true;
    for character in text.chars() {
        match character {
            'a'..='z' | '0'..='9' => name.push(character),
            '/' | '-' if !name.ends_with('-') => {
                exact &= character == '/';
                name.push('-');
            }
            _ => exact = false,
        }
    }
    if !exact || name.len() > NAME_BYTES_MAX {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        name.truncate(NAME_BYTES_MAX - 7);
        name = format!("{}-{}", name.trim_end_matches('-'), hash.get(..6).unwrap_or_default());
    }
    Ok(name.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_routes() {
        for (path, expected) in [
            ("api/hello", "/api/hello"),
            ("api/index", "/api"),
            ("api/users/[id]", "/api/users/{id}"),
            ("api/users/[id]/posts/[post]", "/api/users/{id}/posts/{post}"),
            ("api/docs/[...path]", "/api/docs/{*path}"),
            ("api/docs/[[...path]]", "/api/docs/{*path}"),
        ] {
            assert_eq!(route(Path::new(path)).unwrap().to_string(), expected);
        }
        for path in ["api/a b", "api/[...rest]/more", "api/[]", "api/{x}"] {
            assert!(route(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn names_tell_files_apart() {
        let of = |path: &str| name(Path::new(path)).unwrap().to_string();
        assert_eq!(of("api/users/list"), "api-users-list");
        assert_ne!(of("api/users/[id]"), of("api/users/id"));
        assert_ne!(of("api/users-list"), of("api/users/list"));
        assert!(of("api/users/[id]").starts_with("api-users-id-"));
        assert!(of(&format!("api/{}", "x".repeat(100))).len() <= NAME_BYTES_MAX);
    }
}
