"""A run as one trace: its stages, its faults, each series that is measured, and some of the requests (probes/traceparent.py).

The service's own spans are children of the requests'. A span is known when it has ended; the run's own comes last.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from squall import events as ev
from squall.probes.traceparent import RunTrace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from squall.probes.samples import Sample

__all__ = ["Moment", "Span", "Spans"]

MOMENTS_MOST = 200
"""So many things are told on one span at most."""
WINDOWS_MOST = 500
"""Pulses of faults that have spans of their own."""

Value = str | int | float | bool
_TOLD = (
    ev.SteadyStateChecked, ev.AbortTriggered, ev.Interrupted, ev.Problem, ev.LoadBehind, ev.TargetLost, ev.TargetFollowed,
)  # fmt: skip
"""What is told on the run's own span."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened while a span lasted."""

    name: str
    wall_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class Span:
    """One span; ids in hex, times in ns of Unix time; `error` is empty where nothing is wrong."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int = 0
    kind: Literal["internal", "client"] = "internal"
    attributes: dict[str, Value] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    error: str = ""

    def tell(self, name: str, wall_ns: int, **attributes: Value) -> None:
        """Add a moment, while there is room."""
        if len(self.moments) < MOMENTS_MOST:
            self.moments.append(Moment(name, wall_ns, attributes))


@dataclass(slots=True)
class _Series:
    span: Span
    requests: int = 0
    errors: int = 0


class Spans:
    """Makes spans of what is heard; each call yields those that have ended. Nothing for a run that is not traced."""

    def __init__(self) -> None:
        self._trace: RunTrace | None = None
        self._run: Span | None = None
        self._stage: Span | None = None
        self._faults: dict[str, Span] = {}
        self._series: dict[str, _Series] = {}
        self._about: dict[str, dict[str, Value]] = {}
        """By fault: what is known of it before it begins."""
        self._windows = 0
        self._wall_minus_mono_ns = 0

    @property
    def current(self) -> str:
        """The id of the innermost span that is open, for log lines: the stage's, else the run's."""
        inner = self._stage or self._run
        return inner.span_id if inner is not None else ""

    @property
    def trace_id(self) -> str:
        """Of the run; empty where it is not traced."""
        return self._trace.trace_id if self._trace is not None else ""

    def of_fault(self, fault: str) -> str:
        """The id of a fault's open span, else the innermost one's."""
        return self._faults[fault].span_id if fault in self._faults else self.current

    def hear(self, stamped: ev.Stamped) -> Iterator[Span]:
        """Take in one event."""
        stamp, event = stamped.stamp, stamped.event
        self._wall_minus_mono_ns = stamp.wall_ns - stamp.mono_ns
        if isinstance(event, ev.RunStarted):
            self._begin(stamp, event)
        if self._run is None:
            return
        match event:
            case ev.StageEntered():
                yield from self._end_stage(stamp.wall_ns)
                self._stage = self._open(f"stage {event.stage}", stamp.wall_ns, self._run, f"stage{stamp.seq}")
            case ev.FaultStarted() | ev.FaultEnded() | ev.FaultHits() | ev.FaultAdjusted() | ev.PlanChosen():
                yield from self._fault(stamp, event)
            case ev.ActionDone() | ev.ActionUndone():
                whose = self._faults.get(event.fault, self._run)
                whose.tell(event.kind, stamp.wall_ns, action=event.action, description=event.description)
            case ev.RunFinished():
                self._run.attributes["squall.exit_status"] = event.exit_status
                yield from self.end(stamp.wall_ns)
            case _:
                self._tell_on_the_run(self._run, stamp, event)

    def _tell_on_the_run(self, run: Span, stamp: ev.Stamp, event: ev.Event) -> None:
        match event:
            case ev.VerdictReached():
                run.attributes |= {"squall.verdict": event.verdict, "squall.reason": event.reason}
                for name in ("detect", "recover"):
                    if (took_ns := getattr(event, f"{name}_ns")) is not None:
                        run.attributes[f"squall.{name}_s"] = took_ns / 1e9
                if event.verdict in ("failed", "aborted"):
                    run.error = f"{event.verdict}: {event.reason}"
            case _ if isinstance(event, _TOLD):
                values = {one.name: getattr(event, one.name) for one in dataclasses.fields(event)}
                said = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
                run.tell(event.kind, stamp.wall_ns, **said)
            case _:
                pass

    def _begin(self, stamp: ev.Stamp, event: ev.RunStarted) -> None:
        self._trace = RunTrace.read(event.trace, event.trace_parent)
        if self._trace is None:
            return
        about: dict[str, Value] = {
            "squall.run": stamp.run, "squall.experiment": event.name, "squall.seed": event.seed,
            "squall.version": event.squall,
        }  # fmt: skip
        self._run = Span(
            f"run {event.name}", self._trace.trace_id, self._trace.span_id, self._trace.parent_id, stamp.wall_ns,
            attributes=about,
        )  # fmt: skip

    def _open(self, name: str, wall_ns: int, parent: Span, what: str, **about: Value) -> Span:
        """A span whose id follows from the run's and from what it is of."""
        seed = f"{self._trace.span_id if self._trace else ''}{what}"
        span_id = blake2b(seed.encode(), digest_size=8).hexdigest()
        return Span(name, parent.trace_id, span_id, parent.span_id, wall_ns, attributes=about)

    def _fault(self, stamp: ev.Stamp, event: Any) -> Iterator[Span]:
        about = self._about.setdefault(event.fault, {"squall.fault": event.fault})
        span = self._faults.get(event.fault)
        match event:
            case ev.PlanChosen():
                about |= {"squall.mechanism": event.mechanism, "squall.target": event.target}
                about |= {f"squall.parameter.{name}": str(value) for name, value in event.parameters.items()}
            case ev.FaultStarted() if self._run is not None and self._windows < WINDOWS_MOST:
                self._windows += 1
                name = f"fault {event.fault.partition('-')[2]}"
                began_ns = stamp.wall_ns - event.took_ns
                self._faults[event.fault] = self._open(name, began_ns, self._run, f"fault{stamp.seq}", **about)
            case ev.FaultHits() if span is not None:
                span.attributes |= {f"squall.hits.{name}": count for name, count in event.counters.items()}
            case ev.FaultAdjusted() if span is not None:
                span.tell(event.kind, stamp.wall_ns, **{name: str(value) for name, value in event.parameters.items()})
            case ev.FaultEnded() if span is not None:
                del self._faults[event.fault]
                span.end_ns = stamp.wall_ns
                yield span
            case _:
                pass

    def take(self, samples: Iterable[Sample]) -> Iterator[Span]:
        """Take in a batch of samples."""
        if self._run is None:
            return
        for one in samples:
            if one.outcome == "value":
                continue
            start_ns = one.time_ns + self._wall_minus_mono_ns
            series = self._series.get(one.series)
            if series is None:
                span = self._open(f"probe {one.series}", start_ns, self._run, f"series{one.series}")
                series = self._series[one.series] = _Series(span)
            series.requests += 1
            series.errors += one.outcome != "ok"
            if one.span:
                yield _request(one, series.span, start_ns)

    def _end_stage(self, wall_ns: int) -> Iterator[Span]:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.end_ns = wall_ns
            yield stage

    def end(self, wall_ns: int, error: str = "") -> Iterator[Span]:
        """Whatever is still open ends now; nothing is heard afterwards."""
        run, self._run = self._run, None
        if run is None:
            return
        for series in self._series.values():
            series.span.attributes |= {"squall.requests": series.requests, "squall.errors": series.errors}
        yield from self._end_stage(wall_ns)
        for span in (*self._faults.values(), *(one.span for one in self._series.values()), run):
            span.end_ns, span.error = wall_ns, span.error or error
            yield span
        self._faults, self._series = {}, {}


def _request(sample: Sample, of: Span, start_ns: int) -> Span:
    about: dict[str, Value] = {"squall.series": sample.series, "squall.outcome": sample.outcome}
    if sample.outcome in ("ok", "error") and sample.detail:
        about["http.response.status_code"] = sample.detail
    error = "" if sample.outcome == "ok" else f"{sample.outcome} ({sample.detail})" if sample.detail else sample.outcome
    return Span(
        f"request {sample.series}", of.trace_id, f"{sample.span:016x}", of.span_id, start_ns,
        start_ns + sample.latency_ns, "client", about, error=error,
    )  # fmt: skip
