"""`squall status`."""

from __future__ import annotations

import click

from squall.cli.printing import json_option, print_json
from squall.errors import InputError

__all__ = ["command"]


@click.command("status")
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> None:
    """Where RUN is: its stage, what is on, how near the ceiling; all runs that are on when none is named."""
    from squall.engine.control import ask, running
    from squall.recovery.state import State

    state = State.default()
    wanted = [state.find_run(run)] if run else running(state)
    if run and not wanted[0].control.exists():
        raise InputError(f"run {wanted[0].id} is over; `squall report {wanted[0].id}` tells how it went")
    found = [ask(one, {"op": "status"}) for one in wanted]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("No run is on.")
    for one in found:
        left = f", {one['ends_in_s']:.0f} s of the fault left" if one["ends_in_s"] is not None else ""
        click.echo(
            f"{one['run']}  {one['stage']}{left}, {one['distance']:.0%} of the way to the abort ceiling, pid {one['pid']}"
        )
        for fault in one["faults"]:
            hits = ", ".join(f"{name} {count}" for name, count in fault["hits"].items())
            click.echo(f"  {fault['fault']}  {'on' if fault['on'] else 'off'}  {hits}")
