//! Which function a request leads to.

use serde_json::json;
use tests::{Host, Request, guests};

use crate::host;

/// Deploys a function that answers with its name, under these routes.
fn deploy(host: &Host, name: &str, routes: &[&str]) {
    let spec = json!({ "routes": routes });
    host.admin().deploy_with_spec(name, &guests::answering(name), &spec);
}

/// What answers `METHOD [authority]/path`; `404` where nothing does.
fn who(host: &Host, request: &str) -> String {
    let (method, url) = request.split_once(' ').expect("a method and a URL");
    let (authority, path) = url.split_at(url.find('/').expect("a path"));
    let mut request = Request::new(method, path);
    if !authority.is_empty() {
        request = request.header("host", authority);
    }
    let answer = host.call(&request);
    if answer.status() == 404 {
        return answer.code();
    }
    answer.text()
}

#[test]
fn the_most_specific_route_wins() {
    let host = host().start();
    deploy(&host, "people", &["/users/{id}"]);
    deploy(&host, "people-get", &["GET /users/{id}"]);
    deploy(&host, "me", &["/users/me"]);
    deploy(&host, "files", &["/files/{*path}"]);
    deploy(&host, "api", &["api.example.com/*"]);
    deploy(&host, "api-users", &["api.example.com/users/{id}", "POST /only-post"]);
    for (request, expected) in [
        ("GET /users/7", "people-get"),
        ("POST /users/7", "people"),
        ("GET /users/me", "me"),
        ("DELETE /users/me", "me"),
        ("GET /users/7/more", "no_route"),
        ("GET /files/a/b/c", "files"),
        ("GET /files", "files"),
        ("GET api.example.com/anything", "api"),
        ("GET API.Example.com:1234/anything", "api"),
        ("GET api.example.com/users/7", "api-users"),
        ("GET other.example.com/users/7", "people-get"),
        ("POST /only-post", "api-users"),
        ("GET /only-post", "no_route"),
        ("GET /me/deep/path", "me"),
        ("GET /unknown", "no_route"),
        ("GET /", "no_route"),
    ] {
        assert_eq!(who(&host, request), expected, "{request}");
    }
    // A function's name is a route like any other: the more specific one wins.
    deploy(&host, "special", &["/me/special"]);
    assert_eq!(who(&host, "GET /me/special"), "special");
    assert_eq!(who(&host, "GET /me/specials"), "me");
}

#[test]
fn a_functions_own_url_is_its_root_and_a_declared_route_is_not() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        let spec = json!({ "routes": [format!("/shop-{name}/{{*rest}}"), "GET /url"] });
        let put = host.admin().put_with_spec(name, component, &spec);
        assert_eq!(put.status(), 201, "{}", put.text());
        host.get(&format!("/{name}/url?q=1")).assert_text("/url?q=1\n");
        host.get("/url?q=1").assert_text("/url?q=1\n");
        let declared = host.get(&format!("/shop-{name}/cart?x=%2F"));
        assert_eq!(declared.status(), 404, "the guest has no such path: {}", declared.text());
        let headers = host.get("/headers");
        assert_eq!(headers.status(), 404, "{}", headers.text());
        // The next one may have them.
        assert_eq!(host.admin().delete(&format!("/v1/functions/{name}")).status(), 204);
    }
}

#[test]
fn a_revisions_own_url_calls_that_revision() {
    let host = host().start();
    for version in ["one", "two", "three"] {
        host.admin().deploy("app", &guests::answering(version));
    }
    host.get("/app/").assert_text("three");
    for (number, version) in [(1, "one"), (2, "two"), (3, "three")] {
        host.get(&format!("/app:{number}/")).assert_text(version);
        host.get(&format!("/app:{number}/deep/er?x")).assert_text(version);
    }
    for path in ["/app:4/", "/app:0/", "/app:01/", "/app:x/", "/app:/"] {
        host.get(path).assert_problem(404, "no_route");
    }
    // The prefix that the guest is told has the number.
    host.admin().deploy("echo", guests::http_02());
    let headers = host.get("/echo:1/headers").text();
    assert!(headers.contains("x-forwarded-prefix: /echo:1\n"), "{headers}");
}

#[test]
fn two_functions_can_not_have_the_same_route() {
    let host = host().start();
    deploy(&host, "first", &["/shared/{id}", "GET x.example.com/a"]);
    for routes in [
        json!(["/shared/{id}"]),
        json!(["/shared/{other_name}"]),
        json!(["/free", "GET x.example.com/a"]),
        json!(["GET X.EXAMPLE.COM/a"]),
    ] {
        let spec = json!({ "routes": routes });
        let answer = host.admin().put_with_spec("second", &guests::answering("second"), &spec);
        let detail = answer.assert_problem(409, "route_taken");
        assert!(detail.contains("first"), "it says whose it is: {detail}");
        assert_eq!(host.admin().get("/v1/functions/second").status(), 404);
    }
    assert_eq!(who(&host, "GET /shared/1"), "first");
    // Near it is free.
    deploy(&host, "second", &["/shared/{id}/more", "GET /shared/{id}"]);
    assert_eq!(who(&host, "GET /shared/1"), "second");
    assert_eq!(who(&host, "POST /shared/1"), "first");
    // A patch is held to it as well, and whoever gives a route up frees it.
    let answer = host.admin().patch("second", &json!({ "routes": ["/shared/{id}"] }));
    answer.assert_problem(409, "route_taken");
    host.admin().change("first", &json!({ "routes": [] }));
    host.admin().change("second", &json!({ "routes": ["/shared/{id}"] }));
    assert_eq!(who(&host, "POST /shared/1"), "second");
    // Going back to a revision whose route is taken by now is refused too.
    let answer = host.admin().post("/v1/functions/first/rollback", "{\"revision\":1}");
    answer.assert_problem(409, "route_taken");
    assert_eq!(host.admin().delete("/v1/functions/second").status(), 204);
    assert_eq!(host.admin().post("/v1/functions/first/rollback", "{\"revision\":1}").status(), 200);
    assert_eq!(who(&host, "POST /shared/1"), "first");
}

#[test]
fn a_request_that_leads_nowhere_is_told_so_and_recorded() {
    let host = host().start();
    let answer = host.get("/nowhere");
    answer.assert_problem(404, "no_route");
    assert_eq!(answer.json()["request_id"], answer.request_id());
    let receipt = host.admin().receipt(&answer.request_id());
    assert_eq!((&receipt["outcome"], &receipt["function"]), (&json!("no_route"), &json!(null)));
    let counted = "whit_requests_total{function=\"\",outcome=\"no_route\"}";
    host.admin().metric_becomes(counted, 1.0);
}

#[test]
fn what_a_route_names_is_in_the_query() {
    let host = host().start();
    for (name, _, component) in guests::all() {
        let spec = json!({ "routes": ["/{what}"] });
        let put = host.admin().put_with_spec(name, component, &spec);
        assert_eq!(put.status(), 201, "{}", put.text());
        host.get("/url").assert_text("/url?what=url\n");
        host.get("/url?page=1&what=other").assert_text("/url?what=url&page=1\n");
        // At its own URL nothing has a name.
        host.get(&format!("/{name}/url?what=other")).assert_text("/url?what=other\n");
        assert_eq!(host.admin().delete(&format!("/v1/functions/{name}")).status(), 204);
    }
}
