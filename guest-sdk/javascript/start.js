// What has to be in place before the user's module is evaluated.

import { getEnvironment } from "wasi:cli/environment@0.2.10";
import { lazyEnvironment, randomBy } from "./runtime.js";

let started = false;
let hasListener = false;

// While a component is built there is no chance, and the engine's own would trap.
let draw = randomBy(() => [1, 2, 3, 4]);
// In place from the start: a module may keep it at its top level.
Math.random = () => draw();

/** Called when a request is there: from now on the host answers imports. */
export function begin() {
  started = true;
  draw = randomBy(() => crypto.getRandomValues(new Uint32Array(4)));
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
