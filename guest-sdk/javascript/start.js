// What has to be in place before the user's module is evaluated.

import { getEnvironment } from "wasi:cli/environment@0.2.10";
import { lazyEnvironment } from "./runtime.js";

let started = false;
let hasListener = false;

/** Called when a request is there: from now on the host answers imports. */
export function begin() {
  started = true;
}

/** Whether the module has registered its own `fetch` listener. */
export function registered() {
  return hasListener;
}

/** The function's variables and secrets. */
export const env = lazyEnvironment(getEnvironment, () => started);

// Packages ask for process.env.NODE_ENV while they are evaluated.
globalThis.process ??= { env };

const listen = globalThis.addEventListener;
globalThis.addEventListener = (type, listener, ...rest) => {
  if (type !== "fetch") {
    return listen(type, listener, ...rest);
  }
  hasListener = true;
  return listen(type, (event) => {
    begin();
    return listener(event);
  }, ...rest);
};
