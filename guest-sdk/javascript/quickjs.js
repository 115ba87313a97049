// The module that a component on QuickJS starts from: a request of wasi:http 0.3
// as a `Request`, a `Response` as an answer. `whit:function` stands for the
// user's module; the bundler knows it.
//
// `quickjs-globals.js` must stay the first import: it has to be there before the
// top level of the user's module runs.

import { begin, env } from "./quickjs-globals.js";
import * as module from "whit:function";
import types from "wasi:http/types@0.3.0";
import { answer, findHandler } from "./runtime.js";
import { ArrivedUrl, LazyFields, Request } from "./web/http.js";
import { TextDecoder, TextEncoder, toBytes } from "./web/text.js";

const handle = findHandler(module);
if (handle === undefined) {
  throw new Error("the module has no handler: export default { fetch(request) {…} }, a function, or GET, POST …");
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
