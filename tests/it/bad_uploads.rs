//! Whatever is uploaded: a clear answer, and every deployed function goes on.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::admin::put_request;
use tests::{Connection, Host, Request, guests};

use crate::{WHIT, host};

/// A host with a function that has to go on answering.
fn host_with_function() -> Host {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("still here"));
    still_serves(&host);
    host
}

#[track_caller]
fn still_serves(host: &Host) {
    host.get("/good/").assert_text("still here");
}

/// Uploads it under a new name and under that of the good function; returns the
/// detail. Nothing may have changed after it.
#[track_caller]
fn refused(host: &Host, component: &[u8], status: u16, code: &str) -> String {
    let over_good = host.admin().put("good", component);
    over_good.assert_problem(status, code);
    assert_eq!(host.admin().json("/v1/functions/good")["active"], 1);
    let detail = host.admin().put("bad", component).assert_problem(status, code);
    assert_eq!(host.admin().get("/v1/functions/bad").status(), 404);
    still_serves(host);
    detail
}

#[track_caller]
fn assert_names(detail: &str, names: &[&str]) {
    for name in names {
        assert!(detail.contains(name), "{name:?} is not in {detail:?}");
    }
}

#[test]
fn what_is_not_webassembly_is_named() {
    let host = host_with_function();
    let mut program = vec![0; 1 << 20];
    let mut file = fs::File::open(WHIT).expect("open the binary");
    file.read_exact(&mut program).expect("read the binary");
    let random: Vec<u8> = (1..=9000_u64)
        .map(|index| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 | 0x80)
        .collect();
    for (upload, found) in [
        (&b""[..], "empty"),
        (b"hello, I am a text\n", "text"),
        (b"<html><body>Not Found</body></html>", "text"),
        (b"(module)", "WebAssembly text"),
        (&random, "unknown binary data"),
        (&program, "ELF"),
        (b"PK\x03\x04 a zip file", "zip"),
        (b"\0asm", "truncated"),
        (b"\0asm\x99\0\0\0", "unknown version"),
    ] {
        let detail = refused(&host, upload, 415, "unsupported_component");
        // What was found, and what is accepted.
        assert_names(&detail, &[found, "wasi:http/incoming-handler@0.2", "_start"]);
    }
}

#[test]
fn a_real_artifact_is_not_an_upload() {
    let host = host_with_function();
    let artifact = artifacts(host.folder()).pop().expect("an artifact");
    let artifact = fs::read(artifact).expect("read the artifact");
    let detail = refused(&host, &artifact, 415, "unsupported_component");
    assert_names(&detail, &["ELF", ".cwasm"]);
}

#[test]
fn broken_webassembly_is_refused_wherever_it_breaks() {
    let host = host_with_function();
    for whole in [guests::http_02(), guests::cgi()] {
        for part in [2, 3, 10] {
            refused(&host, &whole[..whole.len() / part], 422, "invalid_component");
        }
        let mut changed = whole.to_vec();
        changed[whole.len() / 2..whole.len() / 2 + 64].fill(0xff);
        refused(&host, &changed, 422, "invalid_component");
    }
    // Well-formed, and still not valid: the types do not match.
    let invalid = guests::wat_text(r#"(module (func (export "_start") (result i32) unreachable))"#);
    let response = host.admin().put("bad", &invalid);
    response.assert_problem(422, "invalid_component");
    let invalid = guests::wat_text(r#"(module (func (export "_start") i32.const 1))"#);
    refused(&host, &invalid, 422, "invalid_component");
}

#[test]
fn imports_that_nothing_here_offers_are_named() {
    let host = host_with_function();
    let component = guests::wat_text(
        r#"(component
            (import "acme:queue/send@1.0.0" (instance))
            (import "acme:cache/get@2.1.0" (instance (export "get" (func (result string)))))
            (instance $handler)
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#,
    );
    let detail = refused(&host, &component, 422, "missing_imports");
    assert_names(&detail, &["acme:queue/send@1.0.0", "acme:cache/get@2.1.0"]);
    let module = guests::wat_text(
        r#"(module
            (import "env" "draw" (func))
            (import "env" "play_sound" (func (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")))"#,
    );
    let detail = refused(&host, &module, 422, "missing_imports");
    assert_names(&detail, &["env.draw", "env.play_sound"]);
}

#[test]
fn a_handler_that_can_not_be_called_is_refused_at_the_upload() {
    let host = host_with_function();
    let component = guests::wat_text(
        r#"(component
            (instance $empty)
            (export "wasi:http/incoming-handler@0.2.0" (instance $empty)))"#,
    );
    let response = host.admin().put("bad", &component);
    assert_eq!(response.status(), 422, "{}", response.text());
    still_serves(&host);
}

#[test]
fn what_has_no_handler_is_told_what_it_exports() {
    let host = host_with_function();
    let component = guests::wat_text(
        r#"(component
            (instance $tool)
            (export "acme:tool/convert@1.0.0" (instance $tool)))"#,
    );
    let detail = refused(&host, &component, 422, "no_handler");
    assert_names(&detail, &["acme:tool/convert@1.0.0", "wasi:http/incoming-handler@0.2"]);
    let module = guests::wat_text(r#"(module (func (export "add")) (func (export "sub")))"#);
    let detail = refused(&host, &module, 422, "no_handler");
    assert_names(&detail, &["add", "sub", "_start"]);
}

#[test]
fn an_upload_over_the_limit_is_refused_without_being_kept() {
    let host = host().set("component_max", "1MiB").start();
    host.admin().deploy("good", &guests::answering("still here"));
    let large = vec![0_u8; 2 << 20];
    let detail = refused(&host, &large, 413, "too_large");
    assert_names(&detail, &["1MiB"]);
    // Without an announced length it is found out on the way.
    let mut connection = Connection::open(host.admin_address());
    let request = Request::new("PUT", "/v1/functions/bad");
    let bearer = format!("Bearer {}", host.token());
    connection.send_chunked(&request.header("authorization", &bearer)).expect("send");
    for chunk in large.chunks(64 << 10).chain([&b""[..]]) {
        connection.chunk(chunk).expect("the rest is read");
    }
    connection.response().expect("an answer").assert_problem(413, "too_large");
    still_serves(&host);
    let left: Vec<_> = fs::read_dir(host.folder().join("tmp")).expect("tmp").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn two_hundred_mebibytes_are_refused_before_they_are_sent() {
    let host = host_with_function();
    let request = put_request("bad", b"")
        .header("authorization", &format!("Bearer {}", host.token()))
        .header("content-length", &(200_u64 << 20).to_string())
        .header("expect", "100-continue");
    let mut connection = Connection::open(host.admin_address());
    connection.send_head(&request).expect("send");
    let answer = connection.response().expect("an answer");
    assert_names(&answer.assert_problem(413, "too_large"), &["100MiB"]);
    still_serves(&host);
}

#[test]
fn a_compile_bomb_costs_its_sender_an_answer_and_nobody_else_anything() {
    // Small to send, large to compile: many functions, and one that is long.
    let many = "(func (param i64 i64) (result i64)
        local.get 0 local.get 1 i64.mul local.get 0 i64.xor local.get 1 i64.rotl)";
    let many = many.repeat(200_000);
    let long = "local.get 1 i64.mul ".repeat(400_000);
    let long = format!("(func (param i64 i64) (result i64) local.get 0 {long})");
    let bomb = |functions: &str| {
        guests::wat_text(&format!(
            r#"(module (memory (export "memory") 1) {functions} (func (export "_start")))"#
        ))
    };
    // Each bomb has one limit that it can meet, and the other out of its reach
    // however slow the machine is.
    for (limit, time_max, memory_max, bomb) in
        [("time", "1s", "8GiB", bomb(&many)), ("memory", "10m", "512MiB", bomb(&long))]
    {
        let host =
            host().set("compile_time_max", time_max).set("compile_memory_max", memory_max).start();
        host.admin().deploy("good", &guests::answering("still here"));
        let before = host.mark_memory();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let upload = scope.spawn(|| host.admin().put("bad", &bomb));
            while !upload.is_finished() {
                still_serves(&host);
            }
            let answer = upload.join().expect("the upload");
            let detail = answer.assert_problem(422, "component_too_costly");
            assert_names(&detail, &[limit]);
        });
        let took = started.elapsed();
        assert!(took < Duration::from_secs(300), "{limit}: {took:?}");
        // It arrives in pieces and is compiled elsewhere.
        let grown = host.growth_bytes(before) >> 20;
        assert!(grown < 64, "{limit}: the host grew by {grown} MiB");
        assert_eq!(host.admin().get("/v1/functions/bad").status(), 404);
        still_serves(&host);
    }
}

#[test]
fn nesting_that_would_overflow_a_stack_harms_nobody() {
    const DEPTH: usize = 20_000;
    let host = host_with_function();
    // By hand, because the text parser has a limit of its own: one function of
    // nested blocks, exported as _start.
    let mut body = vec![0];
    body.extend(b"\x02\x40".repeat(DEPTH));
    body.extend(b"\x0b".repeat(DEPTH + 1));
    let mut code = vec![1];
    code.extend(leb128(body.len()));
    code.extend(body);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend_from_slice(b"\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a");
    module.extend(leb128(code.len()));
    module.extend(code);
    let response = host.admin().put("bad", &module);
    // Deep, but valid: whether it is taken is the compiler's business.
    assert!([201, 422].contains(&response.status()), "{}", response.text());
    still_serves(&host);
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

#[test]
fn bad_names_are_told_what_a_name_is() {
    let host = host_with_function();
    let long = "x".repeat(64);
    for name in
        ["Upper", "under_score", "-dash", "dash-", "a.b", "%2e%2e", "a%20b", "%C3%A9", &long]
    {
        let answer = host.admin().put(name, &guests::answering("x"));
        let detail = answer.assert_problem(400, "invalid_name");
        assert_names(&detail, &["a-z, 0-9 and '-'"]);
    }
    let longest = "x".repeat(63);
    host.admin().deploy(&longest, &guests::answering("long"));
    host.get(&format!("/{longest}/")).assert_text("long");
    still_serves(&host);
}

#[test]
fn bad_specs_are_told_what_is_wrong() {
    let host = host_with_function();
    for (spec, expected) in [
        (json!({ "memroy": "1MiB" }), "did you mean \"memory\"?"),
        (json!({ "time_out": "1s" }), "did you mean \"timeout\"?"),
        (json!({ "zzz": 1 }), "known keys: routes"),
        (json!({ "memory": "1MB" }), "units: B, KiB, MiB, GiB"),
        (json!({ "memory": "9GiB" }), "at most 4GiB"),
        (json!({ "timeout": "0s" }), "more than 0"),
        (json!({ "timeout": -1 }), "timeout"),
        (json!({ "concurrency": 0 }), "between 1 and"),
        (json!({ "routes": ["no-slash"] }), "routes"),
        (json!({ "routes": ["/{a}", "/{b}"] }), "match the same requests"),
        (json!({ "env": { "1X": "" } }), "not a variable"),
        (json!([]), "object"),
    ] {
        let answer = host.admin().put_with_spec("bad", &guests::answering("x"), &spec);
        let detail = answer.assert_problem(400, "invalid_spec");
        assert_names(&detail, &[expected]);
        assert_eq!(host.admin().get("/v1/functions/bad").status(), 404, "{spec}");
        if spec.is_object() {
            let answer = host.admin().patch("good", &spec);
            assert_names(&answer.assert_problem(400, "invalid_spec"), &[expected]);
        }
    }
    assert_eq!(host.admin().json("/v1/functions/good")["active"], 1);
    still_serves(&host);
}

#[test]
fn broken_forms_are_refused() {
    let host = host_with_function();
    let admin = host.admin();
    let form = |body: &str| {
        let request = Request::new("PUT", "/v1/functions/bad");
        let request = request.header("content-type", "multipart/form-data; boundary=B");
        admin.call(&request.body(body))
    };
    let part =
        |name: &str| format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\nx\r\n");
    for (body, expected) in [
        ("no form at all".to_owned(), ""),
        (format!("{}--B--\r\n", part("other")), "other"),
        ("--B--\r\n".to_owned(), "component"),
        (part("component"), ""),
    ] {
        let detail = form(&body).assert_problem(400, "invalid_request");
        assert_names(&detail, &[expected]);
    }
    still_serves(&host);
}

#[test]
fn without_the_token_nothing_is_told_or_done() {
    let host = host_with_function();
    let wrong = format!("Bearer {}", "0".repeat(host.token().len()));
    let as_basic = format!("Basic {}", host.token());
    let cut = format!("Bearer {}", &host.token()[1..]);
    let tokens = [None, Some("Bearer"), Some(""), Some(&wrong), Some(&as_basic), Some(&cut)];
    for authorization in tokens {
        for (method, path) in [
            ("GET", "/v1/functions"),
            ("PUT", "/v1/functions/bad"),
            ("DELETE", "/v1/functions/good"),
            ("PATCH", "/v1/functions/good"),
            ("GET", "/v1/functions/good/logs"),
            ("GET", "/v1/invocations"),
            ("GET", "/metrics"),
        ] {
            let mut request = Request::new(method, path);
            if method == "PUT" {
                request = request.body(guests::answering("x"));
            }
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let answer = Connection::open(host.admin_address()).call(&request);
            let detail = answer.assert_problem(401, "unauthorized");
            assert_names(&detail, &["admin.token"]);
            assert!(answer.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")));
        }
    }
    // What load balancers and people look at needs none.
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        let answer = Connection::open(host.admin_address()).call(&Request::get(path));
        assert_eq!(answer.status(), 200, "{path}");
    }
    still_serves(&host);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let host = host_with_function();
    let mut connection = Connection::open(host.admin_address());
    let bearer = format!("Bearer {}", host.token());
    let request = Request::new("PUT", "/v1/functions/bad").header("authorization", &bearer);
    connection.send_head(&request.header("content-length", "100000")).expect("send");
    connection.write(&guests::answering("x")).expect("send");
    let temporary = host.folder().join("tmp");
    let files = || fs::read_dir(&temporary).expect("tmp").count();
    tests::eventually("the upload is being written", || (files() == 1).then_some(()));
    drop(connection);
    tests::eventually("the rest is removed", || (files() == 0).then_some(()));
    assert_eq!(host.admin().get("/v1/functions/bad").status(), 404);
    still_serves(&host);
}

/// All artifacts in a data folder.
pub(crate) fn artifacts(data: &Path) -> Vec<std::path::PathBuf> {
    let folders = fs::read_dir(data.join("artifacts")).expect("the artifacts");
    let files =
        folders.flat_map(|folder| fs::read_dir(folder.expect("a folder").path()).expect("files"));
    files.map(|file| file.expect("a file").path()).collect()
}

#[test]
fn proposals_that_no_toolchain_needs_are_refused() {
    let host = host_with_function();
    for (proposal, fields) in [
        ("memory64", "(memory i64 1)"),
        ("threads", "(memory 1 1 shared)"),
        ("garbage collection", "(type (struct (field i32)))"),
        ("exceptions", "(tag)"),
        (
            "function references",
            "(type $f (func)) (func (param (ref null $f)) (call_ref $f (local.get 0)))",
        ),
        ("custom page sizes", "(memory 1 (pagesize 1))"),
        (
            "wide arithmetic",
            "(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
        ),
        ("stack switching", "(type $f (func)) (type $c (cont $f))"),
    ] {
        let module = guests::wat_text(&format!("(module {fields} (func (export \"_start\")))"));
        let answer = host.admin().put("bad", &module);
        assert_eq!(answer.status(), 422, "{proposal}: {}", answer.text());
    }
    still_serves(&host);
}

#[test]
fn what_no_guest_may_have_is_refused_at_the_upload() {
    let host = host_with_function();
    let memories = "(memory 1)".repeat(5);
    for (fields, expected) in [
        (memories.as_str(), "5 exceeds the per-instance limit of 4"),
        ("(table 100001 funcref)", "100000"),
        (
            "(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)",
            "limit of 4",
        ),
    ] {
        let module = guests::wat_text(&format!("(module {fields} (func (export \"_start\")))"));
        let detail = refused(&host, &module, 422, "invalid_component");
        assert_names(&detail, &[expected]);
    }
}
