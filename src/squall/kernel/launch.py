"""Starts a module of Squall in a bare interpreter: `python -I -S launch.py MODULE ARGUMENTS...`.

-I and -S keep the user's environment and site-packages out, so that what recovers depends on nothing that can be
broken; a module that needs site-packages is started with -I alone. `command` builds the argv. With STAND_BY as its only
argument the module is imported, its `stand_by()`, where it has one, does what takes time and touches nothing, and its
arguments are awaited as one line of JSON on standard input; the end of the input is the end of the wait.
"""

import os
import sys

STAND_BY = "--stand-by"
_ARGUMENTS_MOST = 1 << 20
_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(module: str, *arguments: str, site: bool = False) -> list[str]:
    """The argv that runs `module.main()` in an interpreter of its own; `site`: with site-packages."""
    return [sys.executable, "-I", *([] if site else ["-S"]), os.path.abspath(__file__), module, *arguments]


def _awaited() -> list[str]:
    """The arguments that come on standard input; leaves when none do. Not a byte after their line is read."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part or len(line) > _ARGUMENTS_MOST:
            sys.exit(0)
        line += part
    import json

    arguments: list[str] = json.loads(line)
    return arguments


if __name__ == "__main__":
    sys.path.insert(0, _SOURCE)
    sys.argv = sys.argv[1:]
    import importlib

    module = importlib.import_module(sys.argv[0])
    if sys.argv[1:] == [STAND_BY]:
        import contextlib

        with contextlib.suppress(Exception):  # what cannot be had is said when its time comes
            getattr(module, "stand_by", lambda: None)()
        sys.argv[1:] = _awaited()
    sys.exit(module.main())
