// The web platform for QuickJS, compared with that of Node.js.

import assert from "node:assert/strict";
import { test } from "node:test";

import { AbortController } from "../web/events.js";
import { fetchBy } from "../web/fetch.js";
import { format } from "../web/format.js";
import * as http from "../web/http.js";
import { ReadableStream } from "../web/streams.js";
import * as text from "../web/text.js";
import * as url from "../web/url.js";

test("text is encoded and decoded as Node.js does it", () => {
  for (const sample of ["", "plain", "é ü ñ", "日本語", "👩‍👩‍👧 🎉", "\ud800 alone", "\ufeffmark"]) {
    assert.deepEqual(new text.TextEncoder().encode(sample), new TextEncoder().encode(sample), sample);
  }
  const samples = [
    [0x41, 0xc3, 0xa9], [0xff, 0x41], [0xc3], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0x8e, 0x89],
    [0xc0, 0x80], [0xf5, 0x80], [0xef, 0xbb, 0xbf, 0x41], [0xe2, 0x28, 0xa1], [0xf0, 0x80, 0x80, 0x80],
  ];
  for (const bytes of samples) {
    const given = new Uint8Array(bytes);
    assert.equal(new text.TextDecoder().decode(given), new TextDecoder().decode(given), String(bytes));
  }
  assert.throws(() => new text.TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xff])), TypeError);
  assert.throws(() => new text.TextDecoder("latin1"), RangeError);
});

test("text that is cut anywhere is put together again", () => {
  const bytes = new TextEncoder().encode("a é 日 🎉 z");
  for (let cut = 0; cut <= bytes.length; cut++) {
    const decoder = new text.TextDecoder();
    const whole = decoder.decode(bytes.slice(0, cut), { stream: true }) + decoder.decode(bytes.slice(cut));
    assert.equal(whole, "a é 日 🎉 z");
  }
});

test("URLs are those of Node.js", () => {
  const parts = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
  const cases = [
    ["http://example.com"], ["https://User:pa ss@EXAMPLE.com:443/a/../b/./c?x=1 2#f g"], ["http://a:8080/%41/é?é=ü"],
    ["/x?y", "http://h/a/b/c?q"], ["../d", "http://h/a/b/c"], ["?n", "http://h/a?q#f"], ["#n", "http://h/a?q#f"],
    ["//other/p", "https://h/"], ["", "http://h/a?q"], ["d/e", "http://h:81/a/b"], ["http://[::1]:80/"],
    ["mailto:a@b.c"], ["http:\\\\h\\p"], ["http://h/a%2e%2E/b"], ["http://h?"], ["http://h#"], ["http://h/;a=b,c"],
    ["http://h:80/a"], ["http://h:0081/a"], ["https://h:443/"], ["http://h/a/."], ["http://h/..b/.c/d"], ["http://h/a/%2E/b?x=.."],
    ["http://h/a.b/c?q='1'"], ["http://h/?a=b&c=d?e/f"], ["http://H/"], ["http://h/a|b"],
  ];
  for (const given of cases) {
    const [ours, theirs] = [new url.URL(...given), new URL(...given)];
    for (const part of parts) assert.equal(ours[part], theirs[part], `${part} of ${given}`);
  }
  for (const bad of ["", "nothing", "http://", "http://a b/", "http://h:99999/", "http://h:x/", "/relative"]) {
    assert.throws(() => new url.URL(bad), TypeError, bad);
    assert.equal(url.URL.canParse(bad), false);
  }
  const changed = new url.URL("http://h/a?x=1");
  changed.searchParams.append("y", "2 3");
  changed.pathname = "/b c";
  changed.port = "81";
  changed.hash = "end";
  assert.equal(changed.href, "http://h:81/b%20c?x=1&y=2+3#end");
  changed.search = "?z=1";
  assert.equal(changed.searchParams.get("z"), "1");
});

test("search parameters are those of Node.js", () => {
  for (const init of ["a=1&b=2&a=3", "?x=%20+y&%zz=1&=e&k", { a: "1", b: "ü" }, [["a", "1"], ["a", "2"]]]) {
    const [ours, theirs] = [new url.URLSearchParams(init), new URLSearchParams(init)];
    assert.equal(ours.toString(), theirs.toString());
    assert.deepEqual([...ours], [...theirs]);
    for (const params of [ours, theirs]) {
      params.set("a", "9");
      params.append("c", "*-._~!'()");
      params.delete("b");
      params.sort();
    }
    assert.equal(ours.toString(), theirs.toString());
    assert.deepEqual(ours.getAll("a"), theirs.getAll("a"));
    assert.equal(ours.has("none"), false);
    assert.equal(ours.get("none"), null);
  }
});

test("headers", () => {
  const headers = new http.Headers({ "X-B": " 2 ", "x-a": "1" });
  headers.append("X-A", "3");
  headers.append("Set-Cookie", "a=1");
  headers.append("Set-Cookie", "b=2");
  assert.deepEqual([...headers], [["set-cookie", "a=1"], ["set-cookie", "b=2"], ["x-a", "1, 3"], ["x-b", "2"]]);
  assert.deepEqual(headers.getSetCookie(), ["a=1", "b=2"]);
  assert.equal(headers.get("none"), null);
  headers.delete("x-a");
  assert.equal(headers.has("X-A"), false);
  assert.throws(() => headers.set("bad name", "1"), TypeError);
  assert.throws(() => headers.set("a", "1\r\nb: 2"), TypeError);
  assert.deepEqual([...new http.Headers(headers)], [...headers]);
});

test("requests and responses", async () => {
  const request = new http.Request("http://h/a?b", { method: "post", body: '{"a":1}', headers: { "x-a": "1" } });
  assert.deepEqual([request.method, request.url, request.headers.get("content-type")], ["POST", "http://h/a?b", "text/plain;charset=UTF-8"]);
  assert.deepEqual(await request.clone().json(), { a: 1 });
  assert.deepEqual(await request.json(), { a: 1 });
  await assert.rejects(request.text(), TypeError);
  const other = new http.Request(new http.Request("http://h/", { method: "PUT", body: "kept" }), { headers: { b: "2" } });
  assert.deepEqual([other.method, await other.text()], ["PUT", "kept"]);
  assert.throws(() => new http.Request("http://h/", { body: "x" }), TypeError);

  const json = http.Response.json({ a: [1] }, { status: 201 });
  assert.deepEqual([json.status, json.ok, json.headers.get("content-type"), await json.text()], [201, true, "application/json", '{"a":[1]}']);
  assert.equal(http.Response.redirect("http://h/x").headers.get("location"), "http://h/x");
  assert.throws(() => new http.Response("x", { status: 204 }), TypeError);
  assert.throws(() => new http.Response("", { status: 99 }), RangeError);
  const form = new http.Response(new url.URLSearchParams({ a: "b c" }));
  assert.equal(form.headers.get("content-type"), "application/x-www-form-urlencoded;charset=UTF-8");
  assert.equal((await form.formData()).get("a"), "b c");
  assert.deepEqual(new Uint8Array(await new http.Response(new Uint8Array([1, 2])).arrayBuffer()), new Uint8Array([1, 2]));
});

test("bodies stream", async () => {
  let pulled = 0;
  const stream = new ReadableStream({
    pull(controller) {
      pulled += 1;
      if (pulled > 3) controller.close();
      else controller.enqueue(new TextEncoder().encode(`${pulled} `));
    },
  });
  assert.equal(await new http.Response(stream).text(), "1 2 3 ");
  const slow = new ReadableStream({
    async start(controller) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      controller.enqueue("late");
      controller.close();
    },
  });
  assert.equal(await new http.Response(slow).text(), "late");
  const broken = new ReadableStream({ pull: () => { throw new Error("mine"); } });
  await assert.rejects(new http.Response(broken).text(), /mine/);
  let cancelled = false;
  const left = new ReadableStream({ pull: (c) => c.enqueue("x"), cancel: () => { cancelled = true; } });
  for await (const _ of left) break;
  assert.equal(cancelled, true);
  assert.equal(await new http.Response((async function* () { yield "a"; yield "b"; })()).text(), "ab");
});

test("a stream that is cancelled in the midst of a read ends it", async () => {
  let [returned, come] = [false, undefined];
  const source = {
    next: () => new Promise((resolve) => (come = resolve)),
    return: async () => (returned = true),
    [Symbol.asyncIterator]() { return this; },
  };
  const stream = ReadableStream.from(source);
  const reader = stream.getReader();
  const next = reader.read();
  await new Promise((resolve) => setTimeout(resolve, 1));
  await reader.cancel();
  assert.deepEqual([await next, returned], [{ value: undefined, done: true }, true]);
  // What comes all the same is nobody's.
  come({ value: "late", done: false });
  assert.deepEqual(await reader.read(), { value: undefined, done: true });
});

test("an abort is heard once", () => {
  const controller = new AbortController();
  let heard = 0;
  controller.signal.addEventListener("abort", () => heard++, { once: true });
  controller.abort();
  controller.abort();
  assert.equal(heard, 1);
  assert.throws(() => controller.signal.throwIfAborted(), /aborted/);
});

test("values are logged so that they can be read", () => {
  const circular = { a: 1 };
  circular.self = circular;
  assert.equal(format(["text", 1, { a: "b", c: [1, 2n] }]), 'text 1 { a: "b", c: [1, 2n] }');
  assert.equal(format([circular]), "{ a: 1, self: [circular] }");
  assert.equal(format([new Map([["k", 1]])]), 'Map { ["k", 1] }');
  assert.match(format([new Error("mine")]), /^Error: mine\n/);
});

/** A `fetch` of servers that are a function, and what they were asked. */
function served(answer) {
  const asked = [];
  const fetch = fetchBy(async ({ method, url, headers, body }) => {
    asked.push(`${method} ${url.href} ${[...headers].join(";")} ${new TextDecoder().decode(body)}`.trim());
    const { status = 200, headers: given = [], body: text = "" } = answer(url);
    return { status, headers: given, body: text };
  });
  return { fetch, asked };
}

test("fetch sends a request and gives its response", async () => {
  const { fetch, asked } = served(() => ({ status: 201, headers: [["x-a", "1"]], body: "made" }));
  const response = await fetch("http://a/b?c", { method: "POST", headers: { "X-B": "2" }, body: "in" });
  assert.deepEqual([response.status, response.url, response.redirected], [201, "http://a/b?c", false]);
  assert.deepEqual([response.headers.get("x-a"), await response.text()], ["1", "made"]);
  assert.deepEqual(asked, ["POST http://a/b?c content-type,text/plain;charset=UTF-8;x-b,2 in"]);
  await fetch(new http.Request("https://a/", { method: "PUT", body: "x" }));
  assert.equal(asked[1], "PUT https://a/ content-type,text/plain;charset=UTF-8 x");
  assert.equal((await served(() => ({ status: 204 })).fetch("http://a/")).body, null);
});

test("a body that nobody is to read is given back", async () => {
  const answers = { "http://a/1": [302, "/2"], "http://a/2": [204, ""] };
  const returned = [];
  const fetch = fetchBy(async ({ url: { href } }) => {
    const [status, location] = answers[href];
    const body = { return: async () => returned.push(href), [Symbol.asyncIterator]() { return this; } };
    return { status, headers: location ? [["location", location]] : [], body };
  });
  assert.equal((await fetch("http://a/1")).body, null);
  assert.deepEqual(returned, ["http://a/1", "http://a/2"]);
});

test("redirections are followed, but not everywhere with everything", async () => {
  const at = (status, location) => ({ status, headers: [["location", location]] });
  const { fetch, asked } = served(({ href }) =>
    ({ "http://a/1": at(301, "/2"), "http://a/2": at(307, "http://b/3"), "http://a/5": at(308, "http://a/6") })[href] ?? { body: "end" });
  const headers = { authorization: "secret", "x-kept": "1" };
  const response = await fetch("http://a/1", { method: "POST", body: "in", headers });
  assert.deepEqual([response.url, response.redirected, await response.text()], ["http://b/3", true, "end"]);
  assert.deepEqual(asked.slice(1), ["GET http://a/2 authorization,secret;x-kept,1", "GET http://b/3 x-kept,1"]);
  await fetch("http://a/5", { method: "POST", body: "in", headers: { "content-type": "x/y" } });
  assert.equal(asked.at(-1), "POST http://a/6 content-type,x/y in");
  assert.equal((await fetch("http://a/1", { redirect: "manual" })).status, 301);
  await assert.rejects(fetch("http://a/1", { redirect: "error" }), TypeError);
  await assert.rejects(served(() => at(302, "/again")).fetch("http://a/"), /more than 20/);
  await assert.rejects(served(() => at(302, "file:///etc")).fetch("http://a/"), /file: is not http:/);
});

test("fetch refuses what it can not send", async () => {
  const { fetch, asked } = served(() => ({}));
  await assert.rejects(fetch("ftp://a/"), TypeError);
  await assert.rejects(fetch("/relative"), TypeError);
  await assert.rejects(fetch("http://a/", { signal: AbortSignal.abort("enough") }), (error) => error === "enough");
  assert.deepEqual(asked, []);
});
