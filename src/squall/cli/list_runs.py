"""`squall list`."""

from __future__ import annotations

from typing import Any

import click

from squall.cli.printing import json_option, print_json, table

__all__ = ["command"]


@click.command("list")
@click.option("--last", "-n", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
@json_option
def command(last: int, as_json: bool) -> None:
    """The runs, newest first: when, how they ended, what stays open."""
    from squall.engine.control import running
    from squall.recovery.state import State

    state = State.default()
    on = {run.id for run in running(state)}
    rows = [_row(run, on) for run in reversed(state.all_runs()[-last:])]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(f"No runs in {state.runs}. A first one: squall demo")
    else:
        click.echo(table([(row["run"], row["state"], row["reason"][:80]) for row in rows], ("run", "state", "reason")))


def _row(run: Any, on: set[str]) -> dict[str, Any]:
    """From the last lines of its events alone: a list of thousands must not read thousands of reports."""
    from squall.events import RunFinished, VerdictReached, decode

    found: dict[str, Any] = {
        "run": run.id,
        "state": "running" if run.id in on else "ended without a verdict",
        "reason": "",
        "exit_status": None,
    }
    try:
        with run.events.open("rb") as file:
            file.seek(max(0, run.events.stat().st_size - 262_144))
            lines = file.read().decode(errors="replace").splitlines()[-5:]
    except OSError:
        return found
    for line in lines:
        try:
            event = decode(line).event
        except ValueError:
            continue
        if isinstance(event, VerdictReached):
            found |= {"state": event.verdict, "reason": event.reason}
        elif isinstance(event, RunFinished):
            found["exit_status"] = event.exit_status
    return found
