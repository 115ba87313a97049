// fetch, but for the sending: what a request becomes, where redirections lead,
// when it is given up.

import { Headers, Request, Response } from "./http.js";
import { URL } from "./url.js";

/** As the Fetch standard has it. */
const REDIRECTS_MAX = 20;
const REDIRECTIONS = [301, 302, 303, 307, 308];
const BODYLESS = [204, 205, 304];
/** Fields that are meant for one server alone. */
const PRIVATE = ["authorization", "cookie", "proxy-authorization"];

/**
 * A `fetch` that sends by `send({ method, url, headers, body }, signal)`, which
 * promises `{ status, headers, body }`: headers as pairs, a body as an iterable
 * of bytes.
 */
export function fetchBy(send) {
  return async function fetch(input, init) {
    const request = input instanceof Request && init === undefined ? input : new Request(input, init);
    const { signal } = request;
    signal?.throwIfAborted();
    let { method } = request;
    let url = new URL(request.url);
    const headers = new Headers(request.headers);
    let body = await request.bytes();
    for (let redirects = 0; ; redirects++) {
      if (url.protocol !== "http:" && url.protocol !== "https:") {
        throw new TypeError(`fetch failed: ${url.protocol} is not http: or https:`);
      }
      const answer = await send({ method, url, headers, body }, signal);
      const received = new Headers(answer.headers);
      const location = REDIRECTIONS.includes(answer.status) ? received.get("location") : null;
      if (location === null || request.redirect === "manual") {
        return respond(answer, received, url, redirects > 0);
      }
      // What it says besides is not wanted.
      await answer.body.return?.();
      if (request.redirect === "error") throw new TypeError(`fetch failed: ${url.href} is redirected`);
      if (redirects === REDIRECTS_MAX) throw new TypeError(`fetch failed: more than ${REDIRECTS_MAX} redirections`);
      const next = new URL(location, url.href);
      if (answer.status === 303 ? !["GET", "HEAD"].includes(method) : answer.status < 303 && method === "POST") {
        method = "GET";
        body = new Uint8Array(0);
        for (const name of ["content-encoding", "content-language", "content-location", "content-type"]) {
          headers.delete(name);
        }
      }
      if (next.origin !== url.origin) PRIVATE.forEach((name) => headers.delete(name));
      url = next;
    }
  };
}

function respond({ status, body }, headers, url, redirected) {
  const isBodyless = BODYLESS.includes(status);
  if (isBodyless) body.return?.();
  const response = new Response(isBodyless ? null : body, { status, headers });
  response.url = url.href;
  response.redirected = redirected;
  return response;
}
