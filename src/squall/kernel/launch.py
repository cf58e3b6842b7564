"""Starts a module of Squall in a bare interpreter: `python -I -S launch.py MODULE ARGUMENTS...`.

-I and -S keep the user's environment and site-packages out, so that what recovers depends on nothing that can be
broken; a module that needs site-packages is started with -I alone. `command` builds the argv.
"""

import os
import sys

_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(module: str, *arguments: str, site: bool = False) -> list[str]:
    """The argv that runs `module.main()` in an interpreter of its own; `site`: with site-packages."""
    return [sys.executable, "-I", *([] if site else ["-S"]), os.path.abspath(__file__), module, *arguments]


if __name__ == "__main__":
    sys.path.insert(0, _SOURCE)
    sys.argv = sys.argv[1:]
    import importlib

    sys.exit(importlib.import_module(sys.argv[0]).main())
