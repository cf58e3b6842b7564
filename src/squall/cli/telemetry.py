"""The options of `run`, `inject` and `demo` that say who else is told of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.telemetry.telling import Telling
    from squall.telemetry.wanted import Wanted

__all__ = ["asked", "options", "params", "telling"]

_HOLD = "2s"


def params() -> list[click.Option]:
    """The options themselves."""
    return [
        click.Option(
            ["--otlp"], metavar="URL", envvar="SQUALL_OTLP", show_envvar=True,
            help="Send spans and metrics to this collector, by OTLP over HTTP: http://127.0.0.1:4318.",
        ),
        click.Option(
            ["--metrics-listen"], metavar="HOST:PORT", envvar="SQUALL_METRICS_LISTEN", show_envvar=True,
            help="Serve /metrics for Prometheus while the run lasts.",
        ),
        click.Option(
            ["--metrics-hold"], metavar="DURATION", default=_HOLD, show_default=True,
            help="How long the end waits for one more scrape, where somebody scraped before.",
        ),
        click.Option(
            ["--log-json"], metavar="FILE", envvar="SQUALL_LOG_JSON", show_envvar=True,
            help="Append what happens as JSON lines; - is standard error, instead of progress.",
        ),
        click.Option(
            ["--trace-url"], metavar="URL", envvar="SQUALL_TRACE_URL", show_envvar=True,
            help="Where a trace can be looked at, for the report: {trace_id} stands for which.",
        ),
    ]  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command's function with these options; they come as `otlp`, `metrics_listen`, ... (see `asked`)."""
    declared: list[click.Option] = getattr(command, "__click_params__", [])
    command.__click_params__ = [*reversed(params()), *declared]  # type: ignore[attr-defined]  # as click.option does
    return command


def asked(given: dict[str, Any]) -> Wanted:
    """What the options say; InputError for what cannot be, before anything is touched."""
    from squall.errors import InputError, UnitError
    from squall.telemetry.wanted import wanted
    from squall.units import Duration

    try:
        hold = Duration.parse(given["metrics_hold"])
    except UnitError as error:
        raise InputError(f"--metrics-hold: {error}") from None
    if not Duration(0) <= hold <= Duration.parse("10m"):
        raise InputError(f"--metrics-hold: {given['metrics_hold']!r} is out of range: 0s to 10m is allowed")
    return wanted(
        otlp=given["otlp"], listen=given["metrics_listen"], hold_s=hold.seconds, lines=given["log_json"],
        trace_url=given["trace_url"],
    )  # fmt: skip


def telling(what: Wanted | None, say: Callable[[str], None]) -> AbstractContextManager[Telling | None]:
    """What tells it, for the length of a run; nothing, and nothing imported, where nobody is to be told."""
    if what is None or not what.anything:
        for remark in what.remarks if what is not None else ():
            say(remark)
        return nullcontext()
    from squall.telemetry.telling import Telling

    return Telling(what, say)
