// What is bundled for QuickJS: the user's module, handed to the adapter, which is
// in the component already. `$whit` is the parameter of the function that the
// bundle becomes (build.mjs), `load` in quickjs.js calls it.

import * as module from "whit:function";

$whit.define(module);
