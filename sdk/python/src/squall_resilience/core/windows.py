"""What a breaker remembers: the latencies of the last minutes in buckets, and how the last evaluation periods went.

Both have a fixed size, whatever the traffic is, and both take a clock that jumps: back, and they count on from there;
ahead, and what is too old is forgotten at once.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections import deque
from itertools import repeat
from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LATENCY_ERROR", "LATENCY_MAX", "LATENCY_MIN", "SLICES", "ErrorPeriods", "LatencyWindow"]

LATENCY_MIN = 1e-4
"""Seconds; what was quicker counts as this."""
_RATIO = 1.1
_EDGES = tuple(LATENCY_MIN * _RATIO**step for step in range(146))
LATENCY_MAX = _EDGES[-1]
"""About 100 seconds; what was slower counts as this."""
LATENCY_ERROR = _RATIO**0.5 - 1
"""A quantile between these bounds is at most this share (4.9 %) beside that of the values themselves."""
_MIDDLES: tuple[float, ...] = (LATENCY_MIN, *(edge * _RATIO**0.5 for edge in _EDGES[:-1]), LATENCY_MAX)
_BUCKETS = len(_MIDDLES)

SLICES = 10
"""The window moves on in this many steps: it covers from 9/10 to the whole of its length."""


class LatencyWindow:
    """Latencies of the last `window` seconds, of which a quantile can be asked."""

    __slots__ = ("_began", "_closed", "_counts", "_sums", "count")

    def __init__(self, now: float) -> None:
        self.count = 0
        self._began = now
        self._counts = array("I", bytes(4 * _BUCKETS))
        self._closed: deque[tuple[float, array[int]]] = deque()
        self._sums = array("Q", bytes(8 * _BUCKETS))

    def note(self, latencies: Iterable[float]) -> None:
        """Count these, in seconds, in the newest slice; what is below 0 (the clock went back) counts as the least."""
        counts, noted = self._counts, 0
        for bucket in map(bisect, repeat(_EDGES), latencies):
            counts[bucket] += 1
            noted += 1
        self.count += noted

    def roll(self, now: float, window: float) -> None:
        """Begin a new slice when it is time, and forget those that are too old."""
        if now < self._began:  # the clock went back: whatever is here is as old as it was
            ahead = self._began - now
            self._closed = deque((began - ahead, counts) for began, counts in self._closed)
            self._began = now
        if now - self._began >= window / SLICES:
            if any(self._counts):
                self._closed.append((self._began, self._counts))
                self._sums = array("Q", map(int.__add__, self._sums, self._counts))
                self._counts = array("I", bytes(4 * _BUCKETS))
            self._began = now
        while self._closed and now - self._closed[0][0] >= window:
            _, counts = self._closed.popleft()
            self._sums = array("Q", map(int.__sub__, self._sums, counts))
            self.count -= sum(counts)

    def p95(self) -> float:
        """The least latency in seconds that 95 % of the calls did not exceed, within LATENCY_ERROR; NaN without calls."""
        above_max = self.count - (95 * self.count + 99) // 100
        above = 0
        for bucket in range(_BUCKETS - 1, -1, -1):
            above += self._sums[bucket] + self._counts[bucket]
            if above > above_max:
                return _MIDDLES[bucket]
        return nan


class ErrorPeriods:
    """Calls and failures of the running evaluation period, and how many periods before it were bad in a row.

    A period with fewer calls than the minimum says nothing: it is passed over, neither bad nor good. After as many of
    those in a row as bad ones are needed, what was before them is too long ago and is forgotten.
    """

    __slots__ = ("_silent", "bad", "calls", "ends_at", "failures", "rate")

    def __init__(self, now: float, length: float) -> None:
        self.calls = self.failures = self.bad = self._silent = 0
        self.rate = nan
        """Of the last period that said something."""
        self.ends_at = now + length

    def roll(self, now: float, length: float, calls_min: int, rate_max: float, periods: int) -> None:
        """Judge the running period when it is over, and the silent ones since then."""
        if self.ends_at - now > length:  # the clock went back, or periods are shorter now
            self.ends_at = now + length
        if now < self.ends_at:
            return
        over = 1 + int((now - self.ends_at) / length)
        if self.calls >= calls_min:
            self.rate = self.failures / self.calls
            self.bad = self.bad + 1 if self.rate > rate_max else 0
            self._silent = over - 1
        else:
            self._silent += over
        if self._silent >= periods:
            self.bad = 0
        self.calls = self.failures = 0
        self.ends_at += over * length
        if self.ends_at <= now:  # rounded
            self.ends_at = now + length
