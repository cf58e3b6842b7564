"""From a run's samples to what a chart can show: buckets of time, their percentiles, and a density of latencies.

Latencies are those of `analysis.measures`: of requests that were answered as wanted, and of those that were given up,
which took at least as long as they were waited for (never sent: as long as the longest of the series). What failed
otherwise counts as an error only. A request counts at the time when it was meant to be sent. Percentiles are by
nearest rank.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from squall.analysis.columns import ANSWERED, GIVEN_UP
from squall.analysis.windows import merged
from squall.probes.samples import OUTCOMES, Series
from squall.reports.record import PHASES, Bucket, Density, GaugePoint, GaugeSeries, PhaseStats, RequestSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from squall.reports.record import Phase, Window

__all__ = ["BUCKETS_MAX", "GAUGE_POINTS_MAX", "gauge_series", "is_gauge", "nearest_rank", "request_series"]

BUCKETS_MAX = 720
GAUGE_POINTS_MAX = 240
_WIDTHS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_SHORT_RUN_S = 20
_ROWS_PER_DECADE = 24
_ROWS_MAX = 240
_GAUGE_MOST = 1e290
"""A gauge is drawn as no larger than this, so that sums and scales stay finite."""

_NEVER = 1 << 62
_OK = OUTCOMES.index("ok")
_VALUE = OUTCOMES.index("value")
_UNSENT = OUTCOMES.index("unsent")
_TIMED = frozenset(OUTCOMES.index(outcome) for outcome in (*ANSWERED, *GIVEN_UP))


def nearest_rank(ordered: Sequence[int], share: float) -> float | None:
    """The percentile of sorted values by nearest rank; None of nothing."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else None


def is_gauge(series: Series) -> bool:
    """Whether these samples are values and not requests."""
    return len(series) > 0 and series.outcome[0] == _VALUE


def _width(span_s: float, buckets_max: int) -> float:
    least = 0.5 if span_s <= _SHORT_RUN_S else 1.0
    fitting = (width for width in _WIDTHS_S if width >= least and span_s / width <= buckets_max)
    return next(fitting, max(_WIDTHS_S[-1], span_s / buckets_max))


def _span(series: Series, start_ns: int) -> tuple[float, float]:
    """The first and the last sample, in seconds since the run began."""
    return (min(series.time_ns) - start_ns) / 1e9, (max(series.time_ns) - start_ns) / 1e9


def request_series(series: Series, start_ns: int, windows: Sequence[Window]) -> RequestSeries:
    """The requests of one series in buckets; times count from `start_ns` (CLOCK_MONOTONIC).

    A bucket begins where the first fault does, so that none mixes the time before with the fault.
    """
    earliest_ns, latest_ns = min(series.time_ns), max(series.time_ns)
    width_s = _width((latest_ns - earliest_ns) / 1e9, BUCKETS_MAX)
    width_ns = round(width_s * 1e9)
    origin_ns = start_ns + round(min((window.start_s for window in windows), default=0.0) * 1e9) % width_ns
    first = (earliest_ns - origin_ns) // width_ns
    size = (latest_ns - origin_ns) // width_ns - first + 1
    counts, errors = [0] * size, [0] * size
    latencies = [array("q") for _ in range(size)]
    outcomes = [0] * len(OUTCOMES)
    longest = max(series.latency_ns)
    for time_ns, latency_ns, outcome in zip(series.time_ns, series.latency_ns, series.outcome, strict=True):
        index = (time_ns - origin_ns) // width_ns - first
        counts[index] += 1
        outcomes[outcome] += 1
        if outcome != _OK:
            errors[index] += 1
        if outcome in _TIMED:
            latencies[index].append(latency_ns if outcome != _UNSENT else longest)
    ordered = [array("q", sorted(column)) for column in latencies]
    buckets = tuple(
        Bucket(
            (origin_ns - start_ns + (first + i) * width_ns) / 1e9,
            counts[i],
            errors[i],
            *(nearest_rank(ordered[i], share) for share in (0.5, 0.95, 0.99)),
        )
        for i in range(size)
    )
    return RequestSeries(
        series.name, width_s, buckets, _phases(series, start_ns, windows), _density(ordered),
        {name: outcomes[i] for i, name in enumerate(OUTCOMES) if outcomes[i]},
    )  # fmt: skip


def _phases(series: Series, start_ns: int, windows: Sequence[Window]) -> tuple[PhaseStats, PhaseStats, PhaseStats]:
    """Before the first fault, while one was on, after the last: what lies between two pulses is none of them."""
    spans = merged((start_ns + round(w.start_s * 1e9), start_ns + round(w.end_s * 1e9)) for w in windows)
    on_ns, off_ns = (spans[0][0], spans[-1][1]) if spans else (_NEVER, _NEVER)
    starts = [start for start, _ in spans]
    counts: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    errors: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    latencies: dict[Phase, array[int]] = {phase: array("q") for phase in PHASES}
    longest = max(series.latency_ns)
    for time_ns, latency_ns, outcome in zip(series.time_ns, series.latency_ns, series.outcome, strict=True):
        if on_ns <= time_ns < off_ns and time_ns >= spans[bisect_right(starts, time_ns) - 1][1]:
            continue
        phase: Phase = "before" if time_ns < on_ns else "during" if time_ns < off_ns else "after"
        counts[phase] += 1
        if outcome != _OK:
            errors[phase] += 1
        if outcome in _TIMED:
            latencies[phase].append(latency_ns if outcome != _UNSENT else longest)
    before, during, after = (_stats(phase, counts[phase], errors[phase], latencies[phase]) for phase in PHASES)
    return before, during, after


def _stats(phase: Phase, count: int, errors: int, latencies: array[int]) -> PhaseStats:
    ordered = sorted(latencies)
    return PhaseStats(phase, count, errors, *(nearest_rank(ordered, share) for share in (0.5, 0.95, 0.99)))


def _density(ordered: list[array[int]]) -> Density:
    measured = [column for column in ordered if column]
    if not measured:
        return Density(1e6, 10 ** (1 / _ROWS_PER_DECADE), 0, tuple(() for _ in ordered))
    least = max(1_000, min(column[0] for column in measured))
    most = max(least + 1, *(column[-1] for column in measured))
    rows = min(_ROWS_MAX, max(1, math.ceil(math.log10(most / least) * _ROWS_PER_DECADE)))
    ratio = (most / least) ** (1 / rows) * (1 + 1e-9)
    edges = [round(least * ratio**row) for row in range(1, rows)]
    return Density(least, ratio, rows, tuple(tuple(_cells(column, edges)) for column in ordered))


def _cells(column: array[int], edges: list[int]) -> Iterator[tuple[int, int]]:
    position = 0
    for row in range(len(edges) + 1):
        end = bisect_left(column, edges[row], position) if row < len(edges) else len(column)
        if end > position:
            yield row, end - position
        position = end
        if position == len(column):
            return


def gauge_series(series: Series, start_ns: int) -> GaugeSeries:
    """A gauge in buckets; of a series of looks (a process probe), the share that succeeded."""
    first_s, last_s = _span(series, start_ns)
    width_ns = _width(last_s - first_s, GAUGE_POINTS_MAX) * 1e9
    held: dict[int, list[float]] = {}
    for time_ns, value, outcome in zip(series.time_ns, series.value, series.outcome, strict=True):
        shown = value if outcome == _VALUE else float(outcome == _OK)
        if math.isfinite(shown):
            held.setdefault(int((time_ns - start_ns) // width_ns), []).append(
                min(max(shown, -_GAUGE_MOST), _GAUGE_MOST)
            )
    points = (
        GaugePoint(index * width_ns / 1e9, math.fsum(values) / len(values), min(values), max(values))
        for index, values in sorted(held.items())
    )
    return GaugeSeries(series.name, tuple(points))
