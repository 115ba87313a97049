// The module that a component starts from: connects the `fetch` event to the
// function. `whit:function` stands for the user's module; the bundler knows it.
//
// `start.js` must stay the first import: it has to be there before the top
// level of the user's module runs.

import { env, registered, begin } from "./start.js";
import * as module from "whit:function";
import { answer, findHandler } from "./runtime.js";

const handler = findHandler(module);

if (handler !== undefined) {
  addEventListener("fetch", (event) => {
    begin();
    const context = {
      waitUntil: (promise) => event.waitUntil(promise),
      passThroughOnException: () => {},
    };
    event.respondWith(answer(handler, event.request, env, context));
  });
} else if (!registered()) {
  throw new Error(
    "the module has no handler: export default { fetch(request) {…} } or a function, or call addEventListener('fetch', …)",
  );
}
