//! Lines to try for a function that was deployed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::admin::types::FunctionView;
use crate::model::route::Segment;

/// What READMEs call the host: where it answers unless told otherwise.
const USUAL_HOSTS: [&str; 4] =
    ["http://127.0.0.1:8080", "http://localhost:8080", "127.0.0.1:8080", "localhost:8080"];

/// A line to try a URL.
pub(super) fn curl(url: &str) -> String {
    format!("curl {url}")
}

/// Lines to try for a function: its own URL, and each route that it declares.
pub(super) fn curl_lines(function: &FunctionView) -> Vec<String> {
    let mut lines = vec![curl(&function.url)];
    let Some(revision) = &function.revision else {
        return lines;
    };
    let origin = origin(&function.url);
    for route in &revision.spec.routes {
        let method = match route.method.as_deref() {
            None | Some("GET") => String::new(),
            Some(method) => format!("-X {method} "),
        };
        let host = route.authority.as_deref();
        let host = host.map_or_else(String::new, |host| format!("-H 'Host: {host}' "));
        let path: String = route.segments.iter().map(example).collect();
        lines.push(format!("curl {method}{host}{origin}{path}"));
    }
    lines
}

/// The line that the README beside a function's source tries first, for the
/// host that runs here; it knows what the function wants better than we do.
pub(super) fn readme_line(function: &FunctionView, source: &Path) -> Option<String> {
    let folder = if source.is_dir() { source } else { source.parent()? };
    let readme = fs::read_to_string(folder.join("README.md")).ok()?;
    let own_path = format!("/{}", function.name);
    let line = readme
        .lines()
        .map(|line| line.trim_start_matches("$ "))
        .find(|line| line.starts_with("curl ") && line.contains(&own_path))?;
    let usual = USUAL_HOSTS.into_iter().find(|host| line.contains(host))?;
    let line = line.replacen(usual, origin(&function.url), 1);
    Some(with_file(&line, folder))
}

/// The line with the file that it sends, if that lies beside the README, named
/// from where we are.
fn with_file(line: &str, folder: &Path) -> String {
    let Some(name) = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix('@'))
        .filter(|name| folder.join(name).is_file())
    else {
        return line.to_owned();
    };
    let path = folder.join(name);
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).map_or_else(|_| path.clone(), PathBuf::from);
    line.replacen(&format!("@{name}"), &format!("@{}", path.display()), 1)
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> &str {
    let slash = url.match_indices('/').nth(2).map(|(index, _)| index);
    slash.and_then(|end| url.get(..end)).unwrap_or(url)
}

fn example(segment: &Segment) -> String {
    match segment {
        Segment::Literal(text) => format!("/{text}"),
        Segment::Wildcard(name) if name.is_empty() => "/".to_owned(),
        Segment::Parameter(name) | Segment::Wildcard(name) => format!("/{}", name.to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::RevisionView;
    use crate::model::spec::FunctionSpec;

    fn function(spec: &str) -> FunctionView {
        let spec = FunctionSpec::from_json(spec.as_bytes()).unwrap();
        let limits = spec.limits().into();
        let revision = RevisionView {
            number: 1,
            active: true,
            url: String::new(),
            kind: "http-0.2".into(),
            digest: String::new(),
            component_bytes: 0,
            created_unix_ms: 0,
            spec,
            limits,
        };
        FunctionView {
            tenant: "default".into(),
            name: "a".into(),
            url: "http://127.0.0.1:9000/a/".into(),
            active: Some(1),
            previous: None,
            revisions: 1,
            revision: Some(revision),
        }
    }

    #[test]
    fn routes_become_lines_to_try() {
        let spec = r#"{"routes":["/plain","POST /resize/{width}","api.example.com/*"]}"#;
        assert_eq!(
            curl_lines(&function(spec)),
            [
                "curl http://127.0.0.1:9000/a/",
                "curl http://127.0.0.1:9000/plain",
                "curl -X POST http://127.0.0.1:9000/resize/WIDTH",
                "curl -H 'Host: api.example.com' http://127.0.0.1:9000/",
            ]
        );
    }

    #[test]
    fn a_readme_knows_better() {
        let folder = tempfile::tempdir().unwrap();
        let function = function("{}");
        let readme = |text: &str| {
            fs::write(folder.path().join("README.md"), text).unwrap();
            readme_line(&function, folder.path())
        };
        assert_eq!(readme("curl 127.0.0.1:8080/other/\n"), None);
        assert_eq!(
            readme("Try:\n$ curl -d x 'localhost:8080/a/?n=1'\n$ curl 127.0.0.1:8080/a/\n"),
            Some("curl -d x 'http://127.0.0.1:9000/a/?n=1'".into())
        );
        fs::write(folder.path().join("in.png"), "").unwrap();
        let line = readme("$ curl --data-binary @in.png 127.0.0.1:8080/a/").unwrap();
        let path = folder.path().join("in.png");
        assert!(line.contains(&format!("@{} http", path.display())), "{line}");
    }
}
