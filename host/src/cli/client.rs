//! The client of the admin API, and how a host on this machine is found.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::io::ReaderStream;

use super::{Global, UsageError};
use crate::admin::types::{FunctionView, Page, PublishedView, RevisionView};
use crate::http_error::Problem;
use crate::model::ids::FunctionName;
use crate::model::spec::FunctionSpec;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Bytes of an upload that are read at a time.
const UPLOAD_CHUNK_BYTES: usize = 64 << 10;
/// Where `whit dev` keeps its host's data, below the folder it serves.
pub(super) const DEV_DATA: &str = ".whit/data";

/// An answer of the host that is an error.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problem.detail)]
pub(super) struct ApiError {
    /// What the host said.
    pub(super) problem: Problem,
}

/// What a running host writes into its data folder.
#[derive(Debug, Deserialize)]
struct HostFile {
    admin: String,
    pid: i32,
}

/// A host's admin API.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    admin: Url,
    token: Option<String>,
}

impl Client {
    /// The host that the flags name, or the one that runs on this machine.
    pub(super) fn find(global: &Global) -> anyhow::Result<Self> {
        if let Some(host) = &global.host {
            let token = global.token.clone().or_else(|| local_token(global, host));
            return Self::new(host, token);
        }
        let folders = data_folders(global);
        let running = folders.iter().find_map(|folder| Some((folder, running_host(folder)?)));
        let Some((folder, host)) = running else {
            let looked: Vec<String> =
                folders.iter().map(|folder| folder.display().to_string()).collect();
            bail!(
                "no host is running here (looked in {}): start one with `whit serve`, or name one \
                 with --host",
                looked.join(" and ")
            );
        };
        let token = match &global.token {
            Some(token) => token.clone(),
            None => read_token(folder)?,
        };
        Self::new(&host.admin, Some(token))
    }

    /// The host at this address.
    pub(super) fn new(admin: &str, token: Option<String>) -> anyhow::Result<Self> {
        let address =
            if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
        let admin = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                UsageError(format!("--host {admin}: expected a URL such as http://10.0.0.5:8081"))
            })?;
        Ok(Self { http: http_client(&admin)?, admin, token })
    }

    /// The HTTP client, for calls of functions.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.admin.clone();
        // Only a URL that can not be a base has no segments, and `new` refuses those.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        url
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.explain(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
            bail!("{} answered {status}, but not as a Whit host does: is it one?", self.admin);
        };
        Err(ApiError { problem }.into())
    }

    fn explain(&self, error: reqwest::Error) -> anyhow::Error {
        let admin = self.admin.as_str().trim_end_matches('/').to_owned();
        let what = if error.is_connect() || error.is_timeout() {
            format!("no answer from {admin}; is the host running, and is this its admin address?")
        } else {
            format!("the exchange with {admin} broke off")
        };
        anyhow::Error::new(error.without_url()).context(what)
    }

    async fn get_json<T: DeserializeOwned>(&self, url: Url) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::GET, url)).await?;
        read(response).await
    }

    /// All items of a list, page by page.
    async fn all<T: DeserializeOwned>(&self, url: Url) -> anyhow::Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut page_url = url.clone();
            page_url.query_pairs_mut().append_pair("limit", "1000");
            if let Some(cursor) = &cursor {
                page_url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let page: Page<T> = self.get_json(page_url).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }

    /// All functions, by name.
    pub(super) async fn functions(&self) -> anyhow::Result<Vec<FunctionView>> {
        self.all(self.url(&["functions"])).await
    }

    /// One function.
    pub(super) async fn function(&self, name: &FunctionName) -> anyhow::Result<FunctionView> {
        self.get_json(self.url(&["functions", name.as_str()])).await
    }

    /// A function's revisions, the newest first.
    pub(super) async fn revisions(&self, name: &FunctionName) -> anyhow::Result<Vec<RevisionView>> {
        self.all(self.url(&["functions", name.as_str(), "revisions"])).await
    }

    /// One revision.
    pub(super) async fn revision(
        &self,
        name: &FunctionName,
        number: u32,
    ) -> anyhow::Result<RevisionView> {
        let number = number.to_string();
        self.get_json(self.url(&["functions", name.as_str(), "revisions", &number])).await
    }

    /// Uploads a component, with a spec where there is one.
    pub(super) async fn publish(
        &self,
        name: &FunctionName,
        component: &Path,
        spec: Option<&FunctionSpec>,
        activate: bool,
    ) -> anyhow::Result<PublishedView> {
        let mut url = self.url(&["functions", name.as_str()]);
        if !activate {
            url.query_pairs_mut().append_pair("activate", "false");
        }
        let opened = || format!("open {}", component.display());
        let file = tokio::fs::File::open(component).await.with_context(opened)?;
        let bytes = file.metadata().await.with_context(opened)?.len();
        let file = ReaderStream::with_capacity(file, UPLOAD_CHUNK_BYTES);
        let request = self.request(Method::PUT, url);
        let request = match spec {
            None => request
                .header("content-type", "application/wasm")
                .header("content-length", bytes)
                .body(Body::wrap_stream(file)),
            Some(spec) => {
                let (kind, head, tail) = multipart_frame(&serde_json::to_string(spec)?);
                let length = bytes + (head.len() + tail.len()) as u64;
                let part = |text: String| stream::iter([Ok(Bytes::from(text))]);
                let body = part(head).chain(file).chain(part(tail));
                request
                    .header("content-type", kind)
                    .header("content-length", length)
                    .body(Body::wrap_stream(body))
            }
        };
        read(self.send(request).await?).await
    }

    /// Goes back to `revision`, or to what was active before.
    pub(super) async fn roll_back(
        &self,
        name: &FunctionName,
        revision: Option<u32>,
    ) -> anyhow::Result<FunctionView> {
        let url = self.url(&["functions", name.as_str(), "rollback"]);
        let body = crate::admin::types::RollbackRequest { revision };
        read(self.send(self.request(Method::POST, url).json(&body)).await?).await
    }

    /// Removes a function.
    pub(super) async fn delete(&self, name: &FunctionName) -> anyhow::Result<()> {
        let url = self.url(&["functions", name.as_str()]);
        self.send(self.request(Method::DELETE, url)).await?;
        Ok(())
    }

    /// A function's log as NDJSON, piece by piece.
    pub(super) async fn logs(
        &self,
        name: &FunctionName,
        limit: u32,
        invocation: Option<&str>,
        follow: bool,
    ) -> anyhow::Result<impl futures::Stream<Item = anyhow::Result<Bytes>> + use<>> {
        let mut url = self.url(&["functions", name.as_str(), "logs"]);
        url.query_pairs_mut()
            .append_pair("limit", &limit.to_string())
            .append_pair("follow", if follow { "true" } else { "false" });
        if let Some(invocation) = invocation {
            url.query_pairs_mut().append_pair("invocation", invocation);
        }
        let response = self.send(self.request(Method::GET, url)).await?;
        Ok(response.bytes_stream().map_err(|error| anyhow!(error).context("the log broke off")))
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    let address = response.url().origin().ascii_serialization();
    response.json().await.with_context(|| {
        format!("the answer of {address} is not one of a Whit host of this version")
    })
}

/// Content-Type, and what stands before and after the component in a multipart
/// body with a spec. The boundary is random: a component can not contain it.
fn multipart_frame(spec: &str) -> (String, String, String) {
    let mut random = [0; 16];
    // Without randomness any boundary will do that no wasm file happens to hold.
    let _ = getrandom::fill(&mut random);
    let boundary = format!("whit-{}", hex::encode(random));
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"spec\"\r\n\
         content-type: application/json\r\n\r\n{spec}\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"component\"; \
         filename=\"component.wasm\"\r\ncontent-type: application/wasm\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    (format!("multipart/form-data; boundary={boundary}"), head, tail)
}

fn http_client(admin: &Url) -> anyhow::Result<reqwest::Client> {
    // Fails only where it was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .user_agent(concat!("whit/", env!("CARGO_PKG_VERSION")))
        // A function's redirect is its answer.
        .redirect(reqwest::redirect::Policy::none());
    // A proxy can not reach this machine's loopback.
    let builder = if is_loopback(admin) { builder.no_proxy() } else { builder };
    builder.build().context("set up the HTTP client")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Where a host of this machine may keep its data: where the flag says, or else
/// below the current folder or one above it (`whit dev`), or the usual place.
fn data_folders(global: &Global) -> Vec<PathBuf> {
    if let Some(folder) = &global.data_dir {
        return vec![folder.clone()];
    }
    let here = std::env::current_dir().unwrap_or_default();
    here.ancestors()
        .map(|folder| folder.join(DEV_DATA))
        .filter(|folder| folder.is_dir())
        .chain([crate::config::default_data_dir()])
        .collect()
}

/// What `folder/host.json` says, if that host still runs.
fn running_host(folder: &Path) -> Option<HostFile> {
    let text = fs::read(folder.join("host.json")).ok()?;
    let host: HostFile = serde_json::from_slice(&text).ok()?;
    let pid = rustix::process::Pid::from_raw(host.pid)?;
    match rustix::process::test_kill_process(pid) {
        // It runs, as us or as somebody else.
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(host),
        Err(_) => None,
    }
}

fn read_token(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("admin.token");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "{} belongs to another user: run this command as that user, or set WHIT_TOKEN",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// The token of a host that is named, but runs on this machine.
fn local_token(global: &Global, host: &str) -> Option<String> {
    let same = |host_file: &HostFile| {
        host_file.admin.trim_end_matches('/').trim_start_matches("http://")
            == host.trim_end_matches('/').trim_start_matches("http://")
    };
    data_folders(global)
        .iter()
        .find(|folder| running_host(folder).as_ref().is_some_and(same))
        .and_then(|folder| read_token(folder).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_given_as_urls_or_addresses() {
        let admin = |host: &str| Client::new(host, None).map(|client| client.admin.to_string());
        assert_eq!(admin("10.0.0.5:8081").unwrap(), "http://10.0.0.5:8081/");
        assert_eq!(admin("https://whit.example.com/").unwrap(), "https://whit.example.com/");
        for bad in ["", "ftp://x", "http://", "a b"] {
            assert!(admin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_keep_a_prefix_and_escape_names() {
        let client = Client::new("https://example.com/whit/", None).unwrap();
        assert_eq!(
            client.url(&["functions", "a/b"]).as_str(),
            "https://example.com/whit/v1/functions/a%2Fb"
        );
    }

    #[test]
    fn a_dead_host_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        assert!(running_host(folder.path()).is_none());
        let write = |pid: u32| {
            let text = format!(r#"{{"data":"http://a","admin":"http://b","pid":{pid}}}"#);
            fs::write(folder.path().join("host.json"), text).unwrap();
        };
        write(std::process::id());
        assert_eq!(running_host(folder.path()).unwrap().admin, "http://b");
        // Above the largest pid that Linux gives out.
        write(1 << 30);
        assert!(running_host(folder.path()).is_none());
    }
}
