"""Installs what a function's requirements.txt asks for. Runs at build time, under
the machine's own Python: `python -m whit_adapter.packages --help`.

Native code is left out, and where a package would have to be compiled there is
no compiler: one that can do without it installs its Python alone.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = (".so", ".pyd", ".dylib")
# Names under which packages look for what makes native code.
COMPILERS = (
    "cc", "gcc", "clang", "c++", "g++", "clang++", "gfortran", "cargo", "rustc",
    "x86_64-linux-gnu-gcc", "x86_64-linux-gnu-g++", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++",
)
# Leaves a mark, so that a failure without it is not taken for one of these.
NO_COMPILER = '#!/bin/sh\n: >"{mark}"\necho "no compiler here: native code does not run in a component" >&2\nexit 1\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requirements", type=Path, required=True, help="the requirements.txt")
    parser.add_argument("--target", type=Path, required=True, help="the folder to install into")
    parser.add_argument("--native", type=Path, required=True, help="the file that gets what was left out, as JSON")
    arguments = parser.parse_args()
    failure = install(arguments.requirements, arguments.target)
    if failure is not None:
        sys.exit(failure)
    arguments.native.write_text(json.dumps(remove_native_code(arguments.target)))


def install(requirements, target):
    """Runs pip; what is wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder, "mark")
        for name in COMPILERS:
            compiler = Path(folder, name)
            compiler.write_text(NO_COMPILER.format(mark=mark))
            compiler.chmod(0o755)
        environment = dict(os.environ, CC="cc", CXX="c++", PATH=f"{folder}:{os.environ.get('PATH', '')}")
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
             "--prefer-binary", "--progress-bar", "off", "--target", target, "--requirement", requirements],
            env=environment,
            # Paths in the file are meant from where it lies.
            cwd=requirements.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if pip.returncode == 0:
            return None
        package = failed_package(pip.stdout) if mark.exists() else None
    if package is None:
        return pip.stdout.rstrip()
    return f"{package} has to be compiled to native code, which does not run in a component"


def failed_package(output):
    """Which package pip could not build."""
    built = re.findall(r"Failed building wheel for (\S+)", output)
    begun = re.findall(r"^(?:Collecting|Processing) (\S+)", output, re.MULTILINE)
    # A path of a local package is as good as its name.
    return (built or begun[-1:] or [None])[0]


def remove_native_code(target):
    """Removes native files; the modules that they were, each with its file and
    the package that it came with."""
    removed = {}
    owners = owner_of_files(target)
    for path in sorted(target.rglob("*")):
        file = path.relative_to(target).as_posix()
        if path.suffix not in NATIVE and ".so." not in path.name:
            continue
        path.unlink()
        # The tags of interpreter and machine are no part of the name.
        module = ".".join((*Path(file).parent.parts, path.name.partition(".")[0]))
        removed[module] = (file, owners.get(file, file.partition("/")[0]))
    return removed


def owner_of_files(target):
    """The packages of all files that were installed."""
    owners = {}
    for record in target.glob("*.dist-info/RECORD"):
        # NAME-VERSION.dist-info
        package = record.parent.name.partition("-")[0]
        with record.open(newline="") as lines:
            owners.update((row[0], package) for row in csv.reader(lines) if row)
    return owners


if __name__ == "__main__":
    main()
