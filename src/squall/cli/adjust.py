"""`squall adjust`."""

from __future__ import annotations

import json

import click

from squall.cli.printing import json_option, print_json
from squall.errors import InputError

__all__ = ["command"]


@click.command("adjust")
@click.argument("run")
@click.argument("fault")
@click.argument("changes", nargs=-1, required=True, metavar="FIELD=VALUE...")
@json_option
def command(run: str, fault: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change a fault of a run that is on, without a gap: `squall adjust last 0-tcp.latency latency=500ms`."""
    from squall.engine.control import ask
    from squall.recovery.state import State

    parameters: dict[str, object] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise InputError(f"{change!r} is not FIELD=VALUE")
        parameters[name.replace("-", "_")] = _value(value)
    found = State.default().find_run(run)
    answer = ask(found, {"op": "adjust", "fault": fault, "parameters": parameters}, patience_s=15)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{fault}: " + ", ".join(f"{name}={value}" for name, value in answer["parameters"].items()))


def _value(text: str) -> object:
    """A number, a list or mapping as JSON (`calls=["read", "sync"]`), else the text itself."""
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(f"{text!r} is not JSON: {error}") from None
    return int(text) if text.isdecimal() else text
