"""What counts as bad: each threshold of an experiment as an allowed share of bad samples of one series.

A request that failed counts against the error rate. For latency, a request counts that was answered as wanted, with the
time it took, and one that was given up (timed out, or never sent), as slower than any limit: its true latency is not
known, only that it is longer. A quick refusal is not a quick answer: what failed otherwise counts as an error only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from squall.analysis.windows import Marks
from squall.experiment.series import LOAD_SERIES, load_is_shared, series_of
from squall.probes.samples import OUTCOMES, Sample, Series
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.experiment.model import Bounds, Expectation, Experiment

__all__ = ["ANSWERED", "GIVEN_UP", "Latencies", "Measure", "ceiling_measures", "evidence_moments", "measures_of"]

STEADY_P95 = Duration.parse("300ms")
STEADY_ERRORS = Ratio.parse("0.5%")
_SLOWER_THAN_P95 = 0.05
NO_LIMIT = Duration.parse("1h")
"""The longest p95 a document can ask for is no limit at all: not even requests that were given up exceed it."""

ANSWERED, GIVEN_UP = frozenset({"ok"}), frozenset({"timeout", "unsent"})
_IS_ERROR = bytes(name not in ("ok", "value") for name in OUTCOMES)
_HAS_LATENCY = bytes(name in ANSWERED or name in GIVEN_UP for name in OUTCOMES)
_IS_GIVEN_UP = bytes(name in GIVEN_UP for name in OUTCOMES)
_IS_REQUEST = bytes(name != "value" for name in OUTCOMES)


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
        index = OUTCOMES.index(sample.outcome)
        if self.kind == "gauge":
            return self._outside(sample.value) if sample.outcome == "value" and math.isfinite(sample.value) else None
        if self.kind == "errors":
            return bool(_IS_ERROR[index]) if _IS_REQUEST[index] else None
        return (bool(_IS_GIVEN_UP[index]) or sample.latency_ns > self.limit) if _HAS_LATENCY[index] else None

    def _outside(self, value: float) -> bool:
        return (self.least is not None and value < self.least) or (self.most is not None and value > self.most)

    def marks(self, series: Series) -> Marks:
        """All samples of a series that count, as good and bad by time."""
        if self.kind == "gauge":
            kept = [(t, self._outside(v)) for t, v, o in zip(series.time_ns, series.value, series.outcome, strict=True)
                    if not _IS_REQUEST[o] and math.isfinite(v)]  # fmt: skip
            return Marks([t for t, _ in kept], [bad for _, bad in kept])
        if self.kind == "errors":
            pairs = [(t, _IS_ERROR[o]) for t, o in zip(series.time_ns, series.outcome, strict=True) if _IS_REQUEST[o]]
            return Marks([t for t, _ in pairs], [bad for _, bad in pairs])
        limit, given_up, counts = self.limit, _IS_GIVEN_UP, _HAS_LATENCY
        rows = zip(series.time_ns, series.latency_ns, series.outcome, strict=True)
        kept = [(t, latency > limit or bool(given_up[o])) for t, latency, o in rows if counts[o]]
        return Marks([t for t, _ in kept], [bad for _, bad in kept])


_CENSORED = 1 << 62


class Latencies:
    """The latencies of a series by time; those of requests that were given up are longer than all others."""

    __slots__ = ("latencies", "times")

    def __init__(self, series: Series) -> None:
        rows = zip(series.time_ns, series.latency_ns, series.outcome, strict=True)
        most = _CENSORED - 1
        kept = [(t, (_CENSORED if _IS_GIVEN_UP[o] else 0) + (0 if ns < 0 else min(most, ns)))
                for t, ns, o in rows if _HAS_LATENCY[o]]  # fmt: skip
        times = [t for t, _ in kept]
        if any(map(int.__gt__, times[:-1], times[1:])):
            kept.sort()
        self.times, self.latencies = [t for t, _ in kept], [ns for _, ns in kept]

    @staticmethod
    def shown(coded: int) -> tuple[int, bool]:
        """The latency in ns, and whether it is only a lower bound."""
        return coded & (_CENSORED - 1), coded >= _CENSORED


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
    """The abort ceiling, for each series of requests."""
    series = dict.fromkeys(m.series for m in measures_of(experiment, tolerated=True))
    if experiment.load is not None:
        series.setdefault(LOAD_SERIES)
    return tuple(
        m for name in series for m in _of_requests(name, name, experiment.abort.error_rate, experiment.abort.p95)
    )


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


def evidence_moments(measure: Measure, series: Series, start: int, end: int) -> list[int]:
    """When each bad sample meant for this span showed itself, in order: a slow request once it is slow, a failure at its end."""
    limit = measure.limit if measure.kind == "latency" else None
    moments = []
    for sample in _bad_ones(measure, series, start, end):
        waited = max(0, sample.latency_ns)
        moments.append(sample.time_ns + (waited if limit is None else min(waited, limit)))
    return sorted(moments)


def _bad_ones(measure: Measure, series: Series, start: int, end: int) -> Iterator[Sample]:
    # Most samples are good: look at whole Samples only where the columns leave a doubt.
    suspicious = measure.limit if measure.kind == "latency" else -1
    ok = OUTCOMES.index("ok")
    rows = zip(series.time_ns, series.latency_ns, series.outcome, series.value, strict=True)
    for at, latency, outcome, value in rows:
        if start <= at < end and (outcome != ok or latency > suspicious >= 0):
            sample = Sample(series.name, at, latency, OUTCOMES[outcome], value)
            if measure.is_bad(sample):
                yield sample
