//! `whit invoke`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Response, Url};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::client::Client;
use super::output::{self, DIM};
use super::{Global, UsageError};
use crate::model::ids::{FunctionName, RevisionNumber};

/// Arguments of `whit invoke`.
#[derive(Debug, Args)]
pub(super) struct InvokeArgs {
    /// Name of the function; NAME:REVISION calls one revision
    name: Target,
    /// Path and query below the function's URL
    #[arg(default_value = "/")]
    path: String,
    /// Method [default: GET, or POST with data]
    #[arg(short = 'X', long)]
    method: Option<Method>,
    /// A header, `Name: value`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<Header>,
    /// The request's body; @FILE reads it from a file, - from standard input
    #[arg(short, long, value_name = "DATA")]
    data: Option<String>,
    /// Show status, headers and times on standard error
    #[arg(short, long)]
    include: bool,
}

/// A function, or one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: FunctionName,
    revision: Option<RevisionNumber>,
}

impl FromStr for Target {
    type Err = crate::model::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, revision) = match text.split_once(':') {
            Some((name, revision)) => (name, Some(revision.parse()?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse()?, revision })
    }
}

/// A header as on curl's command line.
#[derive(Debug, Clone)]
struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = UsageError;
    fn from_str(text: &str) -> Result<Self, UsageError> {
        let read = || {
            let (name, value) = text.split_once(':')?;
            Some(Self(name.trim().parse().ok()?, value.trim().parse().ok()?))
        };
        read().ok_or_else(|| UsageError("expected `Name: value`".into()))
    }
}

pub(super) async fn run(args: InvokeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::find(global)?;
    let url = address(&client, &args.name, &args.path).await?;
    let has_data = args.data.is_some();
    let method = args.method.unwrap_or(if has_data { Method::POST } else { Method::GET });
    let mut request = client.http().request(method, url.clone());
    let headers: HeaderMap =
        args.headers.into_iter().map(|Header(name, value)| (name, value)).collect();
    if let Some(data) = args.data {
        let (body, kind) = body(data).await?;
        if let Some(kind) = kind.filter(|_| !headers.contains_key(CONTENT_TYPE)) {
            request = request.header(CONTENT_TYPE, kind);
        }
        request = request.body(body);
    }
    let response = request.headers(headers).send().await.map_err(|error| {
        anyhow::Error::new(error.without_url()).context(format!("no answer from {url}"))
    })?;
    let failed = response.status().as_u16() >= 400;
    if global.json {
        print_json(response).await?;
    } else {
        if args.include {
            show_head(&response);
        }
        print_body(response).await?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

async fn address(client: &Client, target: &Target, path: &str) -> anyhow::Result<Url> {
    let base = match target.revision {
        Some(number) => client.revision(&target.name, number.0).await?.url,
        None => {
            let function = client.function(&target.name).await?;
            if function.active.is_none() {
                bail!(
                    "{0} has no active revision: call one as {0}:REVISION, or activate one with \
                     `whit rollback {0} REVISION`",
                    target.name
                );
            }
            function.url
        }
    };
    let url = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'));
    Url::parse(&url).with_context(|| format!("{url} is no URL"))
}

/// The body, and what it is where that shows.
async fn body(data: String) -> anyhow::Result<(Body, Option<&'static str>)> {
    if let "-" | "@-" = data.as_str() {
        return Ok((Body::wrap_stream(ReaderStream::new(tokio::io::stdin())), None));
    }
    if let Some(path) = data.strip_prefix('@') {
        let open = tokio::fs::File::open(Path::new(path)).await;
        let file = open.with_context(|| format!("open {path}"))?;
        return Ok((Body::from(file), None));
    }
    let json = serde_json::from_str::<Value>(&data)
        .is_ok_and(|value| value.is_object() || value.is_array());
    let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
    Ok((data.into(), Some(kind)))
}

fn show_head(response: &Response) {
    output::note(format!("{DIM}{:?} {}", response.version(), response.status()));
    for (name, value) in response.headers() {
        output::note(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    output::note(format!("{DIM:#}"));
}

/// Copies the body to stdout, as it comes.
async fn print_body(response: Response) -> anyhow::Result<()> {
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.context("the function's response broke off")?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&piece)?;
        stdout.flush()?;
    }
    Ok(())
}

/// The whole response as one document. A body that is not text is in hexadecimal.
async fn print_json(response: Response) -> anyhow::Result<()> {
    let status = response.status().as_u16();
    let mut headers = serde_json::Map::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.get_mut(name.as_str()) {
            Some(Value::String(first)) => *first = format!("{first}, {value}"),
            _ => drop(headers.insert(name.to_string(), value.into())),
        }
    }
    let body = response.bytes().await.context("the function's response broke off")?;
    let (key, body) = match std::str::from_utf8(&body) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("body_hex", hex::encode(&body)),
    };
    output::document(&json!({ "status": status, "headers": headers, key: body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_headers_are_read() {
        let target: Target = "hello:3".parse().unwrap();
        assert_eq!(target.revision, Some(RevisionNumber(3)));
        assert_eq!("hello".parse::<Target>().unwrap().revision, None);
        for bad in ["hello:", "hello:x", ":1", "Hello"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let Header(name, value) = "X-A: b: c".parse().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-a", "b: c"));
        assert!("X-A".parse::<Header>().is_err());
        assert!("X A: b".parse::<Header>().is_err());
    }
}
