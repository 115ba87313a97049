// What the adapter promises, under plain Node.js.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer, findHandler, lazyEnvironment, randomBy } from "../runtime.js";

const call = (module, method = "GET", env = {}) =>
  answer(findHandler(module), new Request("http://example.com/path", { method }), env, {});

/** Runs with console.error collected instead of printed. */
async function logged(run) {
  const lines = [];
  const original = console.error;
  console.error = (...parts) => lines.push(parts.join(" "));
  try {
    return [await run(), lines.join("\n")];
  } finally {
    console.error = original;
  }
}

test("an object with fetch, and its own this", async () => {
  const module = { default: { word: "hi", async fetch(request, env) {
    return new Response(`${this.word} ${new URL(request.url).pathname} ${env.NAME}`);
  } } };
  assert.equal(await (await call(module, "GET", { NAME: "ada" })).text(), "hi /path ada");
});

test("a default function, and an exported fetch", async () => {
  const handler = (request) => new Response(request.method);
  assert.equal(await (await call({ default: handler }, "PUT")).text(), "PUT");
  assert.equal(await (await call({ fetch: handler }, "PUT")).text(), "PUT");
});

test("exports by method", async () => {
  const module = { GET: () => new Response("got", { headers: { "x-a": "1" } }), POST: () => new Response("posted") };
  assert.equal(await (await call(module)).text(), "got");
  assert.equal(await (await call(module, "POST")).text(), "posted");

  const head = await call(module, "HEAD");
  assert.equal(head.headers.get("x-a"), "1");
  assert.equal(await head.text(), "");

  const refused = await call(module, "DELETE");
  assert.equal(refused.status, 405);
  assert.equal(refused.headers.get("allow"), "GET, POST");
});

test("a module without a handler has none", () => {
  assert.equal(findHandler({}), undefined);
  assert.equal(findHandler({ default: 7, helper() {} }), undefined);
});

test("an exception is a 500 without its text, and an error in the log", async () => {
  for (const fail of [() => { throw new Error("secret reason"); }, async () => { throw new Error("secret reason"); }]) {
    const [response, log] = await logged(() => call({ default: fail }));
    assert.equal(response.status, 500);
    assert.doesNotMatch(await response.text(), /secret/);
    assert.match(log, /Error: secret reason/);
    assert.match(log, /runtime\.test\.js/);
  }
});

test("an answer that is no Response is a 500 that says what it was", async () => {
  for (const [value, name] of [["text", "text"], [undefined, "undefined"], [{ status: 200 }, "Object"]]) {
    const [response, log] = await logged(() => call({ default: () => value }));
    assert.equal(response.status, 500);
    assert.match(log, new RegExp(`returned .*${name}`));
  }
});

test("several cookies stay several", async () => {
  const headers = new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]]);
  const response = await call({ default: () => new Response("", { headers }) });
  assert.deepEqual(response.headers.getSetCookie(), ["a=1", "b=2"]);
});

test("the environment is read once, and only when a request is there", () => {
  let reads = 0;
  let ready = false;
  const env = lazyEnvironment(() => (reads++, [["NAME", "ada"]]), () => ready);
  assert.equal(env.NAME, undefined);
  assert.equal(reads, 0);

  ready = true;
  assert.equal(env.NAME, "ada");
  assert.deepEqual({ ...env }, { NAME: "ada" });
  assert.ok("NAME" in env);
  env.OWN = "1";
  assert.equal(env.OWN, "1");
  assert.equal(reads, 1);
});

test("random numbers begin with their seed and lie between 0 and 1", () => {
  let asked = 0;
  const by = (...seed) => randomBy(() => (asked++, new Uint32Array(seed)));
  const draws = (random) => Array.from({ length: 1000 }, random);
  const [one, again, other] = [draws(by(1, 2, 3, 4)), draws(by(1, 2, 3, 4)), draws(by(1, 2, 3, 5))];
  assert.deepEqual(one, again);
  assert.equal(new Set([...one, ...other]).size, 2000);
  assert.ok(one.every((number) => number >= 0 && number < 1));
  const mean = one.reduce((sum, number) => sum + number) / one.length;
  assert.ok(mean > 0.45 && mean < 0.55, mean);
  assert.equal(asked, 3);
});
