"""A series' samples as sorted columns, classified once: which failed, how long the answered took, what a gauge showed.

A request that failed counts against the error rate. For latency, a request counts that was answered as wanted, with the
time it took, and one that was given up (timed out, or never sent), as slower than any limit: its true latency is not
known, only that it is longer. A quick refusal is not a quick answer: what failed otherwise counts as an error only.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from squall.probes.samples import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from squall.analysis.windows import Span
    from squall.probes.samples import Series

__all__ = ["ANSWERED", "GIVEN_UP", "Columns", "Latencies", "Marks", "cut"]

ANSWERED, GIVEN_UP = frozenset({"ok"}), frozenset({"timeout", "unsent"})

_VALUE = OUTCOMES.index("value")
_IS_ERROR = bytes(name not in ("ok", "value") for name in OUTCOMES) + bytes(256 - len(OUTCOMES))
_CENSORED = 1 << 62
_PLUS = tuple(0 if name in ANSWERED else _CENSORED if name in GIVEN_UP else None for name in OUTCOMES)
"""What is added to a latency by its outcome; None: it has no latency that counts."""


def cut(times: Sequence[int], start: int, end: int) -> Span:
    """The first index in the window from `start` to `end` (excluded) of sorted times, and the first behind it."""
    first = bisect_left(times, start)
    return first, bisect_left(times, end, lo=first)


class Marks:
    """A column of good (0) and bad (1) by time, in order, so that any window is cut by bisection."""

    __slots__ = ("bad", "times")

    def __init__(self, times: Sequence[int], bad: Iterable[int]) -> None:
        self.times, self.bad = times, bytes(bad)

    def counts(self, units: Sequence[Span]) -> tuple[list[int], list[int]]:
        """Bad samples and all samples of each unit."""
        bad, total = [], []
        for start, end in units:
            first, last = cut(self.times, start, end)
            bad.append(self.bad.count(1, first, last))
            total.append(last - first)
        return bad, total


class Latencies:
    """The latencies that count, by time; those of requests that were given up are longer than all others."""

    __slots__ = ("coded", "times")

    def __init__(self, times: Sequence[int], coded: Sequence[int]) -> None:
        self.times, self.coded = times, coded

    def within(self, start: int, end: int) -> Sequence[int]:
        """Those of requests meant for this window, as coded."""
        return self.coded[slice(*cut(self.times, start, end))]

    @staticmethod
    def shown(coded: int) -> tuple[int, bool]:
        """The latency in ns, and whether it is only a lower bound."""
        return coded & (_CENSORED - 1), coded >= _CENSORED


class Columns:
    """One series by intended time; what is derived from it is made when it is first asked for, and kept."""

    def __init__(self, series: Series) -> None:
        times = series.time_ns.tolist()
        columns = series.latency_ns.tolist(), series.value.tolist(), series.outcome.tolist()
        in_order = sorted(times)
        if in_order != times:
            order = sorted(range(len(times)), key=times.__getitem__)
            columns = [columns[0][i] for i in order], [columns[1][i] for i in order], [columns[2][i] for i in order]
        self._times, self._outcomes = in_order, bytes(columns[2])
        self._latencies, self._values = columns[0], columns[1]

    @cached_property
    def errors(self) -> Marks:
        """Every request, bad where it failed."""
        if _VALUE not in self._outcomes:
            return Marks(self._times, self._outcomes.translate(_IS_ERROR))
        places = [place for place, outcome in enumerate(self._outcomes) if outcome != _VALUE]
        return Marks([self._times[p] for p in places], [_IS_ERROR[self._outcomes[p]] for p in places])

    @cached_property
    def latencies(self) -> Latencies:
        """The latency of every request that has one."""
        most = _CENSORED - 1
        rows = zip(self._times, self._latencies, map(_PLUS.__getitem__, self._outcomes), strict=True)
        kept = [
            (at, plus + (ns if 0 <= ns <= most else 0 if ns < 0 else most)) for at, ns, plus in rows if plus is not None
        ]
        return Latencies([at for at, _ in kept], [coded for _, coded in kept])

    @cached_property
    def gauge(self) -> tuple[Sequence[int], Sequence[float]]:
        """Times and values of a gauge; what is no number is left out."""
        rows = zip(self._times, self._values, self._outcomes, strict=True)
        kept = [(at, value) for at, value, outcome in rows if outcome == _VALUE and math.isfinite(value)]
        return [at for at, _ in kept], [value for _, value in kept]

    def failures(self, start: int, end: int) -> list[int]:
        """When each request meant for this window that failed did so: at its end."""
        first, last = cut(self._times, start, end)
        failed = self._outcomes.translate(_IS_ERROR)
        return [self._times[i] + max(0, self._latencies[i]) for i in range(first, last) if failed[i]]
