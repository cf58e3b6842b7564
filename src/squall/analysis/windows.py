"""When: the phases of a run.

A request belongs to the phase in which it was *meant* to be sent: what was sent just before the fault and suffered from
it is the fault's cost, but a request that waits in the client's queue until the fault is over is the fault's too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SECOND", "Span", "Timeline", "in_seconds", "merged"]

SECOND = 1_000_000_000
_UNITS_MAX = 20_000
"""A phase is cut into at most about so many units; phases of many hours get longer ones."""

Span = tuple[int, int]
"""From (included) to (excluded), in ns of CLOCK_MONOTONIC."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When what happened, in ns of CLOCK_MONOTONIC.

    `faults` holds a span for each time a fault was on (pulses too; they may overlap and stand in any order); empty when
    nothing was injected. An irreversible fault (a kill) is on for its step's duration. `recovery_ns` is when the last
    fault's undo was verified; it may be left out (0): the end of the last span.
    """

    baseline_ns: int
    faults: tuple[Span, ...]
    recovery_ns: int
    end_ns: int

    @property
    def before(self) -> tuple[Span, ...]:
        """The baseline, up to the first fault (or the end, when there was none)."""
        first = min((start for start, _ in self.faults), default=self.end_ns)
        return ((self.baseline_ns, first),) if first > self.baseline_ns else ()

    @property
    def during(self) -> tuple[Span, ...]:
        """The times at which any fault was on, in order, without overlap."""
        return merged(self.faults)

    @property
    def fault_end_ns(self) -> int:
        """From when the system is expected to heal."""
        return max([self.recovery_ns, *(end for _, end in self.faults)])

    @property
    def after(self) -> tuple[Span, ...]:
        """From the fault's end to the end of the watch."""
        return ((self.fault_end_ns, self.end_ns),) if self.faults and self.end_ns > self.fault_end_ns else ()


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The union of spans, in order, without overlap; empty and reversed ones are dropped."""
    union: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return tuple(union)


def in_seconds(spans: Sequence[Span]) -> list[Span]:
    """Spans cut into whole seconds, each counted from its span's start; the last of a span may be shorter."""
    step = SECOND * (1 + sum(end - start for start, end in spans) // (SECOND * _UNITS_MAX))
    return [(at, min(at + step, end)) for start, end in spans for at in range(start, end, step)]
