//! Each kind of guest, made with tools and libraries that are not ours, answers.

use serde_json::json;
use tests::{Request, guests};

use crate::host;

#[test]
fn every_kind_of_guest_answers() {
    let host = host().start();
    for (name, kind, component) in guests::all() {
        let published = host.admin().deploy(name, component);
        assert_eq!(published["revision"]["kind"], kind, "{name}");
        host.get(&format!("/{name}/")).assert_text(&format!("{name}\n"));
        // Without the slash too: it is the function's root all the same.
        host.get(&format!("/{name}")).assert_text(&format!("{name}\n"));
    }
}

#[test]
fn every_kind_of_guest_sees_the_request_as_it_came() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        let spec = json!({ "env": { "GREETING": "hello there" } });
        host.admin().deploy_with_spec(name, component, &spec);
        let at = |path: &str| format!("/{name}{path}");
        host.get(&at("/url?a=1&b=%20x")).assert_text("/url?a=1&b=%20x\n");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
            let answer = host.call(&Request::new(method, &at("/method")));
            assert_eq!(answer.text(), format!("{method}\n"), "{name}");
        }
        let request = Request::get(&at("/headers"));
        let request = request.header("x-one", "1").header("x-two", "a, b");
        let headers = host.call(&request).text();
        for line in ["x-one: 1", "x-two: a, b", &format!("x-forwarded-prefix: /{name}")] {
            assert!(headers.lines().any(|found| found == line), "{name}: no {line} in {headers}");
        }
        let environment = host.get(&at("/env")).text();
        assert!(
            environment.lines().any(|line| line == "GREETING=hello there"),
            "{name}: {environment}"
        );
        // Nothing of the host's own environment.
        for foreign in ["PATH=", "HOME=", "WHIT_"] {
            assert!(
                !environment.lines().any(|line| line.starts_with(foreign)),
                "{name}: {environment}"
            );
        }
    }
}

#[test]
fn every_kind_of_guest_chooses_its_status() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        for status in [200, 201, 204, 301, 304, 400, 404, 418, 500, 503] {
            let answer = host.get(&format!("/{name}/status?code={status}"));
            assert_eq!((answer.status(), answer.text().as_str()), (status, ""), "{name}");
        }
        assert_eq!(host.get(&format!("/{name}/nowhere")).status(), 404);
        // An answer of the guest's is an answer, whatever it says.
        let answer = host.get(&format!("/{name}/status?code=500"));
        assert_eq!(host.admin().receipt(&answer.request_id())["outcome"], "ok");
    }
}

#[test]
fn every_kind_of_guest_answers_head_without_a_body() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        host.admin().deploy(name, component);
        let mut connection = host.connect();
        let answer = connection.call(&Request::new("HEAD", &format!("/{name}/big?bytes=1000")));
        assert_eq!((answer.status(), answer.body.len()), (200, 0), "{name}");
        // Nothing of a body is in the way of the next answer.
        let next = connection.call(&Request::get(&format!("/{name}/")));
        next.assert_text(&format!("{name}\n"));
    }
}

#[test]
fn a_core_module_with_the_type_of_a_component_answers() {
    let host = host().start();
    let published = host.admin().deploy("typed", &guests::typed_module("typed"));
    assert_eq!(published["revision"]["kind"], "http-0.2");
    for _ in 0..3 {
        let answer = host.get("/typed/");
        assert_eq!((answer.status(), answer.text().as_str()), (200, ""));
    }
}

#[test]
fn trailers_arrive() {
    let host = host().start();
    for (name, component) in [("a", guests::http_02()), ("b", guests::http_03())] {
        host.admin().deploy(name, component);
        let request = Request::get(&format!("/{name}/trailers")).header("te", "trailers");
        let answer = host.call(&request);
        answer.assert_text("body\n");
        let expected = ("x-checksum".to_owned(), "7".to_owned());
        assert_eq!(answer.trailers, [expected], "{name}");
    }
}

#[test]
fn cgi_guests_get_the_variables_of_the_standard() {
    let host = host().start();
    host.admin().deploy("cgi", guests::cgi());
    let request = Request::post("/cgi/env/a%20b?q=1", "12345");
    let request = request
        .header("host", "example.com:8080")
        .header("content-type", "text/x")
        .header("proxy", "http://evil");
    // `/env` only: the guest looks at the whole path.
    let request = Request { path: "/cgi/env?q=1".to_owned(), ..request };
    let environment = host.call(&request).text();
    for line in [
        "GATEWAY_INTERFACE=CGI/1.1",
        "SERVER_PROTOCOL=HTTP/1.1",
        "SERVER_NAME=example.com",
        "SERVER_PORT=8080",
        "REQUEST_METHOD=POST",
        "SCRIPT_NAME=/cgi",
        "PATH_INFO=/env",
        "QUERY_STRING=q=1",
        "REMOTE_ADDR=127.0.0.1",
        "CONTENT_TYPE=text/x",
        "CONTENT_LENGTH=5",
    ] {
        assert!(environment.lines().any(|found| found == line), "no {line} in {environment}");
    }
    assert!(!environment.contains("HTTP_PROXY"), "{environment}");
}

#[test]
fn a_guest_that_fails_after_its_answer_does_not_hurt_it() {
    let host = host().start();
    host.admin().deploy("exits", guests::cgi());
    // A script that has printed all it wanted may end with any status.
    let answer = host.get("/exits/exit?code=0");
    answer.assert_problem(502, "no_response");
    let answer = host.get("/exits/exit?code=3");
    answer.assert_problem(502, "trapped");
    host.get("/exits/").assert_text("cgi-rust\n");
}

#[test]
fn a_command_that_is_a_component_speaks_cgi() {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as NAME,
        WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND,
    };
    // What a toolchain for wasip2 makes of the same program: it exports
    // `wasi:cli/run`.
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(guests::cgi())
        .and_then(|encoder| encoder.adapter(NAME, COMMAND))
        .and_then(|mut encoder| encoder.encode())
        .expect("a component");
    let host = host().start();
    let published = host.admin().deploy("command", &component);
    assert_eq!(published["revision"]["kind"], "cgi-0.2");
    for _ in 0..100 {
        host.get("/command/counter").assert_text("1\n");
    }
    let answer = host.call(&Request::post("/command/echo", b"hello".to_vec()));
    answer.assert_text("hello");
    host.get("/command/trap").assert_problem(502, "trapped");
    assert_eq!(host.get("/command/status?code=418").status(), 418);
}
