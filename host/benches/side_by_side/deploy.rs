//! Deploys: from the first byte of an upload to the first 200 of its function,
//! with nothing in the compile cache and with all that it can have.

use std::time::Instant;

use anyhow::bail;

use crate::Options;
use crate::guests::{self, Guest};
use crate::host::{self, Host};
use crate::http::{self, Client};
use crate::report::{self, Section, Table, median};

/// Each guest, and how often it is deployed both ways.
const DEPLOYS: [(Guest, usize); 5] = [
    (guests::HTTP_02, 15),
    (guests::HTTP_03, 15),
    (guests::CGI, 15),
    (guests::JAVASCRIPT, 3),
    (guests::PYTHON, 3),
];

/// Runs the workload and makes its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<Section> {
    let folder = tempfile::tempdir()?;
    let host = Host::start(&folder.path().join("whit"), &options.settings)?;
    let mut table = Table::new(&[
        "guest",
        "component KiB",
        "samples",
        "cache empty p50 ms",
        "cache full p50 ms",
        "full ÷ empty",
    ]);
    let mut skipped = Vec::new();
    let mut number = 0;
    for (guest, samples) in DEPLOYS {
        let component = match guest.component() {
            Ok(component) => component,
            Err(error) => {
                skipped.push(format!("{}: {error:#}", guest.name));
                continue;
            }
        };
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for sample in 1..=samples {
            report::progress(&format!("deploy: {}, {sample} of {samples}", guest.name));
            clear_cache(&host)?;
            number += 2;
            first.push(deploy(&host, &component, number)?);
            again.push(deploy(&host, &component, number + 1)?);
        }
        let (first, again) = (median(first.into_iter()), median(again.into_iter()));
        table.row(vec![
            guest.name.to_owned(),
            (component.len() / 1024).to_string(),
            samples.to_string(),
            format!("{first:.0}"),
            format!("{again:.0}"),
            format!("{:.2}", again / first),
        ]);
    }
    report::progress("");
    let notes = vec![
        "Each deploy has a component of its own digest; the second differs from the first only in \
         a custom section, so that all of its code is in the cache."
            .to_owned(),
    ];
    Ok(Section { table, notes, skipped })
}

/// What `engine/compile_cache.rs` keeps: its files are opened for each compile.
fn clear_cache(host: &Host) -> anyhow::Result<()> {
    for file in std::fs::read_dir(host.folder.join("compile-cache"))? {
        std::fs::remove_file(file?.path())?;
    }
    Ok(())
}

/// Milliseconds from the upload to the first answer.
fn deploy(host: &Host, component: &[u8], number: usize) -> anyhow::Result<f64> {
    let name = format!("f{number}");
    let upload = host.upload(&name, &guests::distinct(component, number));
    let request = http::get(&format!("/{name}/"));
    let mut admin = host.admin()?;
    let started = Instant::now();
    host::deployed(&mut admin, &upload)?;
    // Only now: a host does not wait long for a connection's first request.
    let response = Client::connect(host.server.address)?.call(&request)?;
    if response.status != 200 {
        bail!("the new function answered with {}", response.status);
    }
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}
