"""A dependency of known capacity, simulated: so many workers, a queue, a time for each call; and who calls it."""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import TYPE_CHECKING

from squall_resilience.errors import DeadlineExceeded, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveGuard

__all__ = ["Dependency"]


class Dependency:
    """Events in order of time; `clock` is the simulation's, `jump` is added to what the pattern sees of it."""

    def __init__(self, *, workers: int, service: float, spread: float = 0.0, seed: int = 7) -> None:
        self.workers, self.service, self.spread = workers, service, spread
        self.now = self.jump = 0.0
        self.rejected = self.finished = 0
        self.time_out = float("inf")
        self.limits: list[int] = []
        self._random = random.Random(seed)
        self._busy = 0
        self._queue: deque[tuple[AdaptiveGuard, float]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def clock(self) -> float:
        return self.now + self.jump

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, what))

    def _serve(self) -> None:
        while self._queue and self._busy < self.workers:
            guard, came = self._queue.popleft()
            self._busy += 1
            time = self.service * self._random.lognormvariate(0.0, self.spread)
            self.at(self.now + time, lambda guard=guard, came=came: self._done(guard, came))  # type: ignore[misc]

    def _done(self, guard: AdaptiveGuard, came: float) -> None:
        self._busy -= 1
        self.finished += 1
        late = self.now - came > self.time_out
        error = DeadlineExceeded("too late") if late else None
        guard.__exit__(type(error) if error else None, error, None)
        self._serve()

    def run(self, pattern: AdaptiveConcurrency, *, rate: float, seconds: float) -> float:
        """Calls come at this rate, at random moments; the mean limit over the last third of the time."""
        end, seen = self.now + seconds, []

        def comes() -> None:
            guard = pattern.guard()
            try:
                guard.__enter__()
            except Overloaded:
                self.rejected += 1
            else:
                self._queue.append((guard, self.now))
                self._serve()
            if self.now > end - seconds / 3:
                seen.append(pattern.limit)
            self.at(self.now + self._random.expovariate(rate), comes)

        self.at(self.now, comes)
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self._events = [each for each in self._events if each[2] is not comes]
        heapq.heapify(self._events)
        self.now = end
        return sum(seen) / len(seen)
