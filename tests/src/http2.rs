//! Clients of HTTP/2 and of TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::wait::PATIENCE;

/// With which a client begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The kind of the frame that ends a connection (RFC 9113, 6.8).
pub const GOAWAY: u8 = 7;

/// A frame as it goes over the wire.
///
/// # Panics
/// When it is longer than 4 GiB.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A literal header field of HPACK, not to be remembered.
///
/// # Panics
/// When its name or value is longer than 255 bytes.
#[must_use]
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The first one of what came, if all of it is there; it is taken out.
    #[must_use]
    pub fn take(came: &mut Vec<u8>) -> Option<Self> {
        let [l0, l1, l2, kind, flags] = came.first_chunk().copied()?;
        let end = 9 + u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let payload = came.get(9..end)?.to_vec();
        came.drain(..end);
        Some(Self { kind, flags, payload })
    }

    /// The error code that stands there, or another number of four bytes.
    #[must_use]
    pub fn code(&self, at: usize) -> Option<u32> {
        self.payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// Runs what a client does, to its end or the end of patience.
///
/// # Panics
/// When it takes too long.
pub fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let patient = async { tokio::time::timeout(PATIENCE, client).await };
    runtime.expect("a runtime").block_on(patient).expect("the client waits in vain")
}

/// A certificate for `localhost` that signed itself, and its key, as files.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// A new one; writes its files into a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let files = [folder.join("cert.pem"), folder.join("key.pem")];
        for (file, text) in files.iter().zip([certificate.pem(), key.serialize_pem()]) {
            // As it is done: by rename, so that nobody reads half of it.
            let partial = file.with_extension("partial");
            std::fs::write(&partial, text).expect("write a file");
            std::fs::rename(&partial, file).expect("rename a file");
        }
        let [certificate_file, key_file] = files;
        Self { certificate: certificate_file, key: key_file, der: certificate.der().clone() }
    }

    /// Connects to a server that has to have this certificate.
    ///
    /// # Errors
    /// When the server has another one, or does not speak TLS.
    pub async fn connect(&self, address: &str, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// A plain connection.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address");
    TcpStream::connect(address).await
}

/// A connection that speaks HTTP/2.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    /// Ends as the connection does.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Speaks HTTP/2 on a connection, with the bounds of `builder`.
    ///
    /// # Errors
    /// When the server does not.
    pub async fn new<S>(stream: S, builder: &h2::client::Builder) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = builder.handshake(stream).await?;
        Ok(Self { sender, connection: tokio::spawn(connection) })
    }

    /// Connects without TLS.
    ///
    /// # Panics
    /// When nobody speaks HTTP/2 there.
    pub async fn open(address: &str) -> Self {
        let stream = connect(address).await.expect("connect");
        Self::new(stream, &h2::client::Builder::new()).await.expect("HTTP/2")
    }

    /// Sends the head of a request; `end`: it is all.
    ///
    /// # Errors
    /// When the connection or the stream has ended.
    pub async fn send(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        sender.send_request(request, end)
    }

    /// `GET` of a URL.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn get(&mut self, url: &str) -> Result<Response<String>, h2::Error> {
        self.call(Request::get(url).body(()).expect("a request"), "").await
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn call(
        &mut self,
        request: Request<()>,
        body: &str,
    ) -> Result<Response<String>, h2::Error> {
        let (response, mut sending) = self.send(request, body.is_empty()).await?;
        if !body.is_empty() {
            sending.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        let (head, mut body) = response.await?.into_parts();
        let body = read(&mut body).await?;
        Ok(Response::from_parts(head, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Reads a body to its end.
///
/// # Errors
/// When it breaks off.
pub async fn read(body: &mut RecvStream) -> Result<BytesMut, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}
