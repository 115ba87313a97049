// Makes a component of a module with a `fetch` handler:
//
//   node build.mjs --entry FILE --component FILE --work FOLDER --tools FOLDER
//     [--engine quickjs|starlingmonkey] [--modules FOLDER]
//
// --tools has node_modules with rolldown and the engines; --modules is a
// node_modules folder to look in besides those above the entry. The WIT of WASI
// 0.2 and 0.3 is expected in wit-0.2/ and wit-0.3/ beside this file.

import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
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
      engine: { type: "string", default: "quickjs" },
      modules: { type: "string" },
    },
  });
  const tools = resolve(values.tools);
  const work = resolve(values.work);
  const engine = ENGINES[values.engine];
  const { rolldown } = await load(tools, "rolldown");
  const code = await bundle(rolldown, engine.adapter, resolve(values.entry), values.modules);

  // The same program on the same engine is the same component: not made again,
  // which is quicker, and no new revision for a host.
  const bundlePath = join(work, "bundle.js");
  const kept = join(work, "built.wasm");
  const mark = `// ${values.engine}, ${statSignature(tools)}\n`;
  if (!existsSync(kept) || readIfThere(bundlePath) !== mark + code) {
    rmSync(kept, { force: true });
    writeFileSync(bundlePath, mark + code);
    writeFileSync(kept, await engine.componentize(tools, bundlePath, work));
  }
  copyFileSync(kept, values.component);
}

const ENGINES = {
  starlingmonkey: {
    adapter: "adapter.js",
    async componentize(tools, bundlePath, work) {
      const { componentize } = await load(tools, "@bytecodealliance/componentize-js");
      const { component } = await componentize({
        sourcePath: bundlePath,
        witPath: writeWit(join(work, "wit")),
        worldName: "function",
      });
      return component;
    },
  },
  quickjs: {
    adapter: "quickjs.js",
    async componentize(tools, bundlePath, work) {
      const { componentize } = createRequire(join(tools, "node_modules/"))("componentize-qjs");
      const { component } = await componentize({
        witPath: writeQuickjsWit(join(work, "wit-quickjs")),
        jsSource: readFileSync(bundlePath, "utf8"),
        world: "function",
      });
      return component;
    },
  },
};

function readIfThere(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

/** What a change of the tools changes. */
function statSignature(tools) {
  return readIfThere(join(tools, "package.json"))?.replaceAll(/\s+/g, " ") ?? "";
}

/** Imports a package from another folder's node_modules, which `import` cannot. */
function load(tools, name) {
  const folder = join(tools, "node_modules", name);
  const { exports, main } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const own = exports?.["."] ?? exports ?? main;
  return import(pathToFileURL(join(folder, own.import ?? own.default ?? own)).href);
}

/** One ES module of the adapter, the function and all that it imports. */
async function bundle(rolldown, adapter, entry, modules) {
  const unresolved = [];
  const build = await rolldown({
    input: join(here, adapter),
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

/** The world of a function on QuickJS: both versions of WASI side by side. */
function writeQuickjsWit(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "deps"), { recursive: true });
  cpSync(join(here, "wit/quickjs.wit"), join(folder, "function.wit"));
  for (const version of ["wit-0.2", "wit-0.3"]) {
    for (const name of readdirSync(join(here, version, "deps"))) {
      mkdirSync(join(folder, "deps", `${version}-${name}`));
      cpSync(join(here, version, "deps", name), join(folder, "deps", `${version}-${name}`, name));
    }
  }
  mkdirSync(join(folder, "deps", "http-0.3"));
  cpSync(join(here, "wit-0.3/http.wit"), join(folder, "deps", "http-0.3", "http.wit"));
  return folder;
}

main().catch((error) => {
  // The message says what is wrong with the function; a stack would only show
  // this build's own insides.
  console.error(error?.message ?? String(error));
  process.exitCode = 1;
});
