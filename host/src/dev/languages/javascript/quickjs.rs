//! JavaScript on QuickJS: Node.js bundles, and the bundle is evaluated in a
//! template, which Node.js makes once.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BuildError, BuildRequest, SDK, tools, version};
use crate::engine::snapshot::{SnapshotError, Template};

/// Runs a command of `build.mjs`, which leaves its result in a file.
type Script<'a> = dyn FnMut(&str, &Path, &mut dyn FnMut(&str)) -> Result<(), BuildError> + 'a;

const TOOL: &str = "the JavaScript build";
/// What a template's file ends with: the hash of all before it.
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;

pub(super) fn build(
    request: &BuildRequest,
    script: &mut Script<'_>,
    output: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let key = template_key();
    // It is read and compiled while the bundler runs.
    let (template, bundled) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| kept_template(request, &key));
        let bundle = request.work.join("bundle.js");
        let bundled = script("bundle", &bundle, output)
            .and_then(|()| fs::read_to_string(&bundle).map_err(BuildError::file("read", &bundle)));
        (kept.join().unwrap_or_default(), bundled)
    });
    let bundle = bundled?;

    // The same program on the same engine is the same component: not made again,
    // which is quicker, and no new revision for a host.
    let (built, mark) = (request.work.join("built.wasm"), request.work.join("built.of"));
    let of = blake3::hash(format!("{key} {bundle}").as_bytes()).to_hex();
    if !built.is_file() || fs::read(&mark).ok().as_deref() != Some(of.as_bytes()) {
        let template = match template {
            Some(template) => template,
            None => make_template(request, &key, script, output)?,
        };
        let component = template.evaluate(&bundle).map_err(|error| failed(&error, output))?;
        let _ = fs::remove_file(&mark);
        fs::write(&built, component).map_err(BuildError::file("write", &built))?;
        fs::write(&mark, of.as_bytes()).map_err(BuildError::file("write", &mark))?;
    }
    fs::copy(&built, &request.component).map_err(BuildError::file("write", &request.component))?;
    Ok(())
}

/// What is wrong with the function is said as a tool says it.
fn failed(error: &SnapshotError, output: &mut dyn FnMut(&str)) -> BuildError {
    let said = error.to_string();
    said.lines().for_each(output);
    let status = match error {
        SnapshotError::Template { .. } => "in the interpreter's template",
        _ => "at the top level of the module",
    };
    BuildError::ToolFailed { tool: TOOL.to_owned(), status: status.to_owned(), output: said }
}

/// What a template is made of: another one is made when it changes.
fn template_key() -> String {
    let mut hasher = blake3::Hasher::new();
    let files = SDK.iter().chain(&tools::WIT_0_2).chain(&tools::WIT_0_3);
    let versions = ["COMPONENTIZE_QJS", "ROLLDOWN"].map(version);
    for part in files.flat_map(|(name, content)| [*name, *content]).chain(versions) {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}

/// Where a template may be: beside the tools, for all projects, or in this
/// function's own folder, where the tools' can not be written.
fn template_places(request: &BuildRequest, key: &str) -> [PathBuf; 2] {
    let name = format!("quickjs-{key}.template");
    [request.toolchains.javascript().join(&name), request.work.join(&name)]
}

/// The template that an earlier build has left, if it is whole.
fn kept_template(request: &BuildRequest, key: &str) -> Option<Arc<Template>> {
    template_places(request, key).iter().find_map(|place| {
        let mut component = fs::read(place).ok()?;
        let checksum = component.split_off(component.len().checked_sub(CHECKSUM_BYTES)?);
        let is_whole = blake3::hash(&component).as_bytes() == checksum.as_slice();
        is_whole.then(|| Template::new(component).ok()).flatten()
    })
}

fn make_template(
    request: &BuildRequest,
    key: &str,
    script: &mut Script<'_>,
    output: &mut dyn FnMut(&str),
) -> Result<Arc<Template>, BuildError> {
    let made = request.work.join("template.wasm");
    script("template", &made, output)?;
    let component = fs::read(&made).map_err(BuildError::file("read", &made))?;
    let _ = fs::remove_file(&made);
    let mut content = component.clone();
    content.extend_from_slice(blake3::hash(&component).as_bytes());
    let template = Template::new(component).map_err(|error| failed(&error, output))?;
    // Without it the next build takes longer: nothing else.
    let _ = template_places(request, key).iter().any(|place| keep(place, &content).is_ok());
    Ok(template)
}

/// Whole or not at all, whoever else writes it at the same time.
fn keep(place: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    // For whoever may use the tools.
    let mode = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder)?;
    file.write_all(content)?;
    file.persist(place)?;
    Ok(())
}
