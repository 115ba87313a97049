//! TLS on the data plane: both protocols, the certificate's renewal, and files
//! that are no good.

use std::fs;
use std::process::Command;

use tests::http2::{Certificate, Http2, run};
use tests::{Host, eventually, guests};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{WHIT, host};

const GET: &[u8] = b"GET /env/env HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn start(certificate: &Certificate) -> Host {
    let host = host()
        .set("tls_cert", certificate.certificate.display())
        .set("tls_key", certificate.key.display())
        .start();
    host.admin().deploy("env", guests::cgi());
    host
}

#[test]
fn both_protocols_are_spoken_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = Certificate::new(folder.path());
    let host = start(&certificate);
    run(async {
        // What the client offers decides; without an offer, its first bytes.
        for (offered, chosen) in
            [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let stream = certificate.connect(host.address(), offered).await.expect("TLS");
            let alpn = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy);
            assert_eq!(alpn.as_deref(), chosen);
            if chosen == Some("h2") {
                let mut http2 = Http2::new(stream, &h2::client::Builder::new()).await.expect("h2");
                let answer = http2.get("https://localhost/env/env").await.expect("an answer");
                assert_eq!(answer.status(), 200);
                assert!(answer.body().contains("HTTPS=on\n"), "{}", answer.body());
                assert!(answer.body().contains("REQUEST_SCHEME=https\n"), "{}", answer.body());
            } else {
                let mut stream = stream;
                stream.write_all(GET).await.expect("send");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("an answer");
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert!(answer.contains("HTTPS=on\n"), "{answer}");
            }
        }
    });
    // Plain HTTP gets no answer, and hurts nobody.
    let mut plain = host.connect();
    plain.write(GET).expect("send");
    assert!(plain.response().is_err());
    let receipts = host.admin().receipts("env", "ok", 3);
    assert_eq!(receipts.len(), 3);
}

#[test]
fn a_renewed_certificate_is_used_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Certificate::new(folder.path());
    let mut host = start(&first);
    let has = |certificate: &Certificate| {
        run(async { certificate.connect(host.address(), &[]).await.is_ok() })
    };
    assert!(has(&first));
    fs::write(&first.key, "no key").expect("spoil the key");
    // It is noticed, and told once; what there was stays.
    let told = |host: &Host| {
        host.log().iter().filter(|line| line.contains("the new certificate can not")).count()
    };
    eventually("the bad file is noticed", || {
        assert!(has(&first));
        (told(&host) > 0).then_some(())
    });
    let second = Certificate::new(folder.path());
    eventually("the new certificate is used", || has(&second).then_some(()));
    assert!(!has(&first));
    // The two files are not replaced at once: a pair that does not fit may be seen.
    assert!((1..=2).contains(&told(&host)), "{:#?}", host.log());
    host.expect_warning("the new certificate can not be used; the old one stays");
}

#[test]
fn files_that_are_no_good_are_named_before_a_port_is_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = Certificate::new(folder.path());
    let other_folder = tempfile::tempdir().expect("a folder");
    let other = Certificate::new(other_folder.path());
    let bad = folder.path().join("bad.pem");
    fs::write(&bad, "-----BEGIN NONSENSE-----\n").expect("a file");
    let missing = folder.path().join("missing.pem");
    let cases = [
        (&missing, &good.key, "missing.pem can not be read"),
        (&good.certificate, &missing, "missing.pem can not be read"),
        (&bad, &good.key, "bad.pem has no certificate"),
        (&good.certificate, &bad, "bad.pem has no private key"),
        (&good.certificate, &good.certificate, "cert.pem has no private key"),
        (&good.certificate, &other.key, "key.pem"),
    ];
    for (certificate, key, expected) in cases {
        let mut command = Command::new(WHIT);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(
                [
                    [flag("--tls-cert"), certificate.as_os_str()],
                    [flag("--tls-key"), key.as_os_str()],
                ]
                .concat(),
            );
        let output = command.output().expect("run it");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{expected}: {told}");
        assert!(!folder.path().join("data").exists(), "it was started: {told}");
    }
    let one = Command::new(WHIT).args(["serve", "--check", "--tls-cert", "x.pem"]).output();
    let one = one.expect("run it");
    let told = String::from_utf8_lossy(&one.stderr);
    assert!(told.contains("tls_cert is set and tls_key is not"), "{told}");
    assert_eq!(one.status.code(), Some(2));
}

fn flag(text: &'static str) -> &'static std::ffi::OsStr {
    std::ffi::OsStr::new(text)
}
