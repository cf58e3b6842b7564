"""How many calls at once a dependency bears, found from how long they take: a state machine over windows of time.

By Little's law calls under way = throughput x latency: beyond a dependency's capacity more calls give no more throughput, only
latency. With the latency that it has when nothing queues (the base) and the latency now, `limit * base / now` is what it
bears without a queue; a small queue is added, so that there is always a trial of more. This is the gradient of Netflix's
concurrency-limits (Gradient2Limit) and of Envoy's adaptive concurrency filter. What their users met decides the rest:

- A base that follows the average drifts up with a long overload, and the limit with it (Netflix/concurrency-limits 137,
  failsafe-go 127; Uber's "Cinnamon Auto-Tuner" shows the same for a base that is reset under load). Here the base only
  falls by itself. To rise it is measured anew, while a quarter of the limit is let in, much as Envoy does (its
  minRTT phases), or while the limit is not used anyway.
- The fastest single call is luck, not a base (concurrency-limits 37): latencies are medians of windows.
- Windows with too few calls say nothing, and fast failures would look like a fast dependency (125, 176): only successes
  are measured. Time-outs, refusals and lost connections are drops: too many in a window cut the limit, whatever the latency.
- A limit that is not used must not grow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AdaptiveLimit", "Bounds"]

SAMPLES_MAX = 512
"""Of one window; later ones replace earlier ones, in turn."""
DROPS_MAX = 0.05
"""Share of a window's calls that may be dropped."""
CUT = 0.8
"""What is left of the limit after a window with more drops."""
RECENT = 5
"""Windows whose median the base follows down: with few calls, one window's own is low by luck now and then."""
PROBE_CALLS = 3
"""Times the calls of a window, for measuring the base anew."""
GRADIENT_MIN = 0.5
SMOOTHING = 0.5
"""Of a falling limit; a rising one is not smoothed, its steps are small."""
PROBE_SHARE = 0.25
"""Of the limit, that is let in while the base is measured anew."""
PROBE_WINDOWS_MAX = 10
"""A measurement that has too few calls by then is put off: the base stays."""
FIRST_PROBE_WINDOWS = 4
"""The first measurement is soon: what was seen before may have been measured under load."""
JITTER = 0.2
"""Of the time between two measurements, so that many processes do not measure at once."""


def median(values: Iterable[float]) -> float:
    """The upper one of two; without `statistics`, whose import costs more than all of this distribution."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


@dataclass(frozen=True)
class Bounds:
    """What the search may do; times in seconds."""

    low: int
    high: int
    window: float
    calls_min: int
    tolerance: float
    probe_every: float
    latency_max: float | None = None


class AdaptiveLimit:
    """The limit, and what it is found from. `random` gives [0, 1)."""

    def __init__(self, bounds: Bounds, initial: int, now: float, random: Callable[[], float]) -> None:
        self.bounds = bounds
        self._random = random
        self._estimate = float(min(max(initial, bounds.low), bounds.high))
        self.base: float | None = None
        """Median latency without a queue, in seconds; None before the first window."""
        self.latency = 0.0
        """Median latency of the last window."""
        self.probing_since: float | None = None
        self._began = now
        self._probe_at = now + FIRST_PROBE_WINDOWS * bounds.window
        self._latencies: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._calls = self._drops = self._most = 0

    @property
    def limit(self) -> int:
        """How many calls may be under way now."""
        share = 1.0 if self.probing_since is None else PROBE_SHARE
        return max(self.bounds.low, int(self._estimate * share))

    def configure(self, bounds: Bounds) -> None:
        """Other bounds; what was found is kept within them."""
        self.bounds = bounds
        self._estimate = min(max(self._estimate, float(bounds.low)), float(bounds.high))

    def record(self, now: float, began: float, under_way: int, *, dropped: bool) -> None:
        """A call that began at `began`, as one of so many `under_way`, has ended by success or was `dropped`."""
        if now < self._began or (self.probing_since is not None and now < self.probing_since):
            self._restart(now)  # the clock went back: what was measured before it says nothing about after it
            return
        if self.probing_since is not None and began < self.probing_since:
            return  # it queued behind what was under way before
        self._calls += 1
        self._most = max(self._most, under_way)
        if dropped:
            self._drops += 1
        elif now >= began:
            if len(self._latencies) < SAMPLES_MAX:
                self._latencies.append(now - began)
            else:
                self._latencies[self._calls % SAMPLES_MAX] = now - began
        if now - self._began >= self.bounds.window:
            self._close(now)

    def _restart(self, now: float) -> None:
        self.probing_since = None
        self._recent.clear()
        self._probe_at = self._next_probe(now)
        self._open(now)

    def _open(self, now: float) -> None:
        self._began = now
        self._latencies.clear()
        self._calls = self._drops = self._most = 0

    def _next_probe(self, now: float) -> float:
        return now + self.bounds.probe_every * (1 + JITTER * (2 * self._random() - 1))

    def _close(self, now: float) -> None:
        """At the end of a window, judge; with too few calls it goes on."""
        enough = self._calls >= self.bounds.calls_min
        if self.probing_since is not None:
            if self._calls >= PROBE_CALLS * self.bounds.calls_min and self._latencies and not self._drops:
                self.base = self.latency = median(self._latencies)
            elif now - self.probing_since < PROBE_WINDOWS_MAX * self.bounds.window and not self._drops:
                return
            self._restart(now)
            return
        if not enough:
            return
        if self._drops > DROPS_MAX * self._calls:
            self._estimate = max(float(self.bounds.low), self._estimate * CUT)
        elif self._latencies:
            self._judge(median(self._latencies))
        if now >= self._probe_at and self.limit > self.bounds.low:
            self.probing_since = now
        self._open(now)

    def _judge(self, latency: float) -> None:
        self.latency = latency
        bounds, limit = self.bounds, self._estimate
        idle = self._most <= limit * 0.5
        self._recent.append(latency)
        usual = median(self._recent)
        if self.base is None:
            self.base = latency
        elif idle or (usual < self.base and len(self._recent) == RECENT):
            self.base = usual  # while it is hardly used it may also rise: nothing queues by our doing
        too_slow = bounds.latency_max is not None and latency > bounds.latency_max
        gradient = bounds.tolerance * self.base / latency if latency > 0 else 1.0
        gradient = GRADIENT_MIN if too_slow else max(GRADIENT_MIN, min(1.0, gradient))
        wanted = limit * gradient + (0.0 if too_slow else sqrt(limit))
        if wanted < limit:
            limit += (wanted - limit) * SMOOTHING
        elif not idle:
            limit = wanted
        self._estimate = min(max(limit, float(bounds.low)), float(bounds.high))
