"""`squall report`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("report")
@click.argument("run", default="last")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["html", "markdown", "junit", "json"]),
    help="html by default; may be given several times.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to, instead of the run's.",
)
@click.option("--print", "to_stdout", is_flag=True, help="Print one format instead of writing files.")
def command(run: str, formats: tuple[str, ...], output: Path | None, to_stdout: bool) -> None:
    """Write the report of RUN (an id, a part of one, "last", or a folder) from its files, also of one that was killed."""
    from squall.recovery.state import State
    from squall.reports.loading import load_run
    from squall.reports.writing import render, write_reports

    folder = State.default().find_run(run).path
    wanted = formats or ("html",)
    if to_stdout:
        for one in wanted:
            click.echo(render(load_run(folder), one))  # type: ignore[arg-type]  # click allows the formats only
        return
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for path in write_reports(folder, wanted, into=output).values():  # type: ignore[arg-type]
        click.echo(str(path))
