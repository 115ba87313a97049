// Makes a component of a module with a `fetch` handler:
//
//   node build.mjs --entry FILE --component FILE --work FOLDER --tools FOLDER [--modules FOLDER]
//
// --tools has node_modules with rolldown and componentize-js; --modules is a
// node_modules folder to look in besides those above the entry. The WIT of WASI
// 0.2 is expected in wit-0.2/ beside this file.

import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));

// StarlingMonkey's fetch event is bound to this version, whatever the world
// says. The interfaces of the versions since are the same.
const ENGINE_WASI_VERSION = "0.2.10";

async function main() {
  const { values } = parseArgs({
    options: {
      entry: { type: "string" },
      component: { type: "string" },
      work: { type: "string" },
      tools: { type: "string" },
      modules: { type: "string" },
    },
  });
  const tools = resolve(values.tools);
  const { rolldown } = await load(tools, "rolldown");
  const bundlePath = join(resolve(values.work), "bundle.js");
  writeFileSync(bundlePath, await bundle(rolldown, resolve(values.entry), values.modules));

  const { componentize } = await load(tools, "@bytecodealliance/componentize-js");
  const { component } = await componentize({
    sourcePath: bundlePath,
    witPath: writeWit(join(resolve(values.work), "wit")),
    worldName: "function",
  });
  writeFileSync(values.component, component);
}

/** Imports a package from another folder's node_modules, which `import` cannot. */
function load(tools, name) {
  const folder = join(tools, "node_modules", name);
  const { exports, main } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const own = exports?.["."] ?? exports ?? main;
  return import(pathToFileURL(join(folder, own.import ?? own.default ?? own)).href);
}

/** One ES module of the adapter, the function and all that it imports. */
async function bundle(rolldown, entry, modules) {
  const unresolved = [];
  const build = await rolldown({
    input: join(here, "adapter.js"),
    cwd: dirname(entry),
    platform: "neutral",
    external: /^wasi:/,
    resolve: {
      alias: { "whit:function": entry },
      mainFields: ["module", "main"],
      conditionNames: ["workerd", "worker", "import", "default"],
      modules: ["node_modules", ...(modules ? [resolve(modules)] : [])],
    },
    onLog(level, log, pass) {
      if (log.code === "UNRESOLVED_IMPORT") {
        unresolved.push(log.message);
      } else {
        pass(level, log);
      }
    },
  });
  try {
    const { output } = await build.generate({ format: "esm", codeSplitting: false });
    if (unresolved.length > 0) {
      // For the bundler a warning; here the import would fail on every call.
      throw new Error(unresolved.join("\n"));
    }
    return output[0].code;
  } finally {
    await build.close();
  }
}

/** The world of a function with its dependencies, in the engine's version. */
function writeWit(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "deps"), { recursive: true });
  cpSync(join(here, "wit/function.wit"), join(folder, "function.wit"));
  cpSync(join(here, "wit-0.2/http.wit"), join(folder, "deps/http.wit"));
  cpSync(join(here, "wit-0.2/deps"), join(folder, "deps"), { recursive: true });
  for (const file of [join(folder, "function.wit"), ...readdirSync(join(folder, "deps")).map((name) => join(folder, "deps", name))]) {
    writeFileSync(file, readFileSync(file, "utf8").replaceAll("0.2.12", ENGINE_WASI_VERSION));
  }
  return folder;
}

main().catch((error) => {
  // The message says what is wrong with the function; a stack would only show
  // this build's own insides.
  console.error(error?.message ?? String(error));
  process.exitCode = 1;
});
