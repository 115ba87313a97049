// The adapter on QuickJS: a request of wasi:http 0.3 as a `Request`, a `Response`
// as an answer.
//
// It is in the template that all functions begin as: a snapshot in which this
// here has run. A build calls `load` with the user's bundled module, and takes
// another snapshot of what is then in memory: the function.

import clock from "wasi:clocks/monotonic-clock@0.3.0";
import environment from "wasi:cli/environment@0.3.0";
import types from "wasi:http/types@0.3.0";
import random from "wasi:random/random@0.3.0";
import { begin, env, hasTimers } from "./quickjs-globals.js";
import { answer, findHandler } from "./runtime.js";
import { format } from "./web/format.js";
import { ArrivedUrl, LazyFields, Request } from "./web/http.js";
import { TextDecoder, TextEncoder, toBytes } from "./web/text.js";

let handle;

/** What a user's module may import besides its own files, under these names. */
const imports = {
  "wasi:cli/environment@0.3.0": environment,
  "wasi:clocks/monotonic-clock@0.3.0": clock,
  "wasi:http/types@0.3.0": types,
  "wasi:random/random@0.3.0": random,
};

/** How long microtasks and timers are given before they are looked at again. */
const PAUSE_NS = 1_000_000;
/** Looks that see nothing more to come before it is given up. */
const LOOKS_MAX = 5;

/** Evaluates a bundle. Returns what went wrong, or nothing. */
export async function load(bundle) {
  try {
    let module;
    // Indirect: the bundle sees what is global, and nothing of the adapter.
    const evaluate = (0, eval)(bundle);
    await settled(evaluate({ define: (exports) => (module = exports), imports, meta: Object.create(null) }));
    handle = findHandler(module);
    if (handle === undefined) {
      return "Error: the module has no handler: export default { fetch(request) {…} }, a function, or GET, POST …";
    }
  } catch (error) {
    return error instanceof Error ? `${error}\n${placed(error.stack ?? "", bundle)}` : `${format([error])} was thrown`;
  }
}

/** A promise's result, unless there is nothing that it could still wait for. */
async function settled(promise) {
  let isPending = true;
  const note = () => void (isPending = false);
  promise.then(note, note);
  for (let looks = 0; isPending && looks < LOOKS_MAX; looks = hasTimers() ? 0 : looks + 1) {
    await clock.waitFor(PAUSE_NS);
  }
  if (isPending) throw new Error("the top level of the module waits for what never comes");
  return promise;
}

/** A stack in which the user's own files are named: the bundler puts each one's name above it. */
function placed(stack, bundle) {
  const lines = bundle.split("\n");
  const file = (line) => lines.slice(0, line).findLast((text) => /^\/\/ [^\0]+$/.test(text))?.slice(3);
  const frames = stack.split("\n").filter((frame) => frame !== "" && !frame.includes("componentize-qjs:"));
  return frames
    .map((frame) => frame.replace(/<input>:(\d+)(:\d+)?/, (_, line) => `${file(line)}, line ${line} of bundle.js`))
    .join("\n");
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const handler = {
  async handle(incoming) {
    begin();
    const afterwards = [];
    const context = {
      waitUntil: (promise) => afterwards.push(Promise.resolve(promise).catch(console.error)),
      passThroughOnException: () => {},
    };
    const response = await answer(handle, toRequest(incoming), env, context);
    const outgoing = toResponse(response);
    // The host ends a guest whose response is complete and that has returned.
    if (afterwards.length > 0) await Promise.all(afterwards);
    return outgoing;
  },
};

function toRequest(incoming) {
  const method = incoming.getMethod();
  const name = method.tag === "other" ? method.val : method.tag.toUpperCase();
  const scheme = incoming.getScheme()?.tag === "HTTPS" ? "https" : "http";
  const authority = incoming.getAuthority() ?? "localhost";
  const url = `${scheme}://${authority}${incoming.getPathWithQuery() ?? "/"}`;
  const read = () => incoming.getHeaders().copyAll().map(([field, value]) => [field, decoder.decode(toArray(value))]);
  const fields = new LazyFields(read);
  const init = { method: name, headers: fields };
  if (name !== "GET" && name !== "HEAD") init.body = requestBody(incoming, fields);
  return new Request(new ArrivedUrl(url), init);
}

const toArray = (value) => (value instanceof Uint8Array ? value : new Uint8Array(value));

/** Read when the function first asks for it. */
async function* requestBody(incoming, fields) {
  // What follows takes the request, and its fields with it.
  fields.pairs();
  const read = wit.Future.from({ tag: "ok" }, wit.Future.RESULT_VOID_ERROR_CODE);
  const [stream] = types.Request.consumeBody(incoming, read.readable ?? read);
  for await (const piece of stream) yield piece;
}

function toResponse(response) {
  const headers = new types.Fields();
  for (const [name, value] of response.headers) headers.append(name, encoder.encode(value));
  const none = wit.Future.from({ tag: "ok", val: null }, wit.Future.RESULT_OPTION_OTHER_ERROR_CODE);
  const bytes = response._whole;
  let contents = null;
  if (bytes === null || bytes.length > 0) {
    contents = wit.Stream.from(bytes === null ? streamed(response.body) : [bytes], wit.Stream.U8);
    contents = contents.readable ?? contents;
  }
  const [outgoing] = types.Response.new(headers, contents, none.readable ?? none);
  if (response.status !== 200) outgoing.setStatusCode(response.status);
  return outgoing;
}

async function* streamed(body) {
  for await (const piece of body) {
    yield typeof piece === "string" ? encoder.encode(piece) : toBytes(piece);
  }
}
