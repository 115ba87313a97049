//! What a guest can import, on each track.

use wasmtime::Engine;
use wasmtime::Linker as ModuleLinker;
use wasmtime::component::Linker;

use super::Track;
use super::store::{CommandState, GuestState};

/// Packages whose 0.2 (and, on the concurrent track, 0.3) interfaces are offered.
/// All of WASI is linked for every guest, because standard libraries import it
/// even where it is not used; what a guest may *do* with it is decided by its
/// store: no folders, no sockets, no terminal.
const PACKAGES: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// The linker of a track.
///
/// # Errors
/// Only if two definitions collide, which would be a bug.
pub fn linker(engine: &Engine, track: Track) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // Once more, without the way by the context, which is only made when it is needed.
    linker.allow_shadowing(true);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if track == Track::Concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// What a core command can import: WASI preview 1, and its predecessor.
///
/// Commands run as the modules they are. Wrapped with the preview 1 adapter
/// they would be components like everything else, but the adapter keeps its
/// state in pages that it takes from the guest's own memory, and Go's runtime,
/// which believes that its memory is its own, overwrites them.
///
/// # Errors
/// Only if two definitions collide, which would be a bug.
pub fn module_linker(engine: &Engine) -> wasmtime::Result<ModuleLinker<CommandState>> {
    let mut linker = ModuleLinker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, CommandState::wasi)?;
    wasmtime_wasi::p0::add_to_linker_async(&mut linker, CommandState::wasi)?;
    Ok(linker)
}

/// Whether an import of this name can be satisfied, as far as its name tells.
#[must_use]
pub fn offers(track: Track, import: &str) -> bool {
    let version = import.split_once('@').map_or("", |(_, version)| version);
    let versioned =
        version.starts_with("0.2.") || (track == Track::Concurrent && version.starts_with("0.3."));
    versioned && PACKAGES.iter().any(|package| import.starts_with(package))
}
