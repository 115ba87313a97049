//! What an upload becomes, and what can be read back.

use serde_json::json;
use tests::admin::put_request;
use tests::{Connection, Request, guests};

use crate::host;

#[test]
fn an_upload_can_be_described_and_downloaded() {
    let host = host().start();
    for (name, kind, component) in guests::all() {
        let published = host.admin().deploy(name, component);
        assert_eq!(published["created"], true);
        let function = host.admin().json(&format!("/v1/functions/{name}"));
        assert_eq!((&function["name"], &function["active"]), (&json!(name), &json!(1)));
        let revision = &function["revision"];
        assert_eq!(revision["kind"], kind);
        assert_eq!(revision["component_bytes"], component.len());
        assert_eq!(revision["limits"]["timeout_ms"], 30_000);
        let url = function["url"].as_str().expect("a URL");
        let path = url.strip_prefix(&format!("http://{}", host.address())).expect("this host's");
        host.get(path).assert_text(&format!("{name}\n"));
        // Byte for byte, the same digest, and not sent again to who has it.
        let path = format!("/v1/functions/{name}/revisions/1/component");
        let download = host.admin().get(&path);
        assert!(download.body == component, "{name}: another component");
        assert_eq!(download.header("content-type"), Some("application/wasm"));
        let etag = download.header("etag").expect("an ETag").to_owned();
        assert_eq!(etag, format!("\"{}\"", revision["digest"].as_str().expect("a digest")));
        let again = host.admin().call(&Request::get(&path).header("if-none-match", &etag));
        assert_eq!((again.status(), again.body.len()), (304, 0));
    }
    let list = host.admin().json("/v1/functions");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
}

#[test]
fn lists_are_handed_out_in_pages() {
    let host = host().start();
    for number in 0..7 {
        host.admin().deploy(&format!("f{number}"), &guests::answering("same"));
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.admin().json(&format!("/v1/functions?limit=3{cursor}"));
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 3);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..7).map(|number| format!("f{number}")).collect();
    assert_eq!(names, expected);
    for query in ["limit=0", "limit=1001", "limit=x", "unknown=1"] {
        let answer = host.admin().get(&format!("/v1/functions?{query}"));
        answer.assert_problem(400, "invalid_request");
    }
}

#[test]
fn an_upload_without_a_length_is_taken() {
    let host = host().start();
    let component = guests::answering("in chunks");
    let mut connection = Connection::open(host.admin_address());
    let bearer = format!("Bearer {}", host.token());
    let request = Request::new("PUT", "/v1/functions/chunks").header("authorization", &bearer);
    connection.send_chunked(&request).expect("send");
    for chunk in component.chunks(50).chain([&b""[..]]) {
        connection.chunk(chunk).expect("send");
    }
    assert_eq!(connection.response().expect("an answer").status(), 201);
    host.get("/chunks/").assert_text("in chunks");
}

#[test]
fn many_uploads_at_once_all_arrive() {
    let host = host().start();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for number in 0..5 {
                    let text = format!("client {client}, number {number}");
                    let name = format!("f-{client}-{number}");
                    host.admin().deploy(&name, &guests::answering(&text));
                    host.get(&format!("/{name}/")).assert_text(&text);
                    // All of them at one function too: each is a revision.
                    host.admin().deploy("shared", &guests::answering(&text));
                }
            });
        }
    });
    let shared = host.admin().json("/v1/functions/shared");
    assert_eq!((&shared["revisions"], &shared["active"]), (&json!(20), &json!(20)));
    assert_eq!(host.admin().json("/v1/functions")["items"].as_array().map(Vec::len), Some(21));
}

#[test]
fn the_api_says_what_it_does_not_have() {
    let host = host().start();
    host.admin().deploy("good", &guests::answering("x"));
    for (method, path, status, code) in [
        ("GET", "/v1/functions/absent", 404, "not_found"),
        ("DELETE", "/v1/functions/absent", 404, "not_found"),
        ("PATCH", "/v1/functions/absent", 404, "not_found"),
        ("GET", "/v1/functions/absent/logs", 404, "not_found"),
        ("GET", "/v1/functions/good/revisions/2", 404, "not_found"),
        ("GET", "/v1/functions/good/revisions/2/component", 404, "not_found"),
        ("GET", "/v1/functions/good/revisions/x", 400, "invalid_id"),
        ("GET", "/v1/invocations/xyz", 400, "invalid_id"),
        ("GET", "/v1/invocations/00000000000000000000000000000000", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/v1/functions/good", 405, "method_not_allowed"),
    ] {
        let mut request = Request::new(method, path);
        if method == "PATCH" {
            request = request.body("{}");
        }
        host.admin().call(&request).assert_problem(status, code);
    }
    let document = host.admin().json("/openapi.json");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert!(document["paths"]["/v1/functions/{name}"]["put"].is_object());
}

#[test]
fn secrets_of_the_data_folder_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let host = host().start();
    host.admin().deploy("good", &guests::answering("x"));
    for entry in std::fs::read_dir(host.folder()).expect("the data folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        let name = entry.file_name();
        let secret = ["key", "token", "db"].iter().any(|end| name.to_string_lossy().contains(end));
        if secret {
            assert_eq!(mode & 0o077, 0, "{name:?} has mode {mode:o}");
        }
    }
    let mode = std::fs::metadata(host.folder()).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o077, 0, "the data folder has mode {mode:o}");
    let token = std::fs::metadata(host.folder().join("admin.token")).expect("the token");
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_spec_comes_with_the_upload_and_stays() {
    let host = host().start();
    let spec = json!({ "timeout": "7s", "env": { "A": "1" }, "routes": ["/there"] });
    host.admin().deploy_with_spec("app", guests::http_02(), &spec);
    // An upload without one keeps what there was.
    let answer = host.admin().call(&put_request("app", guests::wstd_axum()));
    assert_eq!(answer.status(), 201);
    let function = host.admin().json("/v1/functions/app");
    assert_eq!(function["revision"]["spec"], spec);
    assert_eq!(function["revision"]["limits"]["timeout_ms"], 7000);
    assert!(host.get("/app/env").text().contains("A=1\n"));
}
