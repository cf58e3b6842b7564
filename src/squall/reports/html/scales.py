"""Where a value stands on paper: time to x, latency and share to y, and which values are worth a label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from squall.reports.wording import duration, percent

__all__ = ["WIDTH", "Frame", "Linear", "Logarithmic", "Scale", "share_scale", "step_of"]

WIDTH = 1000
"""The width of every plot in its own units; the page stretches it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The stretch of time that charts share; labels count from `zero_s`."""

    start_s: float
    end_s: float
    zero_s: float = 0.0

    def x(self, at_s: float) -> float:
        """The place of a moment, 0 to WIDTH, clamped."""
        share = (at_s - self.start_s) / max(self.end_s - self.start_s, 1e-9)
        return min(1.0, max(0.0, share)) * WIDTH

    def percent(self, at_s: float) -> str:
        """The same as a percentage of the width, for text that must not be stretched."""
        return f"{self.x(at_s) / WIDTH * 100:.2f}%"

    def ticks(self) -> list[tuple[float, str]]:
        """About six moments with their labels."""
        step = step_of(
            (self.end_s - self.start_s) / 6,
            (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400),
        )
        first = math.ceil((self.start_s - self.zero_s) / step)
        last = math.floor((self.end_s - self.zero_s) / step)
        return [(index * step + self.zero_s, _time_label(index * step, step)) for index in range(first, last + 1)]


def step_of(rough: float, nice: tuple[float, ...]) -> float:
    """The first nice step that is not smaller than the rough one, or the largest."""
    return next((step for step in nice if step >= rough), nice[-1])


def _time_label(seconds: float, step: float) -> str:
    sign, whole = ("-" if seconds < 0 else ""), round(abs(seconds))
    if step < 60 and whole < 600:  # noqa: PLR2004 - up to ten minutes, seconds are easiest to read
        return f"{sign}{whole} s"
    minutes, rest = divmod(whole, 60)
    if step < 3600:  # noqa: PLR2004 - seconds in an hour
        return f"{sign}{minutes}:{rest:02d}" if rest else f"{sign}{minutes} min"
    return f"{sign}{minutes // 60} h"


class Scale(Protocol):
    """From a value to its place, 0 at the top to `height` at the bottom."""

    @property
    def height(self) -> float:
        """The height of the plot."""
        ...

    def y(self, value: float) -> float:
        """The place of a value, clamped to the plot."""
        ...

    def ticks(self) -> list[tuple[float, str]]:
        """The values that get a line and a label."""
        ...

    def holds(self, value: float) -> bool:
        """Whether the value is within the plot."""
        ...


_LABELLED = ((2.2, (1, 2, 5)), (3.4, (1, 3)), (math.inf, (1,)))
"""Which multiples of a power of ten are labelled on a scale of so many decades."""


@dataclass(frozen=True, slots=True)
class Logarithmic:
    """Decades of nanoseconds."""

    least: float
    most: float
    height: float

    @classmethod
    def over(cls, least: float, most: float, height: float) -> Logarithmic:
        """A scale that holds both, with a little room."""
        low = max(least, 1.0) / 1.6
        high = max(most * 1.35, low * 10)
        return cls(low, high, height)

    def y(self, value: float) -> float:
        """The place of a value, clamped to the plot."""
        share = math.log(max(value, 1e-9) / self.least) / math.log(self.most / self.least)
        return (1 - min(1.0, max(0.0, share))) * self.height

    def holds(self, value: float) -> bool:
        """Whether the value is within the plot."""
        return self.least <= value <= self.most

    def ticks(self) -> list[tuple[float, str]]:
        """The values that get a line and a label."""
        decades = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        span = math.log10(self.most / self.least)
        factors = next(labelled for most, labelled in _LABELLED if span <= most)
        values = [factor * 10**decade for decade in decades for factor in factors]
        return [(value, duration(value)) for value in values if self.holds(value)]


@dataclass(frozen=True, slots=True)
class Linear:
    """From zero to `most` in equal steps."""

    most: float
    height: float
    as_share: bool = False

    def y(self, value: float) -> float:
        """The place of a value, clamped to the plot."""
        return (1 - min(1.0, max(0.0, value / self.most))) * self.height

    def holds(self, value: float) -> bool:
        """Whether the value is within the plot."""
        return 0 <= value <= self.most

    def ticks(self) -> list[tuple[float, str]]:
        """The values that get a line and a label."""
        rough = self.most / max(2, round(self.height / 60))
        power = 10 ** math.floor(math.log10(rough))
        step = step_of(rough, (power, 2 * power, 2.5 * power, 5 * power, 10 * power))
        say = percent if self.as_share else duration
        return [(index * step, say(index * step) if index else "0") for index in range(int(self.most / step) + 1)]


def share_scale(most: float, height: float) -> Linear:
    """A scale for error rates: at least up to 5 %, with room above, at most 100 %."""
    return Linear(min(1.0, max(0.05, most * 1.15)), height, as_share=True)
