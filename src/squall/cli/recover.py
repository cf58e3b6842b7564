"""`squall recover`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from squall.cli.printing import json_option, print_json
from squall.errors import CannotInject, InputError, JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.recovery import Recovered
    from squall.recovery.state import State

__all__ = ["command"]

_RESIDUE = 5


@click.command("recover")
@click.argument("run", required=False)
@click.option("--forget", is_flag=True, help="Give up on RUN: what it names was put right by hand.")
@click.option("--install", is_flag=True, help="Add a systemd unit that recovers at every boot (needs root).")
@click.option("--uninstall", is_flag=True, help="Take that unit away.")
@json_option
def command(run: str | None, forget: bool, install: bool, uninstall: bool, as_json: bool) -> None:
    """Undo what runs left whose engine and guardian were both killed; runs that are on are left alone.

    Exit status 5 when something could not be undone: it says what, and how to remove it by hand.
    """
    from squall.recovery import recover_orphans
    from squall.recovery.orphans import recover_run
    from squall.recovery.state import State

    state = State.default()
    if install or uninstall:
        from squall.recovery import boot_unit

        click.echo(boot_unit.install(state) if install else boot_unit.uninstall())
        return
    if forget:
        if run is None:
            raise InputError("--forget needs the run to forget")
        _forget(state, run)
        return
    if run is not None:
        one = recover_run(state, state.find_run(run))
        if one is None:
            raise CannotInject(f"run {run} is on: `squall stop` ends it")
        found: list[Recovered] = [one]
    else:
        found = recover_orphans(state)
    if as_json:
        print_json([
            {"run": one.run.id, "undone": [r.entry.action.describe_undo() for r in one.reverted if r.look.normal], "residue": one.residue}
            for one in found
        ])  # fmt: skip
    else:
        _print(found)
    if any(one.residue for one in found):
        sys.exit(_RESIDUE)


def _print(found: Sequence[Recovered]) -> None:
    if not found:
        click.echo("Nothing to recover.")
    for one in found:
        undone = sum(r.look.normal for r in one.reverted)
        click.echo(f"{one.run.id}: {undone} step{'' if undone == 1 else 's'} undone")
        for reverted in one.reverted:
            click.echo(
                f"  {'undone' if reverted.look.normal else 'NOT UNDONE'}  {reverted.entry.action.describe()}: {reverted.look.detail}"
            )
        for line in one.residue:
            click.secho(f"  LEFT BEHIND: {line}", fg="red", err=True)
        if one.residue:
            click.echo(f"  once that is put right by hand: squall recover {one.run.id} --forget", err=True)


def _forget(state: State, wanted: str) -> None:
    from squall.recovery.journal import Journal

    run = state.find_run(wanted)
    with contextlib.suppress(FileNotFoundError, JournalError):  # a journal that cannot be read is what one forgets
        Journal.adopt(run.journal).release()  # a run that is on refuses
    state.mark_closed(run)
    click.echo(f"{run.id} is forgotten; its files stay in {run.path}")
