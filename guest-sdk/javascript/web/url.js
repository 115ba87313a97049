// URL and URLSearchParams, as far as http and https URLs go.

import { TextDecoder, TextEncoder } from "./text.js";

const PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21" };

// What is encoded besides control characters and everything beyond ASCII.
const IN_FRAGMENT = ' "<>`';
const IN_QUERY = ` "#<>'`;
const IN_PATH = ' "#<>?`{}^';
const IN_USER = ' "#<>?`{}/:;=@[\\]^|';

// Most URLs are in their normal form already, and one expression takes them apart.
const NORMAL =
  /^(https?:)\/\/([a-z0-9.-]+)(?::(\d{1,5}))?(\/[\w\-.~!$&'()*+,;=:@%/]*)(\?[\w\-.~!$&()*+,;=:@%/?]*)?$/;
const DOT_SEGMENT = /\/\.|%2e/i;

function encode(text, set) {
  // Nothing in any of the sets.
  if (/^[\w\-.~!$&()*+,]*$/.test(text)) return text;
  let encoded = "";
  for (const character of text) {
    const code = character.codePointAt(0);
    encoded += code < 0x21 || code > 0x7e || set.includes(character) ? percent(character) : character;
  }
  return encoded;
}

function percent(text) {
  let encoded = "";
  for (const byte of new TextEncoder().encode(text)) {
    encoded += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

export class URLSearchParams {
  #pairs = [];
  #changed;

  constructor(init = "", changed = () => {}) {
    this.#changed = typeof changed === "function" ? changed : () => {};
    if (init !== null && typeof init === "object") {
      const pairs = typeof init[Symbol.iterator] === "function" ? [...init] : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...rest] = pair;
        if (value === undefined || rest.length > 0) throw new TypeError("each pair has a name and a value");
        this.#pairs.push([String(name), String(value)]);
      }
    } else {
      this.#pairs = parseQuery(String(init).replace(/^\?/, ""));
    }
  }

  get size() {
    return this.#pairs.length;
  }

  append(name, value) {
    this.#pairs.push([String(name), String(value)]);
    this.#changed();
  }

  delete(name, value) {
    this.#pairs = this.#pairs.filter(
      ([own, held]) => own !== String(name) || (value !== undefined && held !== String(value)),
    );
    this.#changed();
  }

  get(name) {
    return this.#pairs.find(([own]) => own === String(name))?.[1] ?? null;
  }

  getAll(name) {
    return this.#pairs.filter(([own]) => own === String(name)).map(([, value]) => value);
  }

  has(name, value) {
    return this.#pairs.some(
      ([own, held]) => own === String(name) && (value === undefined || held === String(value)),
    );
  }

  set(name, value) {
    const first = this.#pairs.findIndex(([own]) => own === String(name));
    if (first < 0) return this.append(name, value);
    this.#pairs[first][1] = String(value);
    this.#pairs = this.#pairs.filter(([own], index) => own !== String(name) || index === first);
    this.#changed();
  }

  sort() {
    this.#pairs.sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0));
    this.#changed();
  }

  forEach(call, self) {
    for (const [name, value] of this.#pairs) call.call(self, value, name, this);
  }

  *entries() {
    for (const [name, value] of this.#pairs) yield [name, value];
  }

  *keys() {
    for (const [name] of this.#pairs) yield name;
  }

  *values() {
    for (const [, value] of this.#pairs) yield value;
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  toString() {
    return this.#pairs.map((pair) => pair.map(encodeForm).join("=")).join("&");
  }

  get [Symbol.toStringTag]() {
    return "URLSearchParams";
  }
}

function parseQuery(text) {
  return text
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const equals = part.indexOf("=");
      const [name, value] = equals < 0 ? [part, ""] : [part.slice(0, equals), part.slice(equals + 1)];
      return [decodeForm(name), decodeForm(value)];
    });
}

function encodeForm(text) {
  if (/^[\w*\-.]*$/.test(text)) return text;
  let encoded = "";
  for (const character of text) {
    if (character === " ") encoded += "+";
    else encoded += /[A-Za-z0-9*\-._]/.test(character) ? character : percent(character);
  }
  return encoded;
}

function decodeForm(text) {
  if (!/[+%]/.test(text)) return text;
  const bytes = [];
  const source = new TextEncoder().encode(text.replaceAll("+", " "));
  for (let at = 0; at < source.length; at++) {
    const digits = String.fromCharCode(source[at + 1], source[at + 2]);
    if (source[at] === 0x25 && /^[0-9a-f]{2}$/i.test(digits)) {
      bytes.push(parseInt(digits, 16));
      at += 2;
    } else {
      bytes.push(source[at]);
    }
  }
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
}

export class URL {
  #parts;
  #searchParams;

  constructor(url, base) {
    const text = String(url).trim().replace(/[\t\n\r]/g, "");
    this.#parts = parse(text) ?? (base === undefined ? null : relative(text, new URL(base)));
    if (this.#parts === null) throw new TypeError(`Invalid URL: ${url}`);
  }

  static canParse(url, base) {
    return URL.parse(url, base) !== null;
  }

  static parse(url, base) {
    try {
      return new URL(url, base);
    } catch {
      return null;
    }
  }

  #newParams() {
    const params = new URLSearchParams(this.#parts.search, () => {
      const text = params.toString();
      this.#parts.search = text === "" ? "" : `?${text}`;
    });
    return params;
  }

  get href() {
    const { protocol, username, password, hostname, port, pathname, search, hash } = this.#parts;
    if (hostname === null) return `${protocol}${pathname}${search}${hash}`;
    const secret = password === "" ? "" : `:${password}`;
    const user = username === "" && secret === "" ? "" : `${username}${secret}@`;
    return `${protocol}//${user}${hostname}${port === "" ? "" : `:${port}`}${pathname}${search}${hash}`;
  }

  set href(url) {
    this.#parts = parse(String(url)) ?? this.#fail(url);
    this.#searchParams = undefined;
  }

  #fail(url) {
    throw new TypeError(`Invalid URL: ${url}`);
  }

  get origin() {
    return this.#parts.protocol in PORTS ? `${this.protocol}//${this.host}` : "null";
  }

  get protocol() {
    return this.#parts.protocol;
  }

  set protocol(value) {
    const protocol = `${String(value).replace(/:.*$/, "").toLowerCase()}:`;
    if (protocol in PORTS === this.#parts.protocol in PORTS) this.#parts.protocol = protocol;
    if (this.#parts.port === PORTS[protocol]) this.#parts.port = "";
  }

  get username() {
    return this.#parts.username;
  }

  set username(value) {
    this.#parts.username = encode(String(value), IN_USER);
  }

  get password() {
    return this.#parts.password;
  }

  set password(value) {
    this.#parts.password = encode(String(value), IN_USER);
  }

  get hostname() {
    return this.#parts.hostname ?? "";
  }

  set hostname(value) {
    const hostname = parseHost(String(value));
    if (hostname !== null) this.#parts.hostname = hostname;
  }

  get port() {
    return this.#parts.port;
  }

  set port(value) {
    const port = /^\d{0,5}/.exec(String(value))[0];
    if (Number(port) <= 65535) this.#parts.port = port === PORTS[this.protocol] ? "" : port;
  }

  get host() {
    return this.port === "" ? this.hostname : `${this.hostname}:${this.port}`;
  }

  set host(value) {
    const [, hostname, , port] = /^(\[[^\]]*\]|[^:]*)(:(\d*))?/.exec(String(value));
    this.hostname = hostname;
    if (port !== undefined) this.port = port;
  }

  get pathname() {
    return this.#parts.pathname;
  }

  set pathname(value) {
    this.#parts.pathname = normalise(encode(String(value), IN_PATH));
  }

  get search() {
    return this.#parts.search === "?" ? "" : this.#parts.search;
  }

  set search(value) {
    const text = String(value).replace(/^\?/, "");
    this.#parts.search = text === "" ? "" : `?${encode(text, IN_QUERY)}`;
    this.#searchParams = undefined;
  }

  get searchParams() {
    return (this.#searchParams ??= this.#newParams());
  }

  get hash() {
    return this.#parts.hash === "#" ? "" : this.#parts.hash;
  }

  set hash(value) {
    const text = String(value).replace(/^#/, "");
    this.#parts.hash = text === "" ? "" : `#${encode(text, IN_FRAGMENT)}`;
  }

  toString() {
    return this.href;
  }

  toJSON() {
    return this.href;
  }

  get [Symbol.toStringTag]() {
    return "URL";
  }
}

/** The parts of an absolute URL; null when it is none. */
function parse(text) {
  return parseNormal(text) ?? parseAny(text);
}

/** The parts of a URL in its normal form; undefined when it is in another. */
function parseNormal(text) {
  const parts = NORMAL.exec(text);
  if (parts === null) return undefined;
  const [, protocol, hostname, port = "", pathname, search = ""] = parts;
  if (DOT_SEGMENT.test(pathname) || port === PORTS[protocol] || (port !== "" && !isNormalPort(port))) return undefined;
  return { protocol, username: "", password: "", hostname, port, pathname, search, hash: "" };
}

/** Neither `0080` nor too large. */
const isNormalPort = (port) => port[0] !== "0" && Number(port) <= 65535;

function parseAny(text) {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text);
  if (scheme === null) return null;
  const protocol = scheme[0].toLowerCase();
  const rest = text.slice(scheme[0].length);
  const [, before, search = "", hash = ""] = /^([^?#]*)(\?[^#]*)?(#.*)?$/s.exec(rest);
  const end = { search: encode(search, IN_QUERY), hash: hash && `#${encode(hash.slice(1), IN_FRAGMENT)}` };
  if (!(protocol in PORTS) && !before.startsWith("//")) {
    const none = { username: "", password: "", hostname: null, port: "" };
    return { protocol, ...none, pathname: encode(before, ""), ...end };
  }
  // Backslashes are slashes, and any number of them begins the authority.
  const [, authority, path] = /^\/*([^/]*)(.*)$/s.exec(before.replaceAll("\\", "/"));
  const at = authority.lastIndexOf("@");
  const [user, ...secret] = at < 0 ? [""] : authority.slice(0, at).split(":");
  const address = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority.slice(at + 1));
  if (address === null) return null;
  const hostname = parseHost(address[1]);
  const port = address[2] ? String(Number(address[2])) : "";
  if (hostname === null || Number(port) > 65535) return null;
  return {
    protocol,
    username: encode(user, IN_USER),
    password: encode(secret.join(":"), IN_USER),
    hostname,
    port: port === PORTS[protocol] ? "" : port,
    pathname: normalise(encode(path, IN_PATH)),
    ...end,
  };
}

function parseHost(text) {
  if (/^\[[0-9a-f:.]+\]$/i.test(text)) return text.toLowerCase();
  let host = text;
  try {
    host = decodeURIComponent(text);
  } catch {
    return null;
  }
  return host === "" || /[\s#%/:<>?@[\\\]^|\x00-\x20\x7f-\uffff]/.test(host) ? null : host.toLowerCase();
}

function relative(text, base) {
  if (base.hostname === "") return null;
  if (/^[/\\]{2}/.test(text)) return parse(base.protocol + text);
  const [, path, search, hash = ""] = /^([^?#]*)(\?[^#]*)?(#.*)?$/s.exec(text);
  const user = base.href.slice(0, base.href.indexOf(base.host, base.protocol.length + 2) + base.host.length);
  if (path === "") return parse(`${user}${base.pathname}${search ?? base.search}${hash}`);
  const slashed = path.replaceAll("\\", "/");
  const folder = base.pathname.slice(0, base.pathname.lastIndexOf("/") + 1);
  return parse(`${user}${slashed.startsWith("/") ? slashed : folder + slashed}${search ?? ""}${hash}`);
}

/** A path without dot segments, which begins with a slash. */
function normalise(path) {
  const segments = [];
  const all = path.replaceAll("\\", "/").replace(/^\//, "").split("/");
  all.forEach((segment, index) => {
    const plain = segment.replace(/%2e/gi, ".");
    const last = index === all.length - 1;
    if (plain === "..") {
      segments.pop();
      if (last) segments.push("");
    } else if (plain === ".") {
      if (last) segments.push("");
    } else {
      segments.push(segment);
    }
  });
  return `/${segments.join("/")}`;
}
