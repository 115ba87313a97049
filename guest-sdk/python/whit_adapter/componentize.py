"""Runs componentize-py, and tells its errors in terms of the function's own
files. Runs at build time: `python -m whit_adapter.componentize`, with the
arguments of componentize-py.
"""

import pathlib
import sys

from . import immortal, native


def main():
    import componentize_py

    sys.argv[0] = "componentize-py"
    try:
        ended = componentize_py.script()
    except AssertionError as error:
        # Its own stack below the message would only show how it was started.
        sys.exit(explain(str(error), values(sys.argv, "-p")))
    if not ended:
        for output in values(sys.argv, "-o", "--output"):
            finish(pathlib.Path(output))
    sys.exit(ended)


def finish(path):
    component = bytearray(path.read_bytes())
    if immortal.apply(component):
        path.write_bytes(component)


def values(arguments, *flags):
    return [value for flag, value in zip(arguments, arguments[1:]) if flag in flags]


def explain(text, paths):
    """The message with the paths of this machine: inside, the folders of the
    Python path are called /0, /1 and so on."""
    refusal = native.refusal(text)
    if refusal is not None:
        return refusal
    text, _, _ = text.partition("\n\nCaused by:")
    for number, path in enumerate(paths):
        text = text.replace(f'File "/{number}/', f'File "{path}/')
    return text.rstrip()


if __name__ == "__main__":
    main()
