// Headers, Request and Response.

import { ReadableStream } from "./streams.js";
import { concat, TextDecoder, TextEncoder, toBytes } from "./text.js";
import { URL, URLSearchParams } from "./url.js";

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** A value with nothing to take off or to refuse. */
const PLAIN_VALUE = /^[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?$/;

/** Names that need not be looked at closely. */
const COMMON = new Set(
  "accept authorization cache-control content-length content-type cookie date etag host location set-cookie user-agent vary".split(" "),
);

/** Header fields that are read, as pairs, when they are asked for. */
export class LazyFields {
  #read;
  #pairs;

  constructor(read) {
    this.#read = read;
  }

  pairs() {
    return (this.#pairs ??= this.#read());
  }
}

export class Headers {
  /** Values by name; null as long as they are with `#lazy`. */
  #fields = null;
  #lazy = null;

  constructor(init) {
    if (init instanceof LazyFields) {
      this.#lazy = init;
      return;
    }
    this.#fields = new Map();
    if (init === undefined || init === null) return;
    const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }

  #read() {
    if (this.#fields === null) {
      this.#fields = new Map();
      for (const [name, value] of this.#lazy.pairs()) this.append(name, value);
    }
    return this.#fields;
  }

  append(name, value) {
    const fields = this.#read();
    const key = fieldName(name);
    const values = fields.get(key);
    if (values === undefined) fields.set(key, [fieldValue(value)]);
    else values.push(fieldValue(value));
  }

  set(name, value) {
    this.#read().set(fieldName(name), [fieldValue(value)]);
  }

  get(name) {
    return this.#read().get(fieldName(name))?.join(", ") ?? null;
  }

  getSetCookie() {
    return [...(this.#read().get("set-cookie") ?? [])];
  }

  has(name) {
    return this.#read().has(fieldName(name));
  }

  delete(name) {
    this.#read().delete(fieldName(name));
  }

  forEach(call, self) {
    for (const [name, value] of this) call.call(self, value, name, this);
  }

  *entries() {
    const fields = this.#read();
    for (const name of [...fields.keys()].sort()) {
      const values = fields.get(name);
      // Cookies are the one field whose values can not be joined.
      if (name === "set-cookie") for (const value of values) yield [name, value];
      else yield [name, values.join(", ")];
    }
  }

  *keys() {
    for (const [name] of this.entries()) yield name;
  }

  *values() {
    for (const [, value] of this.entries()) yield value;
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  get [Symbol.toStringTag]() {
    return "Headers";
  }
}

function fieldName(name) {
  if (COMMON.has(name)) return name;
  if (!TOKEN.test(String(name))) throw new TypeError(`${JSON.stringify(String(name))} is no name of a header`);
  return String(name).toLowerCase();
}

function fieldValue(value) {
  if (typeof value === "string" && PLAIN_VALUE.test(value)) return value;
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (/[\0\n\r]/.test(text)) throw new TypeError("a header's value has no line breaks");
  return text;
}

/** What a Request and a Response have in common. */
class Body {
  #stream = null;
  #bytes = null;
  bodyUsed = false;
  /** The media type that the kind of body implies. */
  _type = null;

  _setBody(body) {
    if (body === null || body === undefined) return;
    if (body instanceof ReadableStream) {
      this.#stream = body;
    } else if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
      this.#bytes = toBytes(body).slice();
    } else if (body instanceof URLSearchParams) {
      this.#bytes = new TextEncoder().encode(body.toString());
      this._type = "application/x-www-form-urlencoded;charset=UTF-8";
    } else if (typeof body === "object" && typeof body[Symbol.asyncIterator] === "function") {
      this.#stream = ReadableStream.from(body);
    } else {
      this.#bytes = new TextEncoder().encode(String(body));
      this._type = "text/plain;charset=UTF-8";
    }
  }

  get body() {
    if (this.#stream === null && this.#bytes !== null) {
      const bytes = this.#bytes;
      this.#stream = ReadableStream.from(bytes.length === 0 ? [] : [bytes]);
      this.#bytes = null;
    }
    return this.#stream;
  }

  /** The body if it is there whole already; for a host to send without a stream. */
  get _whole() {
    return this.#stream === null ? (this.#bytes ?? new Uint8Array(0)) : null;
  }

  async bytes() {
    if (this.bodyUsed || this.#stream?.locked) throw new TypeError("the body has been read already");
    this.bodyUsed = true;
    if (this.#stream === null) return this.#bytes ?? new Uint8Array(0);
    const pieces = [];
    for await (const piece of this.#stream) {
      pieces.push(typeof piece === "string" ? new TextEncoder().encode(piece) : toBytes(piece));
    }
    return concat(pieces);
  }

  async arrayBuffer() {
    const { buffer, byteOffset, byteLength } = await this.bytes();
    return buffer.slice(byteOffset, byteOffset + byteLength);
  }

  async text() {
    return new TextDecoder().decode(await this.bytes());
  }

  async json() {
    return JSON.parse(await this.text());
  }

  async formData() {
    const type = this.headers.get("content-type") ?? "";
    if (!type.startsWith("application/x-www-form-urlencoded")) {
      throw new TypeError('this engine reads urlencoded forms only; for others set engine = "starlingmonkey"');
    }
    // It has what FormData is asked for: get, getAll, has, entries.
    return new URLSearchParams(await this.text());
  }

  _copyBody() {
    if (this.bodyUsed) throw new TypeError("the body has been read already");
    if (this.#stream !== null) {
      throw new TypeError("a body that streams can not be cloned here; read it once and keep it");
    }
    return this.#bytes;
  }
}

/** The URL of a request that has arrived: nobody has to be told that it is none. */
export class ArrivedUrl {
  constructor(text) {
    this.text = text;
  }
}

export class Request extends Body {
  /** As it was given, until somebody asks for it. */
  #input = null;
  #url;

  constructor(input, init = {}) {
    super();
    const from = input instanceof Request ? input : null;
    if (from) this.#url = from.url;
    else if (input instanceof ArrivedUrl) this.#input = input;
    else this.#url = new URL(String(input)).href;
    this.method = normalMethod(init.method ?? from?.method ?? "GET");
    this.headers = new Headers(init.headers ?? from?.headers);
    this.signal = init.signal ?? from?.signal ?? null;
    this.redirect = init.redirect ?? from?.redirect ?? "follow";
    this.cache = "default";
    this.credentials = "same-origin";
    this.mode = "cors";
    const body = init.body ?? (from && !("body" in init) ? (from._whole ?? from.body) : null);
    if (body !== null && body !== undefined && ["GET", "HEAD"].includes(this.method)) {
      if (init.body !== undefined && init.body !== null) {
        throw new TypeError(`a ${this.method} request has no body`);
      }
    } else {
      this._setBody(body);
    }
    if (this._type !== null && !this.headers.has("content-type")) this.headers.set("content-type", this._type);
  }

  get url() {
    return (this.#url ??= new URL(this.#input.text).href);
  }

  clone() {
    return new Request(this.url, {
      method: this.method,
      headers: this.headers,
      body: this._copyBody(),
      signal: this.signal,
    });
  }

  get [Symbol.toStringTag]() {
    return "Request";
  }
}

function normalMethod(method) {
  const upper = String(method).toUpperCase();
  return ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"].includes(upper) ? upper : String(method);
}

export class Response extends Body {
  constructor(body = null, init = {}) {
    super();
    const status = init.status ?? 200;
    if (!Number.isInteger(status) || status < 200 || status > 599) {
      throw new RangeError(`${status} is no status of a response: 200 to 599 are`);
    }
    if (body !== null && body !== undefined && [204, 205, 304].includes(status)) {
      throw new TypeError(`a response with status ${status} has no body`);
    }
    this.status = status;
    this.statusText = String(init.statusText ?? "");
    this.headers = new Headers(init.headers);
    this.type = "default";
    this.url = "";
    this.redirected = false;
    this._setBody(body);
    if (this._type !== null && !this.headers.has("content-type")) this.headers.set("content-type", this._type);
  }

  get ok() {
    return this.status < 300;
  }

  clone() {
    return new Response(this._copyBody(), this);
  }

  static json(value, init = {}) {
    const headers = new Headers(init.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError("the value can not be written as JSON");
    return new Response(text, { ...init, headers });
  }

  static redirect(url, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`${status} is no redirection`);
    return new Response(null, { status, headers: { location: new URL(url).href } });
  }

  static error() {
    const response = new Response(null, { status: 500 });
    response.type = "error";
    return response;
  }

  get [Symbol.toStringTag]() {
    return "Response";
  }
}
