"""`squall stop`."""

from __future__ import annotations

import time

import click

from squall.errors import CannotInject, InputError

__all__ = ["command"]

_PATIENCE_S = 60.0


@click.command("stop")
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every run that is on.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
def command(run: str | None, everything: bool, no_wait: bool) -> None:
    """End RUN before its time: it recovers, watches the healing and reports. With one run on, no name is needed."""
    from squall.engine.control import ask, running
    from squall.recovery.state import State

    state = State.default()
    on = running(state)
    if run:
        wanted = [state.find_run(run)]
        if wanted[0].id not in {one.id for one in on}:
            raise InputError(f"run {wanted[0].id} is not on")
    else:
        wanted = on
        if len(on) > 1 and not everything:
            raise InputError(f"{len(on)} runs are on ({', '.join(one.id for one in on)}): name one, or --all")
    if not wanted:
        click.echo("No run is on.")
    for one in wanted:
        ask(one, {"op": "stop"})
    deadline = time.monotonic() + _PATIENCE_S
    for one in wanted:
        while not no_wait and one.control.exists():
            if time.monotonic() > deadline:
                raise CannotInject(
                    f"run {one.id} has not ended after {_PATIENCE_S:.0f} s; its fault is undone first: see `squall status {one.id}`"
                )
            time.sleep(0.05)
        click.echo(f"{one.id} {'is stopping' if no_wait else 'has ended'}")
