//! `whit list`.

use std::process::ExitCode;

use super::Global;
use super::client::Client;
use super::output;

pub(super) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let functions = Client::find(global)?.functions().await?;
    if global.json {
        output::document(&functions)?;
        return Ok(ExitCode::SUCCESS);
    }
    if functions.is_empty() {
        output::note("no functions yet; deploy one with `whit deploy FILE|DIR`");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = functions
        .iter()
        .map(|function| match &function.revision {
            Some(revision) => vec![
                function.name.clone(),
                revision.number.to_string(),
                revision.kind.clone(),
                output::size(revision.component_bytes),
                output::time(revision.created_unix_ms),
                function.url.clone(),
            ],
            None => {
                let none = || "-".to_owned();
                vec![function.name.clone(), none(), none(), none(), none(), function.url.clone()]
            }
        })
        .collect();
    let heading = ["NAME", "REVISION", "KIND", "SIZE", "DEPLOYED (UTC)", "URL"];
    output::line(output::table(&heading, &rows))?;
    Ok(ExitCode::SUCCESS)
}
