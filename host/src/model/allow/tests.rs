use super::*;

fn entry(text: &str) -> AllowHost {
    text.parse().unwrap()
}

fn allows(text: &str, scheme: Scheme, host: &str, port: u16) -> bool {
    entry(text).allows(scheme, &host.parse().unwrap(), port)
}

#[test]
fn entries_have_one_form() {
    for (text, form) in [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("HTTPS://API.Example.COM.", "https://api.example.com"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:443", "http://api.example.com:443"),
        ("http://*.example.com:8080", "http://*.example.com:8080"),
        ("https://10.0.0.5", "https://10.0.0.5"),
        ("http://localhost:9000", "http://localhost:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://[0:0::1]", "http://[::1]"),
        ("https://*", "https://*"),
        ("https://my_bucket.xn--bcher-kva.example", "https://my_bucket.xn--bcher-kva.example"),
    ] {
        assert_eq!(entry(text).to_string(), form, "{text}");
        assert_eq!(entry(form), entry(text), "{text}");
    }
}

#[test]
fn bad_entries_say_why() {
    for (text, why) in [
        ("api.example.com", "must begin with http://"),
        ("", "must begin with http://"),
        ("ftp://example.com", "neither http nor https"),
        ("https://", "no host"),
        ("https:///", "no host"),
        ("https://:80", "no host"),
        ("https://example.com/path", "a path"),
        ("https://example.com//", "a path"),
        ("https://example.com?x", "a path"),
        ("https://example.com\\x", "a path"),
        ("https://user@example.com", "a user name"),
        ("https://example.com:0", "port"),
        ("https://example.com:", "port"),
        ("https://example.com:+80", "port"),
        ("https://example.com:65536", "port"),
        ("https://api.*.example.com", "'*' stands for"),
        ("https://*example.com", "'*' stands for"),
        ("https://*.10.0.0.5", "nothing below"),
        ("https://*.[::1]", "nothing below"),
        ("https://bücher.example", "xn--"),
        ("https://a..example", "letters"),
        ("https://a b", "letters"),
        ("https://[::1", "not an IPv6 address"),
        ("https://[fe80::1%25eth0]", "not an IPv6 address"),
        ("https://127.1", "four decimal numbers"),
        ("https://2130706433", "four decimal numbers"),
        ("https://0x7f.1", "four decimal numbers"),
        ("https://0x7f000001", "four decimal numbers"),
        ("https://127.0.0.0x1", "four decimal numbers"),
        ("https://0177.0.0.1", "four decimal numbers"),
    ] {
        let error = text.parse::<AllowHost>().unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert!(error.contains("accepted are"), "{text}: {error}");
    }
}

#[test]
fn an_entry_means_its_hosts_only() {
    use Scheme::{Http, Https};
    let api = "https://api.example.com";
    assert!(allows(api, Https, "api.example.com", 443));
    assert!(allows(api, Https, "API.example.com.", 443));
    assert!(!allows(api, Http, "api.example.com", 443));
    assert!(!allows(api, Https, "api.example.com", 8443));
    assert!(!allows(api, Https, "x.api.example.com", 443));
    assert!(!allows(api, Https, "api.example.com.evil.example", 443));
    assert!(!allows(api, Https, "evilapi.example.com", 443));

    let below = "http://*.example.com:8080";
    assert!(allows(below, Http, "a.example.com", 8080));
    assert!(allows(below, Http, "a.b.example.com", 8080));
    assert!(!allows(below, Http, "example.com", 8080));
    assert!(!allows(below, Http, "evilexample.com", 8080));
    assert!(!allows(below, Http, "a.example.com", 80));
    assert!(!allows(below, Http, "93.184.216.34", 8080));

    assert!(allows("https://*", Https, "anything.example", 443));
    assert!(allows("https://*", Https, "93.184.216.34", 443));
    assert!(!allows("https://*", Https, "anything.example", 444));
    assert!(allows("http://10.0.0.5", Http, "10.0.0.5", 80));
    // Another spelling of the same place is another host.
    assert!(!allows("http://10.0.0.5", Http, "[::ffff:10.0.0.5]", 80));
    assert!(allows("http://[::1]", Http, "[0:0:0::1]", 80));
}

#[test]
fn only_addresses_and_localhost_name_an_address() {
    for text in ["http://10.0.0.5", "http://[::1]", "http://LOCALHOST.:9000"] {
        assert!(entry(text).names_an_address(), "{text}");
    }
    for text in ["http://*", "http://db.internal", "http://*.localhost"] {
        assert!(!entry(text).names_an_address(), "{text}");
    }
}
