// Outgoing requests on QuickJS, by `wasi:http/outgoing-handler@0.2`.
//
// Not by `wasi:http/client@0.3`: the engine's snapshot can not be taken with an
// asynchronous import that nobody answers. 0.2 waits by polling. To block there
// would hold up the function's timers and its other requests, so it looks again
// and again instead, in growing pauses.

import clock from "wasi:clocks/monotonic-clock@0.3.0";
import outgoing from "wasj:http/outgoing-handler@0.2.10";
import types from "wasj:http/types@0.2.10";
import { fetchBy } from "./web/fetch.js";
import { TextDecoder, TextEncoder, toBytes } from "./web/text.js";

const PAUSE_NS_MIN = 200_000;
const PAUSE_NS_MAX = 5_000_000;
/** What one call takes. */
const WRITE_BYTES_MAX = 4096;
const READ_BYTES_MAX = 65536;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const fetch = fetchBy(async ({ method, url, headers, body }, signal) => {
  const fields = new types.Fields();
  for (const [name, value] of headers) {
    // The host says how long it is, and to whom it goes.
    if (name !== "content-length" && name !== "host") fields.append(name, encoder.encode(value));
  }
  if (body.length > 0) fields.append("content-length", encoder.encode(String(body.length)));
  const request = new types.OutgoingRequest(fields);
  request.setMethod(methodOf(method));
  request.setScheme({ tag: url.protocol === "https:" ? "HTTPS" : "HTTP" });
  request.setAuthority(url.host);
  request.setPathWithQuery(url.pathname + url.search);
  const sent = request.body();
  const future = attempt(url, () => outgoing.handle(request, null));
  write(sent, body);
  let answer;
  try {
    await ready(future, signal);
    answer = future.get();
  } finally {
    future[Symbol.dispose]();
  }
  // Two layers: whether it was asked for the first time, and what came of it.
  const response = unwrap(url, unwrap(url, answer));
  return { status: response.status(), headers: pairs(response.headers()), body: read(response, url, signal) };
});

/** What goes wrong here is told by the answer, or does not matter to it. */
function write(sent, body) {
  try {
    if (body.length > 0) {
      const stream = sent.write();
      try {
        for (let at = 0; at < body.length; at += WRITE_BYTES_MAX) {
          stream.blockingWriteAndFlush(body.slice(at, at + WRITE_BYTES_MAX));
        }
      } finally {
        // A stream has to be given back before the body that it belongs to.
        stream[Symbol.dispose]();
      }
    }
    types.OutgoingBody.finish(sent, null);
  } catch {}
}

function methodOf(method) {
  const known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"].includes(method);
  return known ? { tag: method.toLowerCase() } : { tag: "other", val: method };
}

function pairs(fields) {
  return fields.entries().map(([name, value]) => [name, decoder.decode(toBytes(value))]);
}

/**
 * The pieces of a body. Not a generator: that would not be told that nobody wants
 * it before its first piece, nor while it waits for the next.
 */
function read(response, url, signal) {
  const body = response.consume();
  const stream = body.stream();
  let [isWanted, isReading, isReleased] = [true, false, false];
  const end = () => {
    isWanted = false;
    // What waits for the stream has to be given back before it.
    if (!isReading && !isReleased) {
      isReleased = true;
      for (const held of [stream, body, response]) held[Symbol.dispose]();
    }
    return { value: undefined, done: true };
  };
  const next = async () => {
    if (!isWanted) return end();
    let piece = new Uint8Array(0);
    try {
      isReading = true;
      while (piece.length === 0 && (await ready(stream, signal, () => isWanted))) {
        piece = toBytes(stream.read(READ_BYTES_MAX));
      }
    } catch (error) {
      isWanted = false;
      if (signal?.aborted) throw signal.reason;
      if (codeOf(error) !== "closed") throw failure(url, "the response broke off");
    } finally {
      isReading = false;
      if (!isWanted) end();
    }
    return isWanted ? { value: piece, done: false } : end();
  };
  return { next, return: async () => end(), [Symbol.asyncIterator]() { return this; } };
}

/** Waits until something that can be subscribed to is ready, or not wanted; whether it is ready. */
async function ready(source, signal, isWanted = () => true) {
  const pollable = source.subscribe();
  try {
    for (let pause = PAUSE_NS_MIN; isWanted() && !pollable.ready(); pause = Math.min(pause * 2, PAUSE_NS_MAX)) {
      signal?.throwIfAborted();
      await clock.waitFor(pause);
    }
    signal?.throwIfAborted();
    return isWanted();
  } finally {
    pollable[Symbol.dispose]();
  }
}

function unwrap(url, result) {
  if (result?.tag !== "ok") throw failure(url, codeOf(result?.val));
  return result.val;
}

function attempt(url, call) {
  try {
    return call();
  } catch (error) {
    throw failure(url, codeOf(error));
  }
}

const codeOf = (error) => error?.tag ?? error?.payload?.tag ?? error?.message ?? String(error);

function failure(url, code) {
  const why = code === "HTTP-request-denied" ? `allow_hosts in whit.toml does not name ${url.origin}` : code;
  return new TypeError(`fetch failed: ${url.origin}: ${why}`);
}
