"""Writes the module that a component starts from. Runs at build time, under
the machine's own Python: `python -m whit_adapter.entry --help`.

A component has no file system to import from, so a module that a function
imports only when it is called has to be in memory before. Those imports are
found in the sources and made by the module that is written here.
"""

import argparse
import ast
import json
import sys
from pathlib import Path

from . import native

TEMPLATE = '''\
"""Written by the build; changes are lost."""
from whit_adapter import library, native, warm, wasi

native.refuse({native!r})

{load}

for name in {lazy!r}:
    try:
        __import__(name)
    except ImportError:
        # Optional there, so optional here.
        pass

IncomingHandler = wasi.incoming_handler(function)
library.keep()
warm.warm_up()
'''

PLAIN = "import {module} as function"

# `[id].py` is a fine name for a route and none for a module.
BY_FILE = '''\
import importlib.util
import os
import sys

path = next(path for path in (os.path.join(folder, {file!r}) for folder in sys.path) if os.path.isfile(path))
spec = importlib.util.spec_from_file_location("function", path)
function = importlib.util.module_from_spec(spec)
sys.modules["function"] = function
spec.loader.exec_module(function)
'''


# Modules that the standard library imports when one of these is called.
CALLED = {"strptime": "_strptime", "most_common": "heapq"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="the function's folder")
    parser.add_argument("--module", required=True, help="its module that holds the handler")
    parser.add_argument("--native", type=Path, help="what `packages` has left out")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    arguments = parser.parse_args()
    native_modules = json.loads(arguments.native.read_text()) if arguments.native else {}
    try:
        text = entry(arguments.source, arguments.module, native_modules)
    except SyntaxError as error:
        print(f'  File "{error.filename}", line {error.lineno}', file=sys.stderr)
        print(f"    {(error.text or '').strip()}", file=sys.stderr)
        sys.exit(f"SyntaxError: {error.msg}")
    if not arguments.output.exists() or arguments.output.read_text() != text:
        arguments.output.write_text(text)


def entry(source, module, native_modules=None):
    """The text of the entry module."""
    native_modules = native_modules or {}
    lazy = set()
    for path in sorted(source.rglob("*.py")):
        if is_source(path.relative_to(source)):
            try:
                tree = ast.parse(path.read_bytes(), filename=str(path))
            except SyntaxError:
                # A broken file that nothing imports must not stop a build.
                if path.stem == module:
                    raise
                continue
            lazy |= lazy_imports(tree) | called_imports(tree)
            if path.stem == module:
                refuse_native(tree, native_modules)
    load = PLAIN if module.isidentifier() else BY_FILE
    return TEMPLATE.format(load=load.format(module=module, file=f"{module}.py"), lazy=sorted(lazy), native=native_modules)


def is_source(path):
    hidden = any(part.startswith(".") or part in ("__pycache__", "node_modules") for part in path.parts)
    return not hidden and not path.name.startswith("test_")


def refuse_native(tree, native_modules):
    """Ends the build if a file's first imports are of native code: freezing it
    would fail on them, but seconds later."""
    for name in sorted(imported(tree.body) & native_modules.keys()):
        file, package = native_modules[name]
        sys.exit(native.REFUSAL.format(module=name, file=file, package=package))


def lazy_imports(tree):
    """The absolute names of the modules that functions in a file import."""
    functions = (
        node for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    )
    return imported(inner for function in functions for inner in ast.walk(function))


def called_imports(tree):
    """The modules that the standard library imports when what a file names is called."""
    named = (node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {CALLED[name] for name in named if name in CALLED}


def imported(nodes):
    """The absolute names of the modules that statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from package import module` may name a module or a value of one.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*"}
    return names


if __name__ == "__main__":
    main()
