"""What becomes of errors, and the look for orphaned runs that comes before most commands.

Exit status: 0 passed, 1 failed, 2 wrong input, 3 aborted, 4 could not inject, 5 residue, 6 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

from squall.errors import SquallError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["exiting", "recover_first"]

_INTERRUPTED = 130


@contextlib.contextmanager
def exiting() -> Iterator[None]:
    """Turn every error into a message on stderr and an exit status."""
    try:
        yield
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except SquallError as error:
        click.echo(f"squall: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"squall: {where}{error.strerror or error}", err=True)
        sys.exit(1)


def recover_first() -> None:
    """Undo what killed runs left, and say so on stderr; one look at an empty folder where there is nothing."""
    from squall.recovery.state import State

    try:
        state = State.default()
        if not state.open_runs():
            return
    except SquallError:
        return  # not this user's state: the command itself will say so where it needs it
    from squall.recovery.orphans import recover_orphans

    for found in recover_orphans(state, by="the next command"):
        undone = sum(one.look.normal for one in found.reverted)
        if undone:
            click.echo(
                f"squall: run {found.run.id} had been killed: {undone} step{'' if undone == 1 else 's'} undone now",
                err=True,
            )
        for line in found.residue:
            click.echo(f"squall: LEFT BEHIND by run {found.run.id}: {line}", err=True)
        if found.residue:
            click.echo(f"squall: once that is put right by hand: squall recover {found.run.id} --forget", err=True)
