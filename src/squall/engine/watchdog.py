"""What can end a run early, and the beat that tells the guardian that the engine lives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal

from squall.units import Duration

if TYPE_CHECKING:
    from squall.engine.clock import Clock
    from squall.engine.log import EventLog
    from squall.recovery import Guard, State

__all__ = ["Cause", "Ending", "Watchdog"]

Cause = Literal["ceiling", "guardian-lost", "deadline", "stopped", "halted", "error", "interrupted"]

_BEAT_S = 0.2
_SLEPT_NS = 2_000_000_000
"""A gap between the two clocks that grows by more than this is a machine that was suspended."""


class Ending:
    """Whether the run is to end before its time, and why: the first reason counts."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cause: Cause | None = None
        self.reason = ""
        self.evidence: dict[str, Any] = {}

    def ask(self, cause: Cause, reason: str, evidence: dict[str, Any] | None = None) -> None:
        """End the run; harmless when it ends already."""
        if self.cause is None:
            self.cause, self.reason, self.evidence = cause, reason, evidence or {}
            self.asked.set()

    async def within(self, seconds: float) -> bool:
        """Wait so long; True as soon as the run is to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.asked.wait(), seconds)
        return self.asked.is_set()


class Watchdog:
    """Beats several times a second and looks at what a run's safety rests on: guardian, halt flag, clocks, the event file."""

    def __init__(self, ending: Ending, guard: Guard, state: State, log: EventLog, clock: Clock) -> None:
        self._ending, self._guard, self._state, self._log, self._clock = ending, guard, state, log, clock
        self._deadline_ns = 0
        self._gap_ns = clock.boot_ns() - clock.mono_ns()

    def allow(self, seconds: float) -> None:
        """The stage that begins now may take so long; after that the guardian ends the engine."""
        self._deadline_ns = self._clock.boot_ns() + round(seconds * 1e9)
        self._guard.beat(seconds)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_BEAT_S)

    def look(self) -> None:
        """Once."""
        now_ns = self._clock.boot_ns()
        self._guard.beat(max(0.0, (self._deadline_ns - now_ns) / 1e9))
        if self._guard.lost():
            self._ending.ask("guardian-lost", "the guardian is gone: nothing may stay injected without one")
        if self._state.halted:
            self._ending.ask("halted", "squall halt")
        if self._log.failure is not None:
            self._ending.ask("error", f"the events cannot be written: {self._log.failure.strerror}")
        slept_ns = (now_ns - self._clock.mono_ns()) - self._gap_ns
        if slept_ns > _SLEPT_NS:
            self._ending.ask(
                "error",
                f"the machine was suspended for {Duration(round(slept_ns / 1e8) * 100_000_000)}: what was measured says nothing",
            )
