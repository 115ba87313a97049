use super::*;

fn egress(private: bool, allow: &[&str]) -> Arc<Egress> {
    let own = OwnListeners {
        data: ["127.0.0.1:8080", "93.184.216.34:8080"].map(|own| own.parse().unwrap()).into(),
        admin: vec!["127.0.0.1:8081".parse().unwrap()],
    };
    let host = HostEgress::new(private, own, Arc::new(HopKey::unused()));
    let allow: Vec<AllowHost> = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    Egress::new(&allow, &host)
}

fn reaches(egress: &Egress, url: &str, address: &str) -> bool {
    let destination = Destination::of(&url.parse().unwrap()).unwrap();
    egress
        .grant(&destination)
        .is_some_and(|grant| egress.may_reach(&grant, address.parse().unwrap()))
}

#[test]
fn destinations_are_read_in_one_way() {
    for (url, form) in [
        ("https://API.example.com./path?query", "https://api.example.com"),
        ("http://example.com:8080", "http://example.com:8080"),
        ("http://[::1]:80/", "http://[::1]"),
    ] {
        let destination = Destination::of(&url.parse().unwrap()).unwrap();
        assert_eq!(destination.to_string(), form);
    }
}

#[test]
fn ambiguous_destinations_are_refused() {
    let refused = |url: &str| match url.parse::<Uri>() {
        Ok(uri) => Destination::of(&uri).err().map(|error| format!("{error:?}")),
        Err(_) => Some("no URL".to_owned()),
    };
    for url in ["2130706433", "0177.1", "0x7f.1", "127.1", "0x7f000001", "127.0.0.1.1", "1"] {
        let expected = Some("DestinationIpProhibited".to_owned());
        assert_eq!(refused(&format!("http://{url}/")), expected, "{url}");
    }
    for url in [
        "http://example.com@127.0.0.1/",
        "http://user:password@example.com/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://１２７.0.0.1/",
        "http://example.com:0/",
        "http://example.com:/",
        "http://example.com:99999/",
        "http://example.com:+80/",
        "http://exa%6dple.com/",
        "http://a..b/",
        "/path",
        "ftp://example.com/",
    ] {
        assert!(refused(url).is_some(), "{url}");
    }
}

#[test]
fn private_addresses_need_the_setting_and_their_own_entry() {
    let open = egress(
        true,
        &["http://*", "http://localhost:9000", "http://10.0.0.5", "http://db.internal"],
    );
    assert!(reaches(&open, "http://example.com/", "93.184.216.34:80"));
    assert!(reaches(&open, "http://localhost:9000/", "127.0.0.1:9000"));
    assert!(reaches(&open, "http://localhost:9000/", "[::1]:9000"));
    assert!(reaches(&open, "http://10.0.0.5/", "10.0.0.5:80"));
    // A name that leads there is not the same as its being named.
    assert!(!reaches(&open, "http://localhost:9000/", "10.0.0.5:9000"));
    assert!(!reaches(&open, "http://db.internal/", "10.0.0.5:80"));
    assert!(!reaches(&open, "http://example.com/", "127.0.0.1:80"));
    assert!(!reaches(&open, "http://10.0.0.6/", "10.0.0.6:80"));
    assert!(!reaches(&open, "http://localhost/", "127.0.0.1:80"));

    let closed = egress(false, &["http://localhost:9000", "http://10.0.0.5"]);
    assert!(!reaches(&closed, "http://localhost:9000/", "127.0.0.1:9000"));
    assert!(!reaches(&closed, "http://10.0.0.5/", "10.0.0.5:80"));
}

#[test]
fn the_admin_listener_and_metadata_are_never_reached() {
    let open = egress(
        true,
        &[
            "http://127.0.0.1:8081",
            "http://localhost:8081",
            "http://[::ffff:127.0.0.1]:8081",
            "http://0.0.0.0:8081",
            "http://169.254.169.254",
            "http://127.0.0.1:8082",
        ],
    );
    assert!(reaches(&open, "http://127.0.0.1:8082/", "127.0.0.1:8082"));
    for (url, address) in [
        ("http://127.0.0.1:8081/", "127.0.0.1:8081"),
        ("http://localhost:8081/", "127.0.0.1:8081"),
        ("http://[::ffff:127.0.0.1]:8081/", "[::ffff:127.0.0.1]:8081"),
        ("http://0.0.0.0:8081/", "0.0.0.0:8081"),
        ("http://169.254.169.254/", "169.254.169.254:80"),
    ] {
        assert!(!reaches(&open, url, address), "{url}");
    }
}

#[test]
fn functions_call_functions_only_where_private_addresses_are_open() {
    let urls = ["http://127.0.0.1:8080", "http://example.com:8080", "http://93.184.216.34:8080"];
    for private in [true, false] {
        let egress = egress(private, &urls);
        assert_eq!(reaches(&egress, urls[0], "127.0.0.1:8080"), private);
        assert_eq!(reaches(&egress, urls[2], "93.184.216.34:8080"), private);
        // Also on a public address; and names that lead here may lie.
        assert!(!reaches(&egress, urls[1], "93.184.216.34:8080"));
        assert!(reaches(&egress, urls[1], "93.184.216.35:8080"));
    }
}

#[test]
fn local_addresses_are_told_without_sending_anything() {
    assert!(is_local("127.8.9.10".parse().unwrap()));
    assert!(!is_local("8.8.8.8".parse().unwrap()));
}

#[test]
fn functions_without_entries_share_one_policy() {
    let host = HostEgress::new(true, OwnListeners::default(), Arc::new(HopKey::unused()));
    assert!(Arc::ptr_eq(&Egress::new(&[], &host), &Egress::nothing()));
}
