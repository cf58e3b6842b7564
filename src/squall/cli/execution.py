"""What `run`, `inject` and `demo` share: execute one experiment with progress, signals and reports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from squall.cli.printing import print_json
from squall.errors import CannotInject
from squall.injectors import INJECTORS, Chooser, Host
from squall.recovery.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from squall.cli.progress import Extra, Progress
    from squall.engine import Outcome, PlannedFault
    from squall.engine.log import Listener
    from squall.experiment.model import Experiment
    from squall.telemetry.telling import Telling
    from squall.telemetry.wanted import Wanted

__all__ = ["execute", "finish", "show_plan"]

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def execute(
    experiment: Experiment,
    *,
    state: State | None = None,
    quiet: bool = False,
    listeners: Sequence[Listener] = (),
    panel: Extra | None = None,
    telemetry: Wanted | None = None,
) -> Outcome:
    """Run it with live progress on stderr. Ctrl-C recovers and reports; a second one changes nothing."""
    from squall.engine import Run

    async def main() -> Outcome:
        run = Run(
            experiment, state=state or State.default(), chooser=Chooser(INJECTORS, Host.look()), listeners=heard,
            on_samples=[told.take] if told is not None else [],
            tracing=telemetry.tracing if telemetry is not None else None,
        )  # fmt: skip
        if progress is not None:
            progress.follow(run)
        loop = asyncio.get_running_loop()

        def asked(number: signal.Signals) -> None:
            run.interrupt(number.name)
            if progress is not None:
                progress.say(
                    f"{number.name}: recovering; the report follows" if not interrupted else "still recovering"
                )
            interrupted.append(number)

        interrupted: list[signal.Signals] = []
        for number in _ENDING_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup left it
                loop.add_signal_handler(number, asked, number)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a stopped engine is ended by its guardian
        loop.run_in_executor(None, _load_reports)
        return await run.execute()

    quiet = quiet or (telemetry is not None and telemetry.lines == "-")
    progress = None if quiet else _progress(panel)
    heard = [*listeners, *([progress.hear] if progress is not None else [])]
    try:
        with _telling(telemetry) as told:
            if told is not None:
                heard.append(told.hear)
            with progress or contextlib.nullcontext():
                return asyncio.run(main())
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise CannotInject(
            "no more threads or processes can be started (see `ulimit -u`); the guardian undoes what was on, if anything was"
        ) from None


def _telling(telemetry: Wanted | None) -> contextlib.AbstractContextManager[Telling | None]:
    from squall.cli.telemetry import telling

    return telling(telemetry, lambda line: click.echo(f"squall: {line}", err=True))


def _progress(panel: Extra | None) -> Progress:
    from squall.cli.progress import Progress

    return Progress(panel)


def _load_reports() -> None:
    """Load the reports' code while the guardian starts and nothing is measured yet, not while the user waits at the end."""
    import squall.reports.loading
    import squall.reports.summary
    import squall.reports.writing  # noqa: F401 - loaded, not used here


def finish(outcome: Outcome, *, as_json: bool, formats: Sequence[str] = ("html",), into: Path | None = None) -> None:
    """Write the reports, print the result and exit with its status: also when nobody reads it, or the report itself fails."""
    with contextlib.suppress(OSError, SystemExit):  # rich ends the process when its reader is gone
        _tell(outcome, as_json=as_json, formats=formats, into=into)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # what could not be written must not be tried again at the interpreter's end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(outcome.exit_status)


def _tell(outcome: Outcome, *, as_json: bool, formats: Sequence[str], into: Path | None) -> None:
    try:
        _report(outcome, as_json=as_json, formats=formats, into=into)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - a report that fails must not hide how the run ended
        click.echo(
            f"squall: the report could not be written: {type(error).__name__}: {error}; "
            f"`squall report {outcome.run.id}` tries again",
            err=True,
        )
        click.echo(f"{outcome.verdict}: {outcome.reason}", err=True)
    for line in outcome.residue:
        click.secho(f"LEFT BEHIND: {line}", fg="red", bold=True, err=True)


def _report(outcome: Outcome, *, as_json: bool, formats: Sequence[str], into: Path | None) -> None:
    from squall.reports.loading import load_run
    from squall.reports.writing import write_record

    record = load_run(outcome.run.path)
    paths = write_record(record, formats, into=into)  # type: ignore[arg-type]  # the option allows the formats only
    if as_json:
        import json

        from squall.reports.json_format import to_json

        files = {str(kind): str(path) for kind, path in paths.items()}
        print_json({**json.loads(to_json(record)), "exit_status": outcome.exit_status, "reports": files})
    else:
        from squall.reports.summary import print_summary

        print_summary(record, paths.get("html"))


def show_plan(experiment: Experiment, *, as_json: bool) -> None:
    """Print targets, mechanisms, steps and undos; touches nothing."""
    from pathlib import Path

    from squall.engine import plan_experiment
    from squall.recovery.state import RunFolder

    planned = plan_experiment(experiment, Chooser(INJECTORS, Host.look()), RunFolder(Path("/nonexistent/dry-run")))
    if as_json:
        from squall.experiment.document import experiment_document

        print_json({"document": experiment_document(experiment), "faults": [_as_data(fault) for fault in planned]})
        return
    click.echo(
        f"{click.style(experiment.name, bold=True)}: watched for {experiment.baseline}, faulted for {experiment.duration}, "
        f"healed within {experiment.recovery.within}"
    )
    click.echo(
        f"  ends at once when over the last {experiment.abort.for_}: p95 > {experiment.abort.p95} or errors > {experiment.abort.error_rate}"
    )
    for fault in planned:
        _print_fault(fault)
    click.echo("\nNothing was touched.")


def _print_fault(fault: PlannedFault) -> None:
    step = fault.step
    pulse = f", {step.pulse.on} on and {step.pulse.off} off" if step.pulse else ""
    click.echo(
        f"\n{click.style(fault.id, bold=True)}  from +{step.after} for {step.duration}{pulse}; "
        f"{len(fault.targets)} of {fault.matched} matching"
    )
    for target, choice in zip(fault.targets, fault.choices, strict=True):
        plan = choice.plan
        click.echo(f"  {target.label}\n    by {plan.mechanism} ({plan.recoverability}); {plan.accuracy}")
        for action in (*plan.setup, *plan.actions):
            click.echo(f"    do    {action.describe()}\n    undo  {action.describe_undo()}")
        for line in plan.not_covered:
            click.echo(f"    not covered: {line}")
        for refusal in choice.refused:
            click.echo(f"    not by {refusal.mechanism}: {refusal.reason}")


def _as_data(fault: PlannedFault) -> dict[str, Any]:
    return {
        "id": fault.id,
        "type": fault.step.fault.type,
        "matched": fault.matched,
        "targets": [
            {
                "target": target.to_json(),
                "mechanism": choice.plan.mechanism,
                "recoverability": choice.plan.recoverability,
                "accuracy": choice.plan.accuracy,
                "not_covered": list(choice.plan.not_covered),
                "actions": [action.describe() for action in (*choice.plan.setup, *choice.plan.actions)],
                "undos": [action.describe_undo() for action in (*choice.plan.setup, *choice.plan.actions)],
                "refused": [{"mechanism": one.mechanism, "reason": one.reason} for one in choice.refused],
            }
            for target, choice in zip(fault.targets, fault.choices, strict=True)
        ],
    }
