"""`squall run`."""

from __future__ import annotations

from pathlib import Path

import click

from squall.cli import telemetry
from squall.cli.printing import json_option

__all__ = ["command"]


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print targets, mechanisms, steps and undos; touch nothing.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the document's.")
@click.option(
    "--report",
    "formats",
    multiple=True,
    type=click.Choice(["html", "markdown", "junit", "json"]),
    help="Formats to write; html by default.",
)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where reports go, instead of the run's folder.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@telemetry.options
@json_option
def command(
    file: Path,
    dry_run: bool,
    seed: int | None,
    formats: tuple[str, ...],
    report_dir: Path | None,
    quiet: bool,
    as_json: bool,
    **told: str | None,
) -> None:
    """Run the experiment that FILE describes, watch it, undo it, judge it and write its report.

    Exit status: 0 passed, 1 failed, 2 wrong input, 3 aborted by its ceiling, 4 could not inject, 5 residue left,
    6 inconclusive, 130 interrupted (after recovery).
    """
    from squall.experiment.document import read_experiment

    experiment = read_experiment(file)
    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    from squall.cli.execution import execute, finish, show_plan

    if dry_run:
        show_plan(experiment, as_json=as_json)
        return
    outcome = execute(experiment, quiet=quiet, telemetry=telemetry.asked(told))
    finish(outcome, as_json=as_json, formats=formats or ("html",), into=report_dir)
