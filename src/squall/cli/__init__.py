"""The command line: one file a command, heavy imports inside the command.

Nothing is decided in here: a command reads its options, calls one room below, and prints. `main` is the entry point,
`app` the list of commands, `exits` what becomes of errors, `printing` the two ways to print.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line that sys.argv holds."""
    if sys.argv[1:] == ["--version"]:  # answered before anything is imported
        import squall

        sys.stdout.write(f"squall {squall.__version__}\n")
        return
    from squall.cli.app import squall_command

    squall_command(prog_name="squall")
