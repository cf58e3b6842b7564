"""Two runs side by side: what differs, by how much, and whether more than chance.

The interval of a difference is put together from the two runs' own intervals (MOVER, "method of variance estimates
recovery": Zou and Donner 2008), so it inherits from both that requests of one second are not independent. Beside it
stands a Mann-Whitney test (1947) of the per-second medians, which asks whether one run's latencies tend to be higher
without fixing on any one quantile. Two runs differ in more than what was changed between them (other load, another
hour): a difference that is not chance is not yet an effect.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from squall.analysis.columns import Columns
from squall.analysis.quantiles import quantile, quantile_interval
from squall.analysis.shares import Interval, share_interval
from squall.analysis.windows import in_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.analysis.columns import Latencies
    from squall.analysis.windows import Span, Timeline
    from squall.probes.samples import Series

__all__ = ["Comparison", "Difference", "Measured", "compare", "mann_whitney"]

Change = Literal["same", "better", "worse", "unclear"]
_SAME_LATENCY_SHARE = 0.1
_SAME_LATENCY_NS = 1_000_000
_SAME_ERRORS = 0.005
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run as comparison sees it: its name, samples and times, and its verdict's time to recover (None: not told)."""

    name: str
    series: Mapping[str, Series]
    timeline: Timeline
    recover_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of one series and phase in both runs, and b - a with its 95 % interval; ns or a ratio.

    `change` is of b against a; less is better. `same`: the interval lies within what makes no difference (10 % of a's
    latency, at least 1 ms; half a point of errors). `p_value`: Mann-Whitney over per-second medians, for p50 only.
    """

    series: str
    phase: Literal["before", "during", "after"]
    what: Literal["p50", "p95", "p99", "errorRate"]
    unit: Literal["ns", "ratio"]
    a: Interval
    b: Interval
    value: float
    low: float
    high: float
    change: Change
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side, less is better; `only_in` names series that just one of them has."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    recover_a_ns: int | None
    recover_b_ns: int | None
    only_in: Mapping[str, str]

    @property
    def recovery(self) -> Change:
        """One recovery each cannot tell chance from change: only healed against not healed counts, and equal to 100 ms."""
        a, b = self.recover_a_ns, self.recover_b_ns
        if a is None or b is None:
            return "unclear" if a is b else "better" if a is None else "worse"
        return "same" if a == b else "unclear"

    def of(self, change: Change) -> tuple[Difference, ...]:
        """The differences of one kind."""
        return tuple(d for d in self.differences if d.change == change)


def compare(a: Measured, b: Measured, seed: int = 0) -> Comparison:
    """Compare what both runs measured, phase by phase; the requests' numbers only (gauges have no common scale of worse)."""
    differences: list[Difference] = []
    for name in sorted(a.series.keys() & b.series.keys()):
        differences += _of_series(name, (a.series[name], a.timeline), (b.series[name], b.timeline), seed)
    only = {name: a.name if name in a.series else b.name for name in sorted(a.series.keys() ^ b.series.keys())}
    return Comparison(a.name, b.name, tuple(differences), a.recover_ns, b.recover_ns, only)


def _of_series(name: str, a: tuple[Series, Timeline], b: tuple[Series, Timeline], seed: int) -> list[Difference]:
    found: list[Difference] = []
    columns = Columns(a[0]), Columns(b[0])
    latencies = columns[0].latencies, columns[1].latencies
    phases: tuple[Literal["before", "during", "after"], ...] = ("before", "during", "after")
    for phase in phases:
        units = in_seconds(getattr(a[1], phase)), in_seconds(getattr(b[1], phase))
        tested = mann_whitney(_medians(latencies[0], units[0]), _medians(latencies[1], units[1]))
        for what, q in _QUANTILES.items():
            one, other = (quantile_interval(column, cut, q, seed) for column, cut in zip(latencies, units, strict=True))
            if one is not None and other is not None:
                same = max(_SAME_LATENCY_SHARE * one.value, _SAME_LATENCY_NS)
                found.append(
                    _difference((name, phase, what, "ns"), one, other, same, tested if what == "p50" else None)
                )
        one, other = (
            share_interval(*column.counts(cut), seed)
            for column, cut in zip((columns[0].errors, columns[1].errors), units, strict=True)
        )
        if one.n and other.n:
            found.append(_difference((name, phase, "errorRate", "ratio"), one, other, _SAME_ERRORS, None))
    return found


def _difference(
    place: tuple[str, Literal["before", "during", "after"], str, Literal["ns", "ratio"]],
    a: Interval, b: Interval, same: float, p_value: float | None,
) -> Difference:  # fmt: skip
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    series, phase, what, unit = place
    change: Change = "unclear"
    if -same <= low and high <= same and not (a.open_above or b.open_above):
        change = "same"
    elif high < 0 and not b.open_above:  # where b's interval is open above, b may be as high as it likes
        change = "better"
    elif low > 0 and not a.open_above:
        change = "worse"
    return Difference(series, phase, what, unit, a, b, value, low, high, change, p_value)  # type: ignore[arg-type]  # `what` is one of the four


def _medians(latencies: Latencies, units: Sequence[Span]) -> list[int]:
    parts = [sorted(latencies.within(start, end)) for start, end in units]
    return [quantile(part, 0.5) for part in parts if part]


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The two-sided p-value of the Mann-Whitney test, normal approximation with ties and continuity; None below 8 a side."""
    if min(len(a), len(b)) < 8:  # noqa: PLR2004 - below it the normal approximation is not good
        return None
    n, total = len(a) * len(b), len(a) + len(b)
    ranks, seen = {}, 0
    counts = Counter([*a, *b])
    for value in sorted(counts):
        ranks[value] = seen + (counts[value] + 1) / 2
        seen += counts[value]
    u = sum(ranks[value] for value in a) - len(a) * (len(a) + 1) / 2
    ties = sum(count**3 - count for count in counts.values()) / (total * (total - 1))
    deviation = math.sqrt(n / 12 * (total + 1 - ties))
    if deviation == 0:
        return 1.0
    z = max(0.0, abs(u - n / 2) - 0.5) / deviation
    return min(1.0, 2 * (1 - NormalDist().cdf(z)))
