"""Says which package needs native code, where an import fails for the want of it.

Native code of this machine does not run in a component. Many packages have it
only to be quicker and do without where it is not there; of the others, the one
that is to blame should be named.
"""

import re
import sys

REFUSAL = "{module} is native code ({file}, of the package {package}), which does not run in a component"
_REFUSED = re.compile(r"\S+ is native code \(.*, of the package .*\), which does not run in a component")


def refuse(modules):
    """Explains imports of these modules, each with its file and package."""
    sys.meta_path.append(Refuser(modules))


def refusal(text):
    """The explanation in a traceback, or None: some packages raise a longer one
    of their own from it."""
    found = _REFUSED.search(text)
    return found and found.group()


class Refuser:
    """The last of the finders: what gets here, nobody has found."""

    def __init__(self, modules):
        self._modules = modules

    def find_spec(self, module, path=None, target=None):
        if module in self._modules:
            file, package = self._modules[module]
            # Without its name: one that names what `from package import module`
            # looks for is swallowed there.
            raise ModuleNotFoundError(REFUSAL.format(module=module, file=file, package=package))
        return None
