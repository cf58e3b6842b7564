"""`squall compare`."""

from __future__ import annotations

from pathlib import Path

import click

from squall.cli.printing import json_option

__all__ = ["command"]


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write both side by side as a page.")
@json_option
def command(first: str, second: str, html: Path | None, as_json: bool) -> None:
    """Set two runs side by side: what changed, and whether the samples can tell."""
    from squall.recovery.state import State
    from squall.reports import comparing

    state = State.default()
    comparison = comparing.load(state.find_run(first).path, state.find_run(second).path)
    if html is not None:
        html.write_text(comparing.to_html(comparison))
    click.echo(comparing.to_json(comparison) if as_json else comparing.to_text(comparison))
