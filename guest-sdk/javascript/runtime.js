// The part of the adapter that knows nothing of a component, and so is tested
// under plain Node.js: from what a module exports to an answer for a request.

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/**
 * The function `(request, env, context) => Response` of a module, or undefined
 * when it exports none. In this order:
 *
 * - `export default { fetch(request, env, context) {} }`: Workers, Hono, Deno
 * - `export default function (request) {}`
 * - `export function fetch(request) {}`
 * - `export function GET(request) {}` and so on, by method
 */
export function findHandler(module) {
  const main = module.default;
  if (typeof main?.fetch === "function") {
    return (...parameters) => main.fetch(...parameters);
  }
  if (typeof main === "function") {
    return main;
  }
  if (typeof module.fetch === "function") {
    return module.fetch;
  }
  if (METHODS.some((method) => typeof module[method] === "function")) {
    return (request, ...rest) => answerByMethod(module, request, rest);
  }
  return undefined;
}

async function answerByMethod(module, request, rest) {
  const handler = module[request.method];
  if (typeof handler === "function") {
    return handler(request, ...rest);
  }
  if (request.method === "HEAD" && typeof module.GET === "function") {
    const { status, headers } = await module.GET(request, ...rest);
    return new Response(null, { status, headers });
  }
  const allowed = METHODS.filter((method) => typeof module[method] === "function");
  return new Response(`${request.method} is not allowed\n`, {
    status: 405,
    headers: { allow: allowed.join(", "), "content-type": "text/plain; charset=utf-8" },
  });
}

/**
 * Calls a handler. What goes wrong in it becomes a 500 for the caller, who
 * learns nothing more, and an error with its stack in the log.
 */
export async function answer(handler, request, env, context) {
  try {
    const response = await handler(request, env, context);
    if (response instanceof Response) {
      return response;
    }
    throw new TypeError(`the function returned ${describe(response)}, not a Response`);
  } catch (error) {
    console.error(error instanceof Error ? `${error}\n${error.stack ?? ""}` : error);
    return new Response("the function failed\n", {
      status: 500,
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
  }
}

function describe(value) {
  if (value === null || typeof value !== "object") {
    return String(value);
  }
  return `an object of ${value.constructor?.name ?? "no class"}`;
}

/**
 * An object with the variables that `read()` gives as pairs, read when the
 * first one is asked for, but not before `ready()`: a module's top level runs
 * when the component is built, where there is no environment yet.
 */
export function lazyEnvironment(read, ready) {
  const own = {};
  let complete = false;
  const variables = () => {
    if (!complete && ready()) {
      complete = true;
      for (const [name, value] of read()) {
        own[name] ??= value;
      }
    }
    return own;
  };
  return new Proxy(own, {
    get: (_, name) => variables()[name],
    has: (_, name) => name in variables(),
    ownKeys: () => Reflect.ownKeys(variables()),
    getOwnPropertyDescriptor: (_, name) => Object.getOwnPropertyDescriptor(variables(), name),
  });
}

/**
 * `Math.random` for one request. An engine's own goes on from where it was when
 * the component was built, and so begins with the same numbers in each. `seed()`
 * gives four numbers of 32 bits; it is asked when the first number is wanted.
 */
export function randomBy(seed) {
  let state;
  // sfc32, of Chris Doty-Humphrey's PractRand.
  const next = () => {
    let [a, b, c, count] = state;
    const sum = (a + b + count) | 0;
    state = [b ^ (b >>> 9), (c + (c << 3)) | 0, (((c << 21) | (c >>> 11)) + sum) | 0, (count + 1) | 0];
    return sum >>> 0;
  };
  return () => {
    if (state === undefined) {
      state = seed();
      for (let round = 0; round < 12; round++) next();
    }
    return (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
  };
}
