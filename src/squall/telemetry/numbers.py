"""Counters, gauges and histograms of a run, kept once and shown in every format (`page`, `otlp`).

Bounded: a family has at most `SERIES_MOST` series; what would be one more is counted in `left_out`.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = ["BUCKETS_S", "Exemplar", "Family", "Histogram", "Labels", "Numbers"]

SERIES_MOST = 1_000
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Upper bounds; 300 ms, 1.2 s and 5 s among them, so that the default thresholds fall between two buckets."""

Labels = tuple[str, ...]
"""A series' label values, in the order of its family's names."""


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """For OTLP, in UCUM: "s"."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measurement that leads to its span; `wall_ns` is Unix time."""

    trace_id: str
    span_id: str
    value: float
    wall_ns: int


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, not added up; the last one is what was above all bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The latest of each bucket."""

    def copy(self) -> Histogram:
        """As it is now."""
        return replace(self, counts=list(self.counts), exemplars=dict(self.exemplars))


class Numbers:
    """The numbers of one run; safe to read from one thread while another writes."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self._families = {family.name: family for family in families}
        self._values: dict[str, dict[Labels, float]] = {
            one.name: {} for one in families if one.kind in ("counter", "gauge")
        }
        self._histograms: dict[str, dict[Labels, Histogram]] = {
            one.name: {} for one in families if one.kind == "histogram"
        }
        self._lock = threading.Lock()
        self.left_out = 0

    def set(self, name: str, labels: Labels, value: float) -> None:
        """Set a gauge, or a counter whose whole count is known elsewhere."""
        with self._lock:
            values = self._values[name]
            if labels in values or self._room(len(values)):
                values[labels] = value

    def add(self, name: str, labels: Labels, by: float = 1.0) -> None:
        """Count, or move a gauge."""
        with self._lock:
            values = self._values[name]
            if labels in values or self._room(len(values)):
                values[labels] = values.get(labels, 0.0) + by

    def observe(self, name: str, labels: Labels, value: float, exemplar: Exemplar | None = None) -> None:
        """Count one measurement in its bucket."""
        with self._lock:
            histograms = self._histograms[name]
            if labels not in histograms:
                if not self._room(len(histograms)):
                    return
                histograms[labels] = Histogram()
            one, bucket = histograms[labels], bisect_left(BUCKETS_S, value)
            one.counts[bucket] += 1
            one.total += value
            one.least, one.most = min(one.least, value), max(one.most, value)
            if exemplar is not None:
                one.exemplars[bucket] = exemplar

    def drop(self, name: str) -> None:
        """Forget the series of a gauge."""
        with self._lock:
            self._values[name].clear()

    def values(self) -> list[tuple[Family, dict[Labels, float]]]:
        """Every counter and gauge that has a series, as it is now."""
        with self._lock:
            return [(self._families[name], dict(series)) for name, series in self._values.items() if series]

    def histograms(self) -> list[tuple[Family, dict[Labels, Histogram]]]:
        """Every histogram that has a series, as it is now."""
        with self._lock:
            return [
                (self._families[name], {labels: one.copy() for labels, one in series.items()})
                for name, series in self._histograms.items()
                if series
            ]

    def _room(self, there: int) -> bool:
        self.left_out += there >= SERIES_MOST
        return there < SERIES_MOST
