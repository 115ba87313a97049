//! Servers that speak TLS, or do not.

use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::capabilities::http::tls::new_config;

#[tokio::test]
async fn tls_is_only_done_with_whom_it_trusts() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let _ = stream.read_u8().await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let url = |name: &str| format!("https://{name}:{}", address.port());
    let ask = async |egress: &Egress, url: &str| {
        let request = request(url).body(empty()).unwrap();
        let (response, _) = ask(egress, request, RequestOptions::default()).await?;
        read(response).await
    };
    let unknown = egress(EgressLimits::default(), &url("127.0.0.1"), true);
    let error = named(ask(&unknown, &url("127.0.0.1")).await);
    assert_eq!(error, "TlsCertificateError");

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let roots = Arc::new(roots);
    for (name, expected) in [("localhost", "ok"), ("127.0.0.1", "TlsCertificateError")] {
        let known = egress(EgressLimits::default(), &url(name), true);
        let config = new_config(Arc::clone(&roots)).unwrap();
        known.tls.set(Arc::new(config)).unwrap();
        match ask(&known, &url(name)).await {
            Ok(body) => assert_eq!(body, expected, "{name}"),
            Err(error) => assert_eq!(format!("{error:?}"), expected, "{name}"),
        }
    }

    let plain = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("https://{plain}");
    let error = named(ask(&egress(EgressLimits::default(), &url, true), &url).await);
    assert_eq!(error, "TlsProtocolError");
}
