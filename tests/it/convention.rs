//! A project without a manifest: `api/` and `public/`.

use std::fs;
use std::path::Path;

use tests::command::{self, Ran};
use tests::dev::{self, Dev};
use tests::{Host, Request, guests};
use whit::dev::languages::Language;

use crate::{WHIT, host};

/// A project folder and a host to deploy it to.
struct Project {
    host: Host,
    folder: tempfile::TempDir,
}

impl Project {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let project = Self { host: host().start(), folder: tempfile::tempdir().expect("a folder") };
        for (name, content) in files {
            project.write(name, content);
        }
        project
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
        fs::write(path, content).expect("write");
    }

    fn deploy(&self) -> Ran {
        let mut command = command::command(WHIT, self.host.folder());
        command::run(command.arg("deploy").current_dir(self.folder.path()))
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include "shared.h"
int main(void) { printf("Content-Type: text/plain\n\n%s %s", WORD, getenv("QUERY_STRING")); }
"#;

const GO: &str = r#"package handler

import (
	"fmt"
	"net/http"
)

func Handler(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "user %s of %s", r.URL.Query().Get("id"), r.URL.Path)
}
"#;

const RUST: &str = r#"
fn main() {
    let query = std::env::var("QUERY_STRING").unwrap_or_default();
    println!("Content-Type: text/plain\n\nrust {query}");
}
"#;

#[test]
fn files_are_functions_at_their_paths() {
    let answering = guests::answering("ready made");
    let text = fs::read(guests::folder("guests-wat/exits-after.wat")).expect("a guest");
    let project = Project::new(&[
        ("api/hello.c", C.as_bytes()),
        ("api/shared.h", b"#define WORD \"hello\"\n"),
        ("api/_private.c", b"not a function"),
        ("api/users/[id].go", GO.as_bytes()),
        ("api/users/me.wat", &text),
        ("api/docs/[...path].rs", RUST.as_bytes()),
        ("api/index.wasm", &answering),
        ("api/twice.wasm", &answering),
        ("api/twice.wat", &text),
        ("api/script.rb", b"puts 1"),
        ("api/wrong.c", b"int main( {"),
        ("api/README.md", b"# about"),
        ("package.json", b"{}"),
    ]);
    let ran = {
        let _turn = guests::take_turns();
        for language in [Language::C, Language::Go, Language::Rust] {
            guests::get_ready(language);
        }
        project.deploy()
    };
    // What is wrong is named, with its file; the rest is served.
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_has(
        &ran.stderr,
        &[
            "both api/twice.wasm and api/twice.wat claim /api/twice",
            "api/script.rb: the ending .rb is of no language here",
            "wrong.c:1:",
            "failed api-wrong",
        ],
    );
    assert!(!ran.stderr.contains("_private"), "{}", ran.stderr);
    for (path, expected) in [
        ("/api/hello?a=b", "hello a=b"),
        ("/api", "ready made"),
        ("/api/users/42", "user 42 of /api/users/42"),
        ("/api/users/42?id=7", "user 42 of /api/users/42"),
        ("/api/users/me", "done"),
        ("/api/docs", "rust path=\n"),
        ("/api/docs/a/b%20c?x", "rust path=a/b%20c&x\n"),
    ] {
        assert_eq!(project.host.get(path).text(), expected, "{path}");
    }
    for path in ["/api/twice", "/api/script", "/api/wrong", "/api/_private", "/api/README"] {
        project.host.get(path).assert_problem(404, "no_route");
    }
}

#[test]
fn public_files_are_served_as_files() {
    let project = Project::new(&[
        ("public/index.html", b"<p>home"),
        ("public/docs/index.html", b"<p>docs"),
        ("public/numbers.txt", b"0123456789"),
        ("public/with space.svg", b"<svg/>"),
        ("public/empty.json", b""),
        ("public/404.html", b"<p>lost"),
        ("public/.hidden", b"secret"),
        ("public/large.bin", &vec![7; 3 << 20]),
        ("api/hello.wasm", &guests::answering("a function")),
    ]);
    project.deploy().succeeded();
    let get = |path: &str| project.host.get(path);
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "<p>home"),
        ("/index.html", "text/html; charset=utf-8", "<p>home"),
        ("/docs/", "text/html; charset=utf-8", "<p>docs"),
        ("/numbers.txt?v=1", "text/plain; charset=utf-8", "0123456789"),
        ("/with%20space.svg", "image/svg+xml", "<svg/>"),
        ("/empty.json", "application/json", ""),
    ] {
        let answer = get(path);
        assert_eq!((answer.status(), answer.text().as_str()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    }
    assert_eq!(get("/large.bin").body, vec![7; 3 << 20]);
    get("/api/hello").assert_text("a function");
    let moved = get("/docs?a=b");
    assert_eq!((moved.status(), moved.header("location")), (308, Some("/docs/?a=b")));
    for path in ["/none", "/.hidden", "/docs/none/", "/../numbers.txt"] {
        let lost = get(path);
        assert_eq!((lost.status(), lost.text().as_str()), (404, "<p>lost"), "{path}");
    }
    let posted = project.host.call(&Request::post("/numbers.txt", "x"));
    assert_eq!((posted.status(), posted.header("allow")), (405, Some("GET, HEAD")));
    let head = project.host.call(&Request::new("HEAD", "/numbers.txt"));
    assert_eq!((head.status(), head.header("content-length")), (200, Some("10")));
    assert!(head.body.is_empty());
}

#[test]
fn public_files_know_conditions_and_ranges() {
    let project = Project::new(&[("public/numbers.txt", b"0123456789")]);
    project.deploy().succeeded();
    let host = &project.host;
    let get = |headers: &[(&str, &str)]| {
        let mut request = Request::get("/numbers.txt");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        host.call(&request)
    };
    let etag = get(&[]).header("etag").expect("an etag").to_owned();
    let weak = format!("W/{etag}");
    let list = format!("\"a\", {etag}");
    for known in [etag.as_str(), weak.as_str(), list.as_str(), "*"] {
        let answer = get(&[("if-none-match", known)]);
        assert_eq!((answer.status(), answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    assert_eq!(get(&[("if-none-match", "\"other\"")]).status(), 200);
    for (range, status, content, body) in [
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=7-99999999999999999999", 206, "bytes 7-9/10", "789"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=10-", 416, "bytes */10", ""),
        ("bytes=-0", 416, "bytes */10", ""),
        ("bytes=4-2", 200, "", "0123456789"),
        ("bytes=0-1,3-4", 200, "", "0123456789"),
        ("lines=0-1", 200, "", "0123456789"),
        ("bytes=", 200, "", "0123456789"),
        ("bytes=a-b", 200, "", "0123456789"),
    ] {
        let answer = get(&[("range", range)]);
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{range}");
        assert_eq!(answer.header("content-range").unwrap_or_default(), content, "{range}");
    }
    let matching = get(&[("range", "bytes=0-1"), ("if-range", &etag)]);
    assert_eq!(matching.text(), "01");
    let older = get(&[("range", "bytes=0-1"), ("if-range", "\"older\"")]);
    assert_eq!((older.status(), older.text().as_str()), (200, "0123456789"));
    // A new content has a new etag.
    project.write("public/numbers.txt", "9876543210");
    project.deploy().succeeded();
    let answer = get(&[("if-none-match", &etag)]);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "9876543210"));
}

/// The guest in the repository is what its source says.
#[test]
fn the_guest_for_files_is_built_from_its_source() {
    {
        let _turn = guests::take_turns();
        guests::get_ready(Language::Zig);
    }
    let folder = guests::repository().join("guest-sdk/static");
    let output = tempfile::tempdir().expect("a folder");
    let built = output.path().join("static.wasm");
    let mut build = std::process::Command::new(folder.join("build"));
    build.arg(&built).env("WHIT_TOOLCHAINS", guests::toolchains().root);
    let ran = command::run(&mut build);
    assert_eq!(ran.code, 0, "{ran:?}");
    let read = |path: &Path| fs::read(path).expect("a module");
    assert!(read(&built) == read(&folder.join("static.wasm")), "run guest-sdk/static/build");
}

const ASGI: &str = r#"
import gc
import sys
from collections import Counter
from datetime import datetime
from urllib.parse import parse_qs

seen = []

def look_at_all():
    gc.unfreeze()
    for one in gc.get_objects():
        dir(one), repr(gc.get_referents(one))[:0]
        getattr(one, "a name that nothing has", None)
    gc.collect()

async def app(scope, receive, send):
    import asyncio
    await asyncio.sleep(0.001)
    seen.append(bytearray(1 << 20))
    known = [Counter("abb").most_common(1), datetime.strptime("2026-11-28", "%Y-%m-%d").year, "é".encode("cp437"), sys.getrefcount(parse_qs) >= 1 << 30]
    name = parse_qs(scope["query_string"].decode())["id"][0]
    if name == "all":
        look_at_all()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"asgi {name} {scope['path']} {len(seen)} {known}".encode()})
"#;

#[test]
fn a_python_file_may_hold_an_asgi_application_and_a_name_in_brackets() {
    let project = Project::new(&[("api/users/[id].py", ASGI.as_bytes())]);
    {
        let _turn = guests::take_turns();
        guests::get_ready(Language::Python);
        project.deploy().succeeded();
    }
    // What one request has changed is gone for the next, in each memory that is used again.
    for _ in 0..50 {
        let answer = project.host.get("/api/users/ada");
        answer.assert_text("asgi ada /api/users/ada 1 [[('b', 2)], 2026, b'\\x82', True]");
    }
    // Whatever the interpreter does with what was there when it was frozen.
    let answer = project.host.get("/api/users/all").text();
    assert!(answer.starts_with("asgi all /api/users/all 1"), "{answer}");
}

const FUNCTION: &str = r#"
import { shout } from "./_shared.js";
export default function (request) {
  return new Response(shout(new URL(request.url).searchParams.get("who")));
}
"#;

const BY_METHOD: &str = r#"
export function GET(request: Request): Response {
  console.log("asked for", { url: request.url });
  return Response.json({ id: new URL(request.url).searchParams.get("id") });
}
export async function POST(request: Request): Promise<Response> {
  const body: { n: number } = await request.json();
  return Response.json({ doubled: body.n * 2, uuid: crypto.randomUUID().length });
}
"#;

const UNABLE: &str = r#"
export default async () => {
  try {
    await crypto.subtle.digest("SHA-256", new Uint8Array(0));
  } catch (error) {
    return new Response(error.message);
  }
};
"#;

#[test]
fn javascript_files_may_hold_a_function_or_one_for_each_method() {
    let project = Project::new(&[
        ("api/shout.js", FUNCTION.as_bytes()),
        ("api/_shared.js", b"export const shout = (text) => `${text}!`;"),
        ("api/items/[id].ts", BY_METHOD.as_bytes()),
        ("api/unable.mjs", UNABLE.as_bytes()),
    ]);
    {
        let _turn = guests::take_turns();
        guests::get_ready(Language::JavaScript);
        project.deploy().succeeded();
    }
    let host = &project.host;
    host.get("/api/shout?who=me").assert_text("me!");
    host.get("/api/items/7").assert_text("{\"id\":\"7\"}");
    let posted = host.call(&Request::post("/api/items/7", "{\"n\": 21}"));
    assert_eq!(posted.text(), "{\"doubled\":42,\"uuid\":36}");
    let other = host.call(&Request::new("DELETE", "/api/items/7"));
    assert_eq!((other.status(), other.header("allow")), (405, Some("GET, POST")));
    let failed = host.call(&Request::post("/api/items/7", "no JSON"));
    assert_eq!((failed.status(), failed.text().as_str()), (500, "the function failed\n"));
    assert_has(&host.get("/api/unable").text(), &["engine = \"starlingmonkey\" in whit.toml"]);
    // An unchanged program is an unchanged function: no new revision.
    let said = project.deploy().succeeded();
    assert_eq!(said.matches("unchanged").count(), 3, "{said}");
}

#[test]
fn dev_follows_files_that_come_change_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| dev::save(&folder.path().join(name), content);
    write("api/one.wasm", &guests::answering("one"));
    write("api/two.wasm", &guests::answering("two"));
    write("public/page.txt", b"a page");
    let dev = Dev::start(WHIT, folder.path());
    dev.answers("/api/one", 200, "one");
    dev.answers("/api/two", 200, "two");
    dev.answers("/page.txt", 200, "a page");

    write("public/page.txt", b"another page");
    dev.answers("/page.txt", 200, "another page");
    write("api/new/[id].wasm", &guests::answering("new"));
    dev.answers("/api/new/7", 200, "new");
    fs::remove_file(folder.path().join("api/two.wasm")).expect("remove");
    // What no function answers is the files' business.
    dev.answers("/api/two", 404, "no such file");

    // A second claim leaves what was there, until it is settled.
    write("api/one.wat", b"(module)");
    write("api/three.wasm", &guests::answering("three"));
    dev.answers("/api/three", 200, "three");
    dev.answers("/api/one", 200, "one");
    fs::remove_file(folder.path().join("api/one.wat")).expect("remove");
    write("api/one.wasm", &guests::answering("uno"));
    dev.answers("/api/one", 200, "uno");
    dev.end();

    // What went away while nobody watched is gone, too.
    fs::remove_file(folder.path().join("api/three.wasm")).expect("remove");
    fs::remove_file(folder.path().join(".whit/data/host.json")).ok();
    let dev = Dev::start(WHIT, folder.path());
    dev.answers("/api/one", 200, "uno");
    dev.answers("/api/three", 404, "no such file");
    dev.end();
}
