"""`squall standin`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from squall.cli.printing import json_option, print_json

__all__ = ["command"]


@click.command("standin")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 finds a free one.")
@json_option
def command(file: Path, host: str, port: int, as_json: bool) -> None:
    """Serve the scripted answers of FILE until Ctrl-C, then report unexpected and unused calls (exit status 1 if any)."""
    from squall.standins import serve

    report = serve(
        file, host, port, ready=lambda url: click.echo(f"squall standin: {url}, Ctrl-C ends it and reports", err=True)
    )
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)
