"""When each request of a load is meant to be sent: exact, from the integral of the rate. Pure; standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Segment", "intended_times", "segments"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in which the rate goes evenly from `first` to `last` requests/s; `seconds` may be infinite."""

    first: float
    last: float
    seconds: float

    @property
    def count(self) -> float:
        """How many requests belong in it: the area under the rate."""
        return (self.first + self.last) / 2 * self.seconds

    def when(self, count: float) -> float:
        """Seconds after its start at which the area under the rate reaches `count`, 0 to `self.count`.

        The positive root of first*t + slope/2*t^2 = count, in the form that loses no digits where the slope is small.
        """
        slope = (self.last - self.first) / self.seconds
        root = math.sqrt(max(self.first * self.first + 2 * slope * count, 0.0))
        return 2 * count / (self.first + root) if self.first + root > 0 else 0.0  # a count so small that its root is 0


def segments(steps: Sequence[tuple[float, float, float]]) -> list[Segment]:
    """The segments of a profile of `(rate, ramp seconds, hold seconds)`; the rate before the first step is 0, the last is held."""
    found, rate = [], 0.0
    for number, (to, ramp, hold) in enumerate(steps, start=1):
        if ramp > 0:
            found.append(Segment(rate, to, ramp))
        rate = to
        length = math.inf if number == len(steps) else hold
        if length > 0:
            found.append(Segment(to, to, length))
    return found


def intended_times(parts: Sequence[Segment], phase: float) -> Iterator[int]:
    """Nanoseconds after the start of each request, in order: the n-th (from 0) where the area reaches n + phase.

    `phase` is 0 to 1 and comes from the seed, so that two loads of one rate do not beat in step. Ends only if the last
    segment does.
    """
    begin_s, before, wanted = 0.0, 0.0, phase
    for part in parts:
        held = part.count if math.isfinite(part.seconds) else math.inf
        while wanted < before + held:
            yield round((begin_s + part.when(wanted - before)) * 1e9)
            wanted += 1.0
        begin_s += part.seconds
        before += held
