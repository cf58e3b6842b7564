"""`squall halt`."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from squall.errors import SquallError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_PATIENCE_S = 30.0


@click.command("halt")
@click.option("--off", is_flag=True, help="Allow new runs again.")
def command(off: bool) -> None:
    """Everything recovers now, and nothing new starts until `squall halt --off`.

    Middlewares in services inject nothing as long, not even what their own settings say.
    """
    from squall.engine.control import ask, running
    from squall.recovery import recover_orphans
    from squall.recovery.state import State

    state = State.default()
    state.create()
    if off:
        state.halt_flag.unlink(missing_ok=True)
        for problem in middlewares(halted=False):
            click.secho(problem, fg="red", err=True)
        click.echo("Runs may start again.")
        return
    state.halt_flag.touch()
    left = middlewares(halted=True)
    on = running(state)
    for run in on:
        with contextlib.suppress(SquallError):
            ask(run, {"op": "stop", "halt": True, "reason": "squall halt"})
    deadline = time.monotonic() + _PATIENCE_S
    while any(run.control.exists() for run in on) and time.monotonic() < deadline:
        time.sleep(0.02)
    found = recover_orphans(state, by="halt")
    left += [line for one in found for line in one.residue]
    left += [f"run {run.id} has not ended" for run in on if run.control.exists()]
    click.echo(f"Halted: {len(on)} runs ended, {len(found)} orphans undone. `squall halt --off` allows new runs.")
    for line in left:
        click.secho(f"LEFT BEHIND: {line}", fg="red", err=True)
    if left:
        sys.exit(5)


def middlewares(*, halted: bool) -> list[str]:
    """Put HALT where middlewares look for it, or take it away; what could not be done, for people."""
    from squall.targets.middleware import HALT, control_folder

    folder: Path | str = "a folder that the configuration does not say"
    try:
        folder = control_folder()
        flag = folder / HALT
        if not halted:
            flag.unlink(missing_ok=True)
        elif folder.is_dir() and not flag.is_symlink():
            flag.touch()
    except (OSError, SquallError) as error:
        done = "are not halted" if halted else "stay halted"
        return [f"middlewares that look in {folder} {done}: {error}"]
    return []
