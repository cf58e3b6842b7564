"""What a person sees while a run is on: a live panel on a terminal, plain lines anywhere else; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from squall.events import (
    AbortTriggered,
    ActionUndone,
    FaultAdjusted,
    FaultEnded,
    FaultHits,
    FaultStarted,
    Interrupted,
    LoadBehind,
    PlanChosen,
    ProbeWindow,
    Problem,
    RunStarted,
    StageEntered,
    SteadyStateChecked,
    TargetFollowed,
    TargetLost,
    VerdictReached,
)
from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from squall.engine import Run
    from squall.events import Event, Stamped

__all__ = ["Extra", "Progress", "sentence"]

_VERBS = {
    "define": "watching the steady state",
    "inject": "injecting",
    "monitor": "fault is on",
    "analyse": "analysing",
    "recover": "healing",
}
_SPARK = " ▁▂▃▄▅▆▇█"
_HISTORY = 60
_BAR = 30
_SECOND = 1_000_000_000
_FIGURES_S = 5.0


def sentence(event: Event) -> str | None:  # noqa: C901, PLR0911, PLR0912 - one line a kind
    """What happened, in a line for people; None for what only the panel shows."""
    match event:
        case RunStarted():
            return f"run of {event.name}, seed {event.seed}"
        case PlanChosen():
            return f"{event.fault}: {event.target} by {event.mechanism} ({event.recoverability})"
        case StageEntered(stage="monitor" | "analyse" | "inject"):
            return None
        case StageEntered(stage="recover"):
            return f"{_VERBS['recover']}, at most {Duration(event.expected_ns)}" if event.expected_ns else None
        case StageEntered():
            return f"{_VERBS[event.stage]}{f' for {Duration(event.expected_ns)}' if event.expected_ns else ''}"
        case SteadyStateChecked(when="before"):
            return (
                f"the steady state {'holds' if event.holds else 'does NOT hold, nothing is injected'}: {event.detail}"
            )
        case SteadyStateChecked():
            return event.detail
        case FaultStarted():
            return f"{event.fault} is ON (after {_short(event.took_ns)})"
        case FaultEnded():
            return f"{event.fault} is off, verified (after {_short(event.took_ns)})"
        case FaultAdjusted():
            return f"{event.fault} adjusted: {', '.join(f'{k}={v}' for k, v in event.parameters.items())}"
        case TargetLost():
            return f"{event.fault}: {event.target.get('label')} has ended, or become another program"
        case TargetFollowed():
            return f"{event.fault}: followed to {event.new.get('label')}"
        case AbortTriggered():
            return f"ABORTED ({event.cause}): {event.reason}"
        case Interrupted():
            return f"interrupted by {event.signal}"
        case LoadBehind():
            return f"the load fell behind: {event.reason}"
        case ActionUndone(verified=False):
            return f"NOT UNDONE: {event.description}: {event.detail}"
        case Problem():
            return f"problem: {event.message}"
        case VerdictReached():
            return f"{event.verdict.upper()}: {event.reason}"
        case _:
            return None


def _short(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms" if ns < _SECOND else f"{ns / 1e9:.2f} s"


class Extra(Protocol):
    """More to show in the panel; it may also speak, through `say`."""

    say: Callable[[str], None]

    def rows(self) -> list[Any]:
        """Lines for the live panel, as rich renders them."""


class Progress:
    """Enter it, give its `hear` to the run as a listener, and `follow` the run for what is between events."""

    def __init__(self, extra: Extra | None = None) -> None:
        self._extra = extra
        if extra is not None:
            extra.say = self.say
        self._terminal = sys.stderr.isatty()
        self._run: Run | None = None
        self._stage, self._stage_from, self._stage_ns = "define", time.monotonic(), 0
        self._windows: dict[str, list[ProbeWindow]] = {}
        self._hits: dict[str, dict[str, int]] = {}
        self._on: dict[str, bool] = {}
        self._live: Any = None
        self._mute = False
        self._began = self._figures_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._panel, console=Console(stderr=True), refresh_per_second=5, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._live.__exit__(kind, error, trace)
            self._live = None

    def follow(self, run: Run) -> None:
        """The run whose live figures the panel shows."""
        self._run = run

    def say(self, line: str) -> None:
        """One line above the panel, or a plain one; a run whose reader has gone away ends, as by a signal."""
        if self._mute:
            return
        try:
            self._write(line)
        except OSError as error:  # a pipe without a reader, a terminal that was closed, a full disk behind a log
            self._mute = True
            if isinstance(error, BrokenPipeError) and self._run is not None:
                self._run.interrupt("SIGPIPE")

    def _write(self, line: str) -> None:
        stamp = f"{time.monotonic() - self._began:6.1f}s"
        if self._live is not None:
            from rich.text import Text

            colour = (
                "red"
                if any(word in line for word in ("ABORTED", "NOT", "problem", "FAILED"))
                else "green"
                if "PASSED" in line
                else ""
            )
            self._live.console.print(Text.assemble((f"{stamp}  ", "dim"), (line, colour)))
        else:
            sys.stderr.write(f"{stamp}  {line}\n")
            sys.stderr.flush()

    def hear(self, stamped: Stamped) -> None:
        """Take in one event."""
        event = stamped.event
        if isinstance(event, StageEntered):
            self._stage, self._stage_from, self._stage_ns = event.stage, time.monotonic(), event.expected_ns
        elif isinstance(event, ProbeWindow):
            history = self._windows.setdefault(event.series, [])
            history.append(event)
            del history[:-_HISTORY]
        elif isinstance(event, FaultHits):
            self._hits[event.fault] = event.counters
        elif isinstance(event, FaultStarted | FaultEnded):
            self._on[event.fault] = isinstance(event, FaultStarted)
        line = sentence(event)
        if line is not None:
            self.say(line)
        elif self._live is None and isinstance(event, ProbeWindow):
            self._say_figures()

    def _say_figures(self) -> None:
        """Where there is no panel: the last values of the probes, every few seconds."""
        if time.monotonic() - self._figures_at < _FIGURES_S:
            return
        self._figures_at = time.monotonic()
        figures = [
            f"{name} p95 {_short(history[-1].p95_ns)}, errors {history[-1].errors / history[-1].count:.0%}"
            for name, history in self._windows.items()
            if history[-1].count
        ]
        near = (
            f"; {self._run.distance:.0%} of the way to the abort ceiling"
            if self._run and self._stage == "monitor"
            else ""
        )
        left = f"; {self._left():.0f} s left" if self._stage_ns else ""
        self.say(f"{'; '.join(figures)}{near}{left}")

    def _left(self) -> float:
        """Seconds of this stage that are left."""
        return max(0.0, self._stage_ns / 1e9 - (time.monotonic() - self._stage_from))

    def _panel(self) -> Any:
        from rich.box import ROUNDED
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        spent = time.monotonic() - self._stage_from
        left = self._left()
        share = min(1.0, spent / (self._stage_ns / 1e9)) if self._stage_ns else 0.0
        colour = "red" if any(self._on.values()) else "cyan"
        filled = round(share * _BAR)
        head = Text.assemble(
            (f"{_VERBS[self._stage]:26}", f"bold {colour}"), ("━" * filled, colour), ("╌" * (_BAR - filled), "dim"),
            f" {left:4.0f} s left" if self._stage_ns else "",
        )  # fmt: skip
        rows = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(self._windows), header_style="dim")
        for title in ("probe", "p95", "errors", "n/s", "p95 over the last minute"):
            rows.add_column(
                title, justify="left" if title in ("probe", "p95 over the last minute") else "right", no_wrap=True
            )
        for name, history in self._windows.items():
            rows.add_row(*_row(name, history))
        parts: list[Any] = [head, rows, *(self._extra.rows() if self._extra is not None else [])]
        distance = self._run.distance if self._run is not None else 0.0
        if self._stage == "monitor":
            gauge = round(min(1.0, distance) * _BAR)
            parts.append(
                Text.assemble(
                    ("way to the abort ceiling  ", "dim"),
                    ("━" * gauge, "red"),
                    ("╌" * (_BAR - gauge), "dim"),
                    f" {min(distance, 9.99):.0%}",
                )
            )
        for fault, counters in self._hits.items():
            told = {name: count for name, count in counters.items() if count} or counters
            parts.append(
                Text(f"{fault}  " + ", ".join(f"{name} {count:,}" for name, count in told.items()), style="dim")
            )
        return Panel(
            Group(*parts),
            box=ROUNDED,
            border_style=colour,
            title=self._run.experiment.name if self._run else "squall",
            title_align="left",
        )


def _row(name: str, history: list[ProbeWindow]) -> tuple[Any, ...]:
    from rich.text import Text

    last = history[-1]
    worst = max(window.p95_ns for window in history) or 1
    spark = "".join(_SPARK[0 if not w.count else 1 + round(w.p95_ns / worst * 7)] for w in history)
    bad = [bool(w.count and w.errors / w.count > 0.02) for w in history]  # noqa: PLR2004 - only a colour
    line = Text()
    for character, is_bad in zip(spark, bad, strict=True):
        line.append(character, style="red" if is_bad else "green")
    errors = f"{last.errors / last.count:.0%}" if last.count else "-"
    return (
        name,
        _short(last.p95_ns) if last.count else "-",
        Text(errors, style="red" if last.errors else ""),
        str(last.count),
        line,
    )
