"""The command line: one file a command, heavy imports inside the command.

Nothing is decided in here: a command reads its options, calls one room below, and prints. `main` is the entry point,
`app` the list of commands, `exits` what becomes of errors, `printing` the two ways to print.
"""

from __future__ import annotations

import io
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line that sys.argv holds."""
    _open_standard_streams()
    if sys.argv[1:] == ["--version"]:  # answered before anything is imported
        import squall

        sys.stdout.write(f"squall {squall.__version__}\n")
        return
    from squall.cli.app import squall_command

    squall_command(prog_name="squall")


def _open_standard_streams() -> None:
    """Three streams that take everything: a closed one would give its number to a journal or a pidfd, and break prints.

    What the terminal's encoding does not have is printed as a question mark.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
