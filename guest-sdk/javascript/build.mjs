// The part of a JavaScript build that runs on Node.js:
//
//   node build.mjs bundle --entry FILE --output FILE --work FOLDER --tools FOLDER [--modules FOLDER]
//   node build.mjs template --output FILE --work FOLDER --tools FOLDER
//   node build.mjs component --entry FILE --output FILE --work FOLDER --tools FOLDER [--modules FOLDER]
//
// For QuickJS, `bundle` makes one text of a module with a handler and all that it
// imports, and `template` the component that the host's build then evaluates it
// in. For StarlingMonkey, `component` does all.
//
// --tools has node_modules with rolldown and the engines; --modules is a
// node_modules folder to look in besides those above the entry. The WIT of WASI
// 0.2 and 0.3 is expected in wit-0.2/ and wit-0.3/ beside this file.

import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));

// StarlingMonkey's fetch event is bound to this version, whatever the world
// says. The interfaces of the versions since are the same.
const ENGINE_WASI_VERSION = "0.2.10";

// QuickJS brings imports of 0.2.12 of its own, and no two may have one name.
const RENAMED_WASI_VERSION = "0.2.10";

const WASI = /^was[ij]:/;

/** As in quickjs.js. */
const GIVEN = [
  "wasi:cli/environment@0.3.0",
  "wasi:clocks/monotonic-clock@0.3.0",
  "wasi:http/types@0.3.0",
  "wasi:random/random@0.3.0",
];

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      entry: { type: "string" },
      output: { type: "string" },
      work: { type: "string" },
      tools: { type: "string" },
      modules: { type: "string" },
    },
  });
  const options = { ...values, tools: resolve(values.tools), work: resolve(values.work) };
  writeFileSync(values.output, await COMMANDS[positionals[0]](options));
}

const COMMANDS = {
  /** A function expression, whose parameter is what `quickjs.js` gives it. */
  async bundle(options) {
    const code = await bundle(options, "quickjs-function.js", {
      plugins: [given()],
      transform: { define: { "import.meta": "$whit.meta" } },
    });
    // Above each file's part the bundler puts its name, but not if there is one only.
    return `(async ($whit) => { "use strict";\n// ${basename(options.entry)}\n${code}\n})`;
  },

  async template({ tools, work }) {
    const { rolldown } = await load(tools, "rolldown");
    const build = await rolldown({ input: join(here, "quickjs.js"), platform: "neutral", external: WASI });
    const { output } = await build.generate({ format: "esm", codeSplitting: false });
    await build.close();
    const { componentize } = createRequire(join(tools, "node_modules/"))("componentize-qjs");
    const { component } = await componentize({
      witPath: writeQuickjsWit(join(work, "wit-quickjs")),
      jsSource: output[0].code,
      world: "function",
    });
    return nameImports(component);
  },

  async component(options) {
    const { tools, work } = options;
    const code = await bundle(options, "adapter.js", { external: WASI });
    // The same program on the same engine is the same component: not made again,
    // which is quicker, and no new revision for a host.
    const bundlePath = join(work, "bundle.js");
    const kept = join(work, "built.wasm");
    const mark = `// starlingmonkey, ${statSignature(tools)}\n`;
    if (!existsSync(kept) || readIfThere(bundlePath) !== mark + code) {
      rmSync(kept, { force: true });
      writeFileSync(bundlePath, mark + code);
      const { componentize } = await load(tools, "@bytecodealliance/componentize-js");
      const { component } = await componentize({
        sourcePath: bundlePath,
        witPath: writeWit(join(work, "wit")),
        worldName: "function",
      });
      writeFileSync(kept, component);
    }
    return readFileSync(kept);
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
async function bundle({ tools, entry, modules, work }, adapter, { plugins = [], ...further }) {
  const { rolldown } = await load(tools, "rolldown");
  const folder = dirname(resolve(entry));
  const unresolved = [];
  const inputs = new Set();
  const refused = new Refused(folder);
  const build = await rolldown({
    input: join(here, adapter),
    cwd: folder,
    plugins: [refused.plugin(), reader(inputs), ...plugins],
    platform: "neutral",
    ...further,
    resolve: {
      alias: { "whit:function": resolve(entry) },
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
    // What fails after a refusal may fail for its sake.
    const { output } = await build.generate({ format: "esm", codeSplitting: false }).finally(() => refused.check());
    if (unresolved.length > 0) {
      // For the bundler a warning; here the import would fail on every call.
      throw new Error(unresolved.join("\n"));
    }
    return output[0].code;
  } finally {
    // A file with a mistake in it is one to watch, too.
    writeFileSync(join(work, "inputs.txt"), [...inputs].join("\n"));
    await build.close();
  }
}

/** Notes the files that are read, but for those of packages and the adapter. */
function reader(inputs) {
  const filter = { id: { exclude: /[\\/]node_modules[\\/]/ } };
  const note = (id) => void (id.startsWith(here) || id.startsWith("\0") || inputs.add(id));
  return { name: "reader", load: { filter, handler: note } };
}

/** A bundle that is evaluated has no imports: those of the host are given to it. */
function given() {
  const prefix = "\0given:";
  return {
    name: "given",
    resolveId: { filter: { id: WASI }, handler: (source) => prefix + source },
    load: {
      filter: { id: new RegExp(`^${prefix}`) },
      handler(id) {
        const name = id.slice(prefix.length);
        if (!GIVEN.includes(name)) throw new Error(`${name} is not there for functions on QuickJS`);
        return `module.exports = $whit.imports[${JSON.stringify(name)}];`;
      },
    },
  };
}

/** Finds what can not run in a component: native code, and Node.js itself. */
class Refused {
  #folder;
  #lines = new Set();
  #builtins = new Map();

  constructor(folder) {
    this.#folder = folder;
  }

  plugin() {
    const refused = this;
    return {
      name: "what can not run in a component",
      resolveId: {
        filter: { id: /\.node$|^node:|^[a-z_\d/]+$/ },
        async handler(source, importer) {
          if (source.endsWith(".node")) {
            refused.#native(importer, source);
            return { id: source, external: true };
          }
          // A package may have the name of a builtin, and stands for it then.
          if (!isBuiltin(source) || (await this.resolve(source, importer, { skipSelf: true }))) return null;
          const who = refused.#owner(importer);
          refused.#builtins.set(who, (refused.#builtins.get(who) ?? new Set()).add(source));
          return { id: source, external: true };
        },
      },
      load: {
        filter: { id: /[\\/]node_modules[\\/]/ },
        handler(id) {
          const sign = nativeSign(packageFolder(id));
          if (sign === undefined) return null;
          refused.#native(id, sign);
          return "module.exports = {};";
        },
      },
    };
  }

  /** One line for each package that is to blame. */
  check() {
    for (const [who, modules] of this.#builtins) {
      const names = [...modules].sort().join(", ");
      this.#lines.add(`${who} needs Node.js itself (${names}), which is not there in a component; functions have the APIs of the web platform`);
    }
    if (this.#lines.size > 0) throw new Error([...this.#lines].join("\n"));
  }

  #native(file, sign) {
    this.#lines.add(`${this.#owner(file)} has native code (${sign}), which does not run in a component`);
  }

  /** The package that a file belongs to, or the user's own file. */
  #owner(file) {
    const folder = packageFolder(file);
    return folder === undefined ? relative(this.#folder, file) : folder.replace(/.*[\\/]node_modules[\\/]/, "");
  }
}

/** The folder of the package that a file lies in, if it lies in one. */
function packageFolder(file) {
  return /^.*[\\/]node_modules[\\/](@[^\\/]+[\\/])?[^\\/]+/.exec(file)?.[0];
}

/** What in a package says that it is compiled for the machine. */
function nativeSign(folder) {
  if (existsSync(join(folder, "binding.gyp"))) return "binding.gyp";
  const manifest = JSON.parse(readIfThere(join(folder, "package.json")) ?? "{}");
  if (manifest.gypfile || manifest.napi) return manifest.gypfile ? "gypfile" : "napi";
  const loaders = ["bindings", "node-gyp-build", "node-pre-gyp", "@mapbox/node-pre-gyp", "prebuild-install"];
  return loaders.find((loader) => loader in (manifest.dependencies ?? {}));
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

/**
 * Gives the imports of a component that are called `wasj` their real name, of the
 * same length: see wit/quickjs.wit. Names inside of it are its own affair.
 */
function nameImports(component) {
  const IMPORT_SECTION = 10;
  for (let at = 8; at < component.length; ) {
    const id = component[at++];
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = component[at++];
      size |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    const section = component.subarray(at, at + size);
    if (id === IMPORT_SECTION) {
      for (let found = -1; (found = section.indexOf("wasj:", found + 1)) >= 0; ) section.write("wasi:", found);
    }
    at += size;
  }
  return component;
}

/** The world of a function on QuickJS: both versions of WASI side by side. */
function writeQuickjsWit(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "deps"), { recursive: true });
  cpSync(join(here, "wit/quickjs.wit"), join(folder, "function.wit"));
  const copy = (version, name, file) => {
    const text = readFileSync(join(here, version, file), "utf8");
    mkdirSync(join(folder, "deps", name));
    const named = text.replaceAll("wasi:", "wasj:").replaceAll("0.2.12", RENAMED_WASI_VERSION);
    writeFileSync(join(folder, "deps", name, "package.wit"), version === "wit-0.2" ? named : text);
  };
  for (const version of ["wit-0.2", "wit-0.3"]) {
    copy(version, `${version}-http`, "http.wit");
    for (const name of readdirSync(join(here, version, "deps"))) copy(version, `${version}-${name}`, join("deps", name));
  }
  return folder;
}

main().catch((error) => {
  // The message says what is wrong with the function; a stack would only show
  // this build's own insides.
  console.error(error?.message ?? String(error));
  process.exitCode = 1;
});
