//! TLS of the data plane: one certificate, read anew when its files change.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Pause between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Largest certificate or key file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can not be read.
    #[error("{file} can not be read")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{file} has no {what} in PEM")]
    Content {
        /// The file.
        file: PathBuf,
        /// What it should have.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// The two are no pair, or of no kind that can be used.
    #[error("the certificate in {certificate} can not be used with the key in {key}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The files that were read last, also if they were no good.
    seen: Mutex<[Option<Identity>; 2]>,
    opened: Instant,
    /// When the files are looked at again, in milliseconds from `opened`.
    next_look_ms: AtomicU64,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which file can not be used, and why.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = Mutex::new(identities(&files));
        let config = ArcSwap::from_pointee(load(&files)?);
        let next_look_ms = AtomicU64::new(0);
        Ok(Self { files, config, seen, opened: Instant::now(), next_look_ms })
    }

    /// What the next connection is secured with.
    pub(super) async fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        if self.is_time_to_look() {
            let this = Arc::clone(self);
            // Fails only if it panics; what there was stays in use then.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        TlsAcceptor::from(self.config.load_full())
    }

    fn is_time_to_look(&self) -> bool {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = ms(self.opened.elapsed());
        let due = self.next_look_ms.load(Ordering::Relaxed);
        let next = now.saturating_add(ms(LOOK_INTERVAL));
        let order = Ordering::Relaxed;
        // One of those that come at the same time looks.
        now >= due && self.next_look_ms.compare_exchange(due, next, order, order).is_ok()
    }

    /// Reads the files again if they are others than last time. Files that are
    /// no good are told once, and change nothing.
    fn look(&self) {
        let found = identities(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return;
        }
        *seen = found;
        match load(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(file = %self.files.certificate.display(), "a new certificate is in use");
            }
            Err(error) => {
                let error = crate::telemetry::error_chain(&error);
                tracing::warn!(%error, "the new certificate can not be used; the old one stays");
            }
        }
    }
}

/// What tells one content of a file from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Path) -> Option<Self> {
        let data = std::fs::metadata(file).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

fn identities(files: &TlsFiles) -> [Option<Identity>; 2] {
    [&files.certificate, &files.key].map(|file| Identity::of(file))
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let TlsFiles { certificate, key } = files;
    let content = |file: &Path, what| {
        let file = file.to_owned();
        move |source| TlsError::Content { file, what, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.and_then(|chain| match chain.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(chain),
    });
    let chain = chain.map_err(content(certificate, "certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(content(key, "private key"))?;
    let pair =
        |source| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = std::fs::metadata(file).and_then(|data| match data.len() {
        0..=FILE_BYTES_MAX => std::fs::read(file),
        _ => Err(io::Error::other("it is larger than any certificate")),
    });
    bytes.map_err(|source| TlsError::Read { file: file.to_owned(), source })
}
