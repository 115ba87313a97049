//! Every example does what its README says: each `curl` line in it is tried, and
//! has to print what stands below it.

use std::fs;

use tests::{Host, Request, command, guests, readme};
use whit::dev::languages::Language;

use crate::{WHIT, host};

#[test]
fn hello_rust() {
    follow_readme("hello-rust", Language::Rust);
}

#[test]
fn hello_c() {
    follow_readme("hello-c", Language::C);
}

#[test]
fn hello_go() {
    follow_readme("hello-go", Language::Go);
}

#[test]
fn hello_python() {
    let host = follow_readme("hello-python", Language::Python);
    // A request writes to 300 pages all over the interpreter's memory. They stay mapped:
    // to get them again is 4 us each, and interrupts all other processors.
    let call = || assert_eq!(host.get("/hello-python/").status(), 200);
    (0..30).for_each(|_| call());
    let before = host.page_faults();
    (0..100).for_each(|_| call());
    let faults = (host.page_faults() - before) / 100;
    assert!(faults < 150, "{faults} page faults for each request");
}

#[test]
fn hello_javascript() {
    follow_readme("hello-javascript", Language::JavaScript);
}

#[test]
fn orders_typescript() {
    follow_readme("orders-typescript", Language::JavaScript);
}

#[test]
fn flask_python() {
    follow_readme("flask-python", Language::Python);
}

#[test]
fn webhook_go() {
    follow_readme("webhook-go", Language::Go);
}

#[test]
fn events_rust() {
    follow_readme("events-rust", Language::Rust);
}

#[test]
fn words_c() {
    follow_readme("words-c", Language::C);
}

#[test]
fn markdown_c() {
    follow_readme("markdown-c", Language::C);
}

#[test]
fn thumbnails() {
    let host = follow_readme("thumbnails", Language::Rust);
    let samples = guests::repository().join("examples/thumbnails/samples");
    for (sample, query, size, kind) in [
        ("landscape.jpg", "width=320", (320, 213), "image/jpeg"),
        ("badge.png", "height=50&format=jpeg", (50, 50), "image/jpeg"),
        ("turned.jpg", "width=100", (0, 0), "image/jpeg"),
        ("badge.png", "width=64", (64, 64), "image/png"),
    ] {
        let image = fs::read(samples.join(sample)).expect("a sample");
        let answer = host.call(&Request::post(&format!("/thumbnails/?{query}"), image));
        assert_eq!(answer.status(), 200, "{sample}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(kind), "{sample}");
        let (width, height) = dimensions(&answer.body);
        if size != (0, 0) {
            assert_eq!((width, height), size, "{sample}?{query}");
        }
        assert!(width > 0 && height > 0);
    }
}

/// Deploys an example, as its README says, and tries all that its README shows.
fn follow_readme(name: &str, language: Language) -> Host {
    let folder = guests::repository().join("examples").join(name);
    let host = host().start();
    {
        let _turn = guests::take_turns();
        guests::get_ready(language);
        let mut deploy = command::command(WHIT, host.folder());
        command::run(deploy.arg("deploy").arg(&folder)).succeeded();
    }
    let tried = readme::follow(&folder, &host);
    assert!(tried >= 3, "{name}: only {tried} lines to try");
    host
}

/// Width and height of a JPEG or PNG, from its head.
fn dimensions(image: &[u8]) -> (u32, u32) {
    let number = |at: usize, bytes: usize| -> u32 {
        image[at..at + bytes].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    if image.starts_with(b"\x89PNG") {
        return (number(16, 4), number(20, 4));
    }
    assert!(image.starts_with(&[0xff, 0xd8]), "neither a PNG nor a JPEG");
    let mut at = 2;
    loop {
        let marker = image[at + 1];
        // The frames that have a size: SOF0 to SOF15 but for tables.
        if (0xc0..=0xcf).contains(&marker) && ![0xc4, 0xc8, 0xcc].contains(&marker) {
            return (number(at + 7, 2), number(at + 5, 2));
        }
        at += 2 + number(at + 2, 2) as usize;
    }
}
