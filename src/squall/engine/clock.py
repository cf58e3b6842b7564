"""The engine's clocks, behind a seam so that tests can let time jump and machines sleep."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """All in nanoseconds."""

    def mono_ns(self) -> int:
        """CLOCK_MONOTONIC: what everything in a run is timed by; it does not count a suspended machine."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME: the same, and counts it."""

    def wall_ns(self) -> int:
        """Unix time: written down, never computed with."""


class SystemClock:
    """The machine's."""

    def mono_ns(self) -> int:  # noqa: D102 - as the protocol says
        return time.monotonic_ns()

    def boot_ns(self) -> int:  # noqa: D102
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:  # noqa: D102
        return time.time_ns()
