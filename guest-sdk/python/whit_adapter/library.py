"""Keeps the standard library at hand. A component has no file system to import
from: what was not imported when it was built could not be imported at all, and
the library imports much when it is called, `heapq` for one in
`Counter.most_common`. So the sources of what is not there are kept, compressed,
and compiled by who imports them. That takes some milliseconds in each request;
what a function's own files import is there before.
"""

import json
import os
import sys
import zlib
from importlib.machinery import ModuleSpec

# Of no use without a terminal, a display, a browser or other processes.
LEFT_OUT = {
    "__phello__", "_pyrepl", "curses", "ensurepip", "idlelib", "lib2to3", "multiprocessing",
    "pydoc_data", "site-packages", "test", "tkinter", "turtle", "turtledemo", "venv",
}


def keep(folder=None):
    """Keeps what is in the library and was not imported yet."""
    # Not of `os`: that is part of the interpreter, and its file is nowhere.
    sys.meta_path.append(Library(folder or os.path.dirname(os.path.dirname(json.__file__))))


class Library:
    """Finds and loads modules whose sources are in memory."""

    def __init__(self, folder):
        self._modules = dict(modules(folder))

    def find_spec(self, module, path=None, target=None):
        if module not in self._modules:
            return None
        file, is_package, _ = self._modules[module]
        spec = ModuleSpec(module, self, origin=file, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(os.path.dirname(file))
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, module):
        return compile(self._text(module), self._modules[module][0], "exec", dont_inherit=True)

    def get_source(self, module):
        """For tracebacks."""
        return self._text(module).decode()

    def is_package(self, module):
        return self._modules[module][1]

    def _text(self, module):
        return zlib.decompress(self._modules[module][2])


def modules(folder):
    """The name of each module that is not loaded, with its file, whether it is a
    package, and its text, compressed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and name.isidentifier()]
        for file in files:
            name, extension = os.path.splitext(file)
            if extension != ".py" or not name.isidentifier() or name in LEFT_OUT:
                continue
            parts = [part for part in os.path.relpath(place, folder).split(os.sep) if part != "."]
            is_package = name == "__init__"
            module = ".".join(parts if is_package else [*parts, name])
            if module and module not in sys.modules:
                path = os.path.join(place, file)
                with open(path, "rb") as source:
                    yield module, (path, is_package, zlib.compress(source.read(), 9))
