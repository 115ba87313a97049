// What QuickJS lacks of the web platform, put in place before the user's module
// is evaluated.

import clock from "wasi:clocks/monotonic-clock@0.3.0";
import environment from "wasi:cli/environment@0.3.0";
import random from "wasi:random/random@0.3.0";
import stderr from "wasj:cli/stderr@0.2.10";
import { fetch } from "./quickjs-fetch.js";
import { lazyEnvironment, randomBy } from "./runtime.js";
import { AbortController, AbortSignal, DOMError, Event, EventTarget } from "./web/events.js";
import { format } from "./web/format.js";
import { Headers, Request, Response } from "./web/http.js";
import { ReadableStream } from "./web/streams.js";
import { TextDecoder, TextEncoder } from "./web/text.js";
import { URL, URLSearchParams } from "./web/url.js";

let started = false;

let draw = Math.random;
// In place from the start: a module may keep it at its top level.
Math.random = () => draw();

/** Called when a request is there: from now on the host answers imports. */
export function begin() {
  started = true;
  draw = randomBy(() => new Uint32Array(bytes(16).slice().buffer));
}

/** The function's variables and secrets. */
export const env = lazyEnvironment(() => environment.getEnvironment(), () => started);

const encoder = new TextEncoder();

function print(...values) {
  const bytes = encoder.encode(`${format(values)}\n`);
  if (!started) return;
  const out = stderr.getStderr();
  // The most that one call takes.
  for (let at = 0; at < bytes.length; at += 4096) out.blockingWriteAndFlush(bytes.slice(at, at + 4096));
  out[Symbol.dispose]?.();
}

const timers = new Set();
let lastTimer = 0;

function startTimer(call, milliseconds, repeat, values) {
  const id = ++lastTimer;
  timers.add(id);
  const wait = Math.max(0, Number(milliseconds) || 0);
  const run = async () => {
    do {
      await clock.waitFor(Math.round(Math.max(wait, repeat ? 1 : 0) * 1e6));
      if (!timers.has(id)) return;
      if (!repeat) timers.delete(id);
      call(...values);
    } while (repeat && timers.has(id));
  };
  run().catch(print);
  return id;
}

const clear = (id) => void timers.delete(id);

/** Whether something is still to come. */
export const hasTimers = () => timers.size > 0;

function bytes(count) {
  const given = random.getRandomBytes(count);
  return given instanceof Uint8Array ? given : new Uint8Array(given);
}

const crypto = {
  getRandomValues(array) {
    if (array.byteLength > 65536) throw new RangeError("at most 65536 bytes at once");
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(bytes(array.byteLength));
    return array;
  },
  randomUUID() {
    const value = bytes(16);
    value[6] = (value[6] & 0x0f) | 0x40;
    value[8] = (value[8] & 0x3f) | 0x80;
    const hex = [...value].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  },
  get subtle() {
    throw new Error('crypto.subtle needs the larger engine: set engine = "starlingmonkey" in whit.toml');
  },
};

Object.assign(globalThis, {
  AbortController,
  AbortSignal,
  Event,
  EventTarget,
  Headers,
  ReadableStream,
  Request,
  Response,
  TextDecoder,
  TextEncoder,
  URL,
  URLSearchParams,
  clearInterval: clear,
  clearTimeout: clear,
  console: { debug: print, error: print, info: print, log: print, trace: print, warn: print },
  crypto,
  DOMException: globalThis.DOMException ?? DOMError,
  fetch: (...request) => {
    if (!started) throw new Error("fetch is for requests; at the top level of a module there is no host yet");
    return fetch(...request);
  },
  process: { env },
  self: globalThis,
  setInterval: (call, milliseconds, ...values) => startTimer(call, milliseconds, true, values),
  setTimeout: (call, milliseconds, ...values) => startTimer(call, milliseconds, false, values),
  structuredClone: (value) => clone(value, new Map()),
});

function clone(value, seen) {
  if (value === null || typeof value !== "object") {
    if (typeof value === "function" || typeof value === "symbol") throw new DOMError("a function can not be cloned");
    return value;
  }
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => (seen.set(value, copy), copy);
  if (value instanceof Date) return keep(new Date(value));
  if (value instanceof RegExp) return keep(new RegExp(value));
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (ArrayBuffer.isView(value)) return keep(value.slice());
  if (value instanceof Map) {
    const copy = keep(new Map());
    for (const [key, held] of value) copy.set(clone(key, seen), clone(held, seen));
    return copy;
  }
  if (value instanceof Set) {
    const copy = keep(new Set());
    for (const held of value) copy.add(clone(held, seen));
    return copy;
  }
  const copy = keep(Array.isArray(value) ? [] : {});
  for (const key of Object.keys(value)) copy[key] = clone(value[key], seen);
  return copy;
}
