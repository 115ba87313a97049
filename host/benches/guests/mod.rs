//! The guests of the benchmarks: built when they are first needed, kept in
//! cargo's target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use whit::config;
use whit::dev::languages::{self, BuildRequest, Engine, Language, Toolchains};

/// A guest that is built from a folder of this repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// What tables call it.
    pub(crate) name: &'static str,
    language: Language,
    folder: &'static str,
}

/// A guest in a folder of this repository.
pub(crate) const fn guest(name: &'static str, language: Language, folder: &'static str) -> Guest {
    Guest { name, language, folder }
}

/// Hello in each way that a guest can speak.
pub(crate) const HTTP_02: Guest = guest("http-0.2", Language::Rust, "host/benches/guests/hello-02");
pub(crate) const HTTP_03: Guest = guest("http-0.3", Language::Rust, "host/benches/guests/hello-03");
pub(crate) const CGI: Guest = guest("CGI, C", Language::C, "examples/hello-c");
pub(crate) const JAVASCRIPT: Guest =
    guest("JavaScript", Language::JavaScript, "examples/hello-javascript");
pub(crate) const PYTHON: Guest = guest("Python", Language::Python, "examples/hello-python");

/// All that say hello.
pub(crate) const HELLOS: [Guest; 5] = [HTTP_02, HTTP_03, CGI, JAVASCRIPT, PYTHON];

impl Guest {
    /// The component. Where its language's tools are missing, the error says which.
    pub(crate) fn component(&self) -> anyhow::Result<Vec<u8>> {
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-guests").join(self.folder);
        let request = BuildRequest {
            language: self.language,
            engine: Engine::default(),
            source: repository().join(self.folder),
            root: repository().join(self.folder),
            component: work.join("component.wasm"),
            work,
            toolchains: Toolchains { root: config::toolchains_dir() },
        };
        if !is_fresh(&request)? {
            eprintln!("building {}", self.folder);
            let mut output = String::new();
            let built = languages::build(&request, &mut |line| {
                output.push_str(line);
                output.push('\n');
            });
            built.inspect_err(|_| eprint!("{output}")).with_context(|| self.folder)?;
        }
        fs::read(&request.component).context("read the component")
    }
}

/// The repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether a component is newer than its sources and than this program, which
/// has the SDKs in it. cargo finds that out for itself.
fn is_fresh(request: &BuildRequest) -> anyhow::Result<bool> {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let Ok(built) = changed(&request.component) else {
        return Ok(false);
    };
    let mut newest: SystemTime = changed(&std::env::current_exe()?)?;
    for entry in fs::read_dir(&request.source)? {
        newest = newest.max(entry?.metadata()?.modified()?);
    }
    Ok(request.language != Language::Rust && built > newest)
}

/// The same guest under another digest: with a custom section that nobody reads.
pub(crate) fn distinct(component: &[u8], number: usize) -> Vec<u8> {
    let name = format!("bench-{number:010}");
    let mut component = component.to_vec();
    // A custom section: its id, its size, and its name with its length before it.
    component.extend([0, name.len() as u8 + 1, name.len() as u8]);
    component.extend(name.bytes());
    component
}
