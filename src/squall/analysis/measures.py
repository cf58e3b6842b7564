"""The thresholds of an experiment, each as an allowed share of bad samples of one series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from squall.analysis.columns import ANSWERED, GIVEN_UP, Latencies, Marks, cut
from squall.experiment.series import LOAD_SERIES, load_is_shared, series_of
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from squall.analysis.columns import Columns
    from squall.experiment.model import Bounds, Expectation, Experiment
    from squall.probes.samples import Sample

__all__ = ["NO_LIMIT", "Measure", "ceiling_measures", "measures_of"]

STEADY_P95 = Duration.parse("300ms")
STEADY_ERRORS = Ratio.parse("0.5%")
_SLOWER_THAN_P95 = 0.05
NO_LIMIT = Duration.parse("1h")
"""The longest p95 a document can ask for is no limit at all: not even requests that were given up exceed it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One threshold: at most the share `allowed` of the samples of `series` may be bad.

    `what` is "errorRate", "p95" or a gauge's name; `limit` is p95's in ns. `state`: it looks at something that lasts
    from one sample to the next (a process that is alive, a gauge), so three samples are enough to tell.
    """

    expectation: str
    series: str
    what: str
    allowed: float
    limit: int = 0
    least: float | None = None
    most: float | None = None
    state: bool = False

    @property
    def kind(self) -> Literal["errors", "latency", "gauge"]:
        """Which of the three kinds of badness it counts."""
        return "errors" if self.what == "errorRate" else "latency" if self.what == "p95" else "gauge"

    @property
    def threshold(self) -> float | None:
        """In its unit: ns, a ratio, a gauge's bound (the upper where there are two)."""
        if self.kind == "gauge":
            return self.most if self.most is not None else self.least
        return float(self.limit) if self.kind == "latency" else self.allowed

    @property
    def text(self) -> str:
        """As a person writes it."""
        if self.kind == "errors":
            return f"errorRate <= {Ratio(self.allowed)}"
        if self.kind == "latency":
            return f"p95 <= {Duration(self.limit)}"
        ends = [
            f"{self.least:g} <=" if self.least is not None else "",
            self.what,
            f"<= {self.most:g}" if self.most is not None else "",
        ]
        return " ".join(part for part in ends if part)

    def is_bad(self, sample: Sample) -> bool | None:
        """Whether this sample of the series is bad; None when it does not count for this measure."""
        outcome = sample.outcome
        if self.kind == "gauge":
            return self._outside(sample.value) if outcome == "value" and math.isfinite(sample.value) else None
        if self.kind == "errors":
            return None if outcome == "value" else outcome != "ok"
        if outcome in GIVEN_UP:
            return True
        return sample.latency_ns > self.limit if outcome in ANSWERED else None

    def marks(self, columns: Columns) -> Marks:
        """All samples of the series that count, as good and bad by time."""
        if self.kind == "errors":
            return columns.errors
        if self.kind == "gauge":
            times, values = columns.gauge
            return Marks(times, map(self._outside, values))
        limit = self.limit
        return Marks(columns.latencies.times, [coded > limit for coded in columns.latencies.coded])

    def moments(self, columns: Columns, start: int, end: int) -> list[int]:
        """When each bad sample meant for this window showed itself, in order: a slow request once it is slow, a failure at its end."""
        if self.kind == "errors":
            return sorted(columns.failures(start, end))
        if self.kind == "latency":
            times, coded, limit = columns.latencies.times, columns.latencies.coded, self.limit
            first, last = cut(times, start, end)
            return sorted(
                times[i] + min(Latencies.shown(coded[i])[0], limit) for i in range(first, last) if coded[i] > limit
            )
        times, values = columns.gauge
        return [times[i] for i in range(*cut(times, start, end)) if self._outside(values[i])]

    def _outside(self, value: float) -> bool:
        return (self.least is not None and value < self.least) or (self.most is not None and value > self.most)


def measures_of(experiment: Experiment, *, tolerated: bool = False) -> tuple[Measure, ...]:
    """The steady state of an experiment; `tolerated`: what is acceptable while a fault is on, of requests only.

    The load is judged too: by the expectation that shares its request, else by the defaults.
    """
    series = series_of(experiment)
    measures: list[Measure] = []
    for expectation in experiment.steady_state:
        measures += (
            _tolerated(experiment, expectation.name, series[expectation.name])
            if tolerated and _sends(expectation)
            else ()
        )
        measures += () if tolerated else _steady(expectation, series[expectation.name])
    if experiment.load is not None and not load_is_shared(experiment):
        if tolerated:
            measures += _tolerated(experiment, LOAD_SERIES, LOAD_SERIES)
        else:
            measures += _of_requests(LOAD_SERIES, LOAD_SERIES, STEADY_ERRORS, STEADY_P95)
    return tuple(dict.fromkeys(measures))


def ceiling_measures(experiment: Experiment) -> tuple[Measure, ...]:
    """The abort ceiling: for each series of requests, and the error rate of every probe that looks at a state.

    So every run has one (guarantee 1), also one that only looks whether a process is alive.
    """
    names = series_of(experiment)
    series = dict.fromkeys(names[one.name] for one in experiment.steady_state if _sends(one))
    if experiment.load is not None:
        series.setdefault(LOAD_SERIES)
    errors, p95 = experiment.abort.error_rate, experiment.abort.p95
    requests = [measure for name in series for measure in _of_requests(name, name, errors, p95)]
    states = [
        Measure(one.name, one.name, "errorRate", float(errors), state=True)
        for one in experiment.steady_state
        if not _sends(one) and float(errors) < 1.0
    ]
    return (*requests, *states)


def _sends(expectation: Expectation) -> bool:
    return expectation.kind in ("http", "tcp", "command")


def _of_requests(name: str, series: str, errors: Ratio, p95: Duration) -> tuple[Measure, ...]:
    found = []
    if float(errors) < 1.0:
        found.append(Measure(name, series, "errorRate", float(errors)))
    if p95 < NO_LIMIT:
        found.append(Measure(name, series, "p95", _SLOWER_THAN_P95, limit=int(p95)))
    return tuple(found)


def _tolerated(experiment: Experiment, name: str, series: str) -> tuple[Measure, ...]:
    return _of_requests(name, series, experiment.tolerate.error_rate, experiment.tolerate.p95)


def _steady(expectation: Expectation, series: str) -> tuple[Measure, ...]:
    if _sends(expectation):
        p95 = expectation.p95 if expectation.p95 is not None else NO_LIMIT
        return _of_requests(expectation.name, series, expectation.error_rate, p95) + _gauges(expectation)
    alive = Measure(expectation.name, series, "errorRate", float(expectation.error_rate), state=True)
    return ((alive,) if alive.allowed < 1.0 else ()) + _gauges(expectation)


def _gauges(expectation: Expectation) -> tuple[Measure, ...]:
    return tuple(_gauge(expectation.name, value, bounds) for value, bounds in expectation.values.items())


def _gauge(name: str, value: str, bounds: Bounds) -> Measure:
    return Measure(name, f"{name}.{value}", value, _SLOWER_THAN_P95, least=bounds.least, most=bounds.most, state=True)
