//! TLS of outgoing requests: whom it trusts, and what its errors mean.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use wasmtime_wasi_http::Error;

use super::egress::Egress;
use crate::model::allow::Host;

/// TLS sessions that one revision remembers, to resume them.
const SESSIONS_MAX: usize = 16;

/// The certificates that are trusted: Mozilla's and this machine's. Read at the
/// first use, for all functions.
#[derive(Debug, Default)]
pub(super) struct Roots(OnceCell<Arc<RootCertStore>>);

impl Roots {
    async fn get(&self) -> Result<Arc<RootCertStore>, Error> {
        let roots = self.0.get_or_try_init(async || {
            // It reads hundreds of files.
            let loaded = tokio::task::spawn_blocking(load_roots).await;
            loaded.map(Arc::new).map_err(|_| internal_error())
        });
        roots.await.cloned()
    }
}

fn load_roots() -> RootCertStore {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate of this machine can not be read");
    }
    roots.add_parsable_certificates(native.certs);
    roots
}

/// How a function's requests do TLS; made at the first one.
///
/// # Errors
/// An internal one, when no configuration can be made.
pub(super) async fn config(egress: &Egress) -> Result<Arc<ClientConfig>, Error> {
    let config = egress.tls.get_or_try_init(async || {
        let roots = egress.host.roots.get().await?;
        new_config(roots).map(Arc::new)
    });
    config.await.cloned()
}

/// # Errors
/// An internal one, when the cryptography lacks a protocol version.
pub(super) fn new_config(roots: Arc<RootCertStore>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| internal_error())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The name that a server's certificate must have.
///
/// # Errors
/// When no certificate can have it.
pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, Error> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| Error::TlsCertificateError)
        }
    }
}

/// What a failed handshake is to the guest.
pub(super) fn handshake_error(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}

fn internal_error() -> Error {
    Error::InternalError(Some("TLS can not be set up".to_owned()))
}
