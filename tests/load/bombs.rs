//! Uploads that are small to send and large to compile.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tests::guests;
use tests::health::Health;

use crate::{alone, host};

/// Text of a module whose parts are repeated `count` times.
fn repeated(head: &str, count: u32, part: impl Fn(u32) -> String) -> Vec<u8> {
    let mut text =
        format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) {head}");
    for number in 0..count {
        // Writing to memory does not fail.
        let _ = write!(text, "{}", part(number));
    }
    text.push(')');
    guests::wat_text(&text)
}

/// A function whose body is repeated.
fn function(locals: u32, count: usize, part: &str) -> Vec<u8> {
    let locals = "i64 ".repeat(locals as usize);
    let body = part.repeat(count);
    repeated(&format!("(func (param i32) (local {locals}) {body})"), 0, |_| String::new())
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |depth: usize| format!("{}{}", "(component ".repeat(depth), ")".repeat(depth));
    let arms = "0 ".repeat(20_000);
    vec![
        ("functions", repeated("", 150_000, |_| "(func)".into())),
        (
            "types",
            repeated("", 30_000, |n| {
                format!("(type (func (param {})))", "i32 ".repeat(n as usize % 60))
            }),
        ),
        ("branches", function(0, 40, &format!("(block (br_table {arms} (local.get 0)))"))),
        ("locals", function(200, 10_000, "(block (local.set 1 (i64.const 1)))")),
        ("many-locals", function(49_000, 10, "(block)")),
        ("data", repeated("", 99_000, |_| "(data (i32.const 0) \"\")".into())),
        ("exports", repeated("(func $f)", 99_000, |n| format!("(export \"e{n}\" (func $f))"))),
        ("globals", repeated("", 150_000, |_| "(global i32 (i32.const 0))".into())),
        ("name", repeated("", 1, |_| format!("(func (export \"{}\"))", "n".repeat(90_000)))),
        (
            "image",
            repeated("(data (i32.const 0) \"a\") (data (i32.const 65000) \"b\")", 0, |_| {
                String::new()
            }),
        ),
        ("adds", function(4, 200_000, "(local.set 1 (i64.mul (local.get 1) (local.get 2)))")),
        ("depth", guests::wat_text(&nested(90))),
    ]
}

#[test]
fn twelve_bombs_cost_their_sender_an_answer() {
    let _alone = alone();
    let host = host().set("compile_time_max", "3s").set("compile_memory_max", "1GiB").start();
    let health = Health::watch(&host);
    for (name, bomb) in bombs() {
        let started = Instant::now();
        let status = std::thread::scope(|scope| {
            let upload = scope.spawn(|| host.admin().put("bomb", &bomb));
            while !upload.is_finished() {
                health.answers(&host, name);
            }
            let answer = upload.join().expect("the upload");
            println!(
                "{name}: {} bytes, {} in {:.1?}",
                bomb.len(),
                answer.status(),
                started.elapsed()
            );
            answer.status()
        });
        // What compiles within the bounds is no bomb.
        assert!([200, 201, 422].contains(&status), "{name}: {status}");
        assert!(started.elapsed() < Duration::from_secs(30), "{name}: {:?}", started.elapsed());
        health.check(&host, name);
    }
}
