// TextEncoder and TextDecoder, for UTF-8. A loop over characters costs an
// interpreter a hundred times what its own functions take, so those do the work:
// between text and "binary" strings, whose units are bytes, and between these and
// bytes by way of base64.

const ASCII = /^[\x00-\x7f]*$/;
const CHUNK = 8192;

const toUnits = (binary) => Uint8Array.from(binary, (unit) => unit.charCodeAt(0));
const fromBinary = Uint8Array.fromBase64 ? (binary) => Uint8Array.fromBase64(btoa(binary)) : toUnits;
const toBinary = Uint8Array.prototype.toBase64 ? (bytes) => atob(bytes.toBase64()) : fromUnits;

function fromUnits(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    binary += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK));
  }
  return binary;
}

export class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(text = "") {
    text = String(text);
    // Half of a pair is no character.
    return fromBinary(ASCII.test(text) ? text : unescape(encodeURIComponent(text.toWellFormed())));
  }

  encodeInto(text, bytes) {
    let read = 0;
    let written = 0;
    for (const character of text) {
      let code = character.codePointAt(0);
      // Half of a pair is no character.
      if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
      const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      if (written + size > bytes.length) break;
      if (size === 1) {
        bytes[written++] = code;
      } else {
        bytes[written++] = [0, 0, 0xc0, 0xe0, 0xf0][size] | (code >> (6 * (size - 1)));
        for (let left = size - 2; left >= 0; left--) {
          bytes[written++] = 0x80 | ((code >> (6 * left)) & 0x3f);
        }
      }
      read += character.length;
    }
    return { read, written };
  }
}

export class TextDecoder {
  #fatal;
  #keepMark;
  #pending = new Uint8Array(0);
  #begun = false;

  constructor(encoding = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    if (!/^(utf-?8|unicode-1-1-utf-8)$/i.test(String(encoding).trim())) {
      throw new RangeError(`the encoding ${encoding} is not supported here; utf-8 is`);
    }
    this.#fatal = Boolean(fatal);
    this.#keepMark = Boolean(ignoreBOM);
  }

  get encoding() {
    return "utf-8";
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#keepMark;
  }

  decode(input, { stream = false } = {}) {
    const fresh = input === undefined ? new Uint8Array(0) : toBytes(input);
    const bytes = this.#pending.length === 0 ? fresh : concat([this.#pending, fresh]);
    const end = stream ? bytes.length - incomplete(bytes) : bytes.length;
    this.#pending = bytes.slice(end);
    let text = this.#decode(bytes, end);
    if (!this.#begun && text.length > 0) {
      if (!this.#keepMark && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
      this.#begun = true;
    }
    if (!stream) this.#begun = false;
    return text;
  }

  #decode(bytes, end) {
    const binary = toBinary(end === bytes.length ? bytes : bytes.subarray(0, end));
    if (ASCII.test(binary)) return binary;
    try {
      return decodeURIComponent(escape(binary));
    } catch {
      if (this.#fatal) throw new TypeError("the bytes are not UTF-8");
      return this.#mend(bytes, end);
    }
  }

  /** Decodes what has bytes that are no characters, each of which counts as U+FFFD. */
  #mend(bytes, end) {
    const parts = [];
    let units = [];
    const push = (code) => {
      if (code > 0xffff) {
        units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + (code & 0x3ff));
      } else {
        units.push(code);
      }
      if (units.length > 4096) {
        parts.push(String.fromCharCode(...units));
        units = [];
      }
    };
    for (let at = 0; at < end; ) {
      const first = bytes[at++];
      if (first < 0x80) {
        push(first);
        continue;
      }
      const more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
      let code = first & (0x3f >> more);
      let seen = 0;
      while (seen < more && at < end && allowed(first, bytes[at], seen)) {
        code = (code << 6) | (bytes[at++] & 0x3f);
        seen++;
      }
      push(first < 0xc2 || first > 0xf4 || seen < more ? 0xfffd : code);
    }
    parts.push(String.fromCharCode(...units));
    return parts.join("");
  }
}

/** Whether a byte may follow in a sequence: no overlong forms, no surrogates. */
function allowed(first, byte, seen) {
  if (first < 0xc2 || first > 0xf4) return false;
  if (seen === 0) {
    if (first === 0xe0) return byte >= 0xa0 && byte <= 0xbf;
    if (first === 0xed) return byte >= 0x80 && byte <= 0x9f;
    if (first === 0xf0) return byte >= 0x90 && byte <= 0xbf;
    if (first === 0xf4) return byte >= 0x80 && byte <= 0x8f;
  }
  return (byte & 0xc0) === 0x80;
}

/** How many bytes at the end begin a sequence that goes on. */
function incomplete(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if ((byte & 0xc0) === 0x80) continue;
    const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    return size > back ? back : 0;
  }
  return 0;
}

export function toBytes(value) {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  throw new TypeError("bytes are needed: an ArrayBuffer or a view of one");
}

export function concat(pieces) {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
