"""latency: all data arrives late; order is kept."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from squall.proxy.refusals import Invalid
from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic

if TYPE_CHECKING:
    from random import Random

    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe

__all__ = ["Latency", "LatencyAttributes"]

_PRECISE_BELOW_BYTES = 16_384
"""Larger pieces are bulk: nobody sees 50 microseconds on them, so the loop need not wait awake for their time."""


@dataclass(frozen=True)
class LatencyAttributes(Attributes):
    """Milliseconds as in Toxiproxy; the nanoseconds are added to them. `correlation` is 0 to 1."""

    ours = frozenset({"correlation", "latency_ns", "jitter_ns"})
    latency: int = 0
    jitter: int = 0
    correlation: float = 0.0
    latency_ns: int = 0
    jitter_ns: int = 0

    def check(self) -> None:
        if not 0 <= self.correlation <= 1:
            raise Invalid(f"correlation {self.correlation} is out of range: 0 to 1 is allowed")


class Latency(Stage[LatencyAttributes]):
    """Each piece is due its delay after it arrived, and never before the piece ahead of it."""

    type = "latency"
    defaults = LatencyAttributes()
    capacity = -1
    takes_pipes = True
    stamped = True
    _unit: ClassVar[int] = 1_000_000

    def __init__(self, host: Host, toxic: Toxic, attributes: LatencyAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._queue: deque[tuple[int, int, bytes | FilledPipe]] = deque()
        self._random: Random | None = None
        self._swing = 0.0
        self._last_due_ns = 0
        self._timer: Timer | None = None
        self._ended = False

    def _delay_ns(self) -> int:
        wanted = self.attributes
        base_ns = wanted.latency * self._unit + wanted.latency_ns
        jitter_ns = wanted.jitter * self._unit + wanted.jitter_ns
        if not jitter_ns:
            return base_ns
        if self._random is None:
            self._random = self.host.random(self.toxic.name)
        fresh = self._random.uniform(-1, 1)
        self._swing = wanted.correlation * self._swing + (1 - wanted.correlation) * fresh
        return max(0, base_ns + int(jitter_ns * self._swing))

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        self.hit(len(data))
        due_ns = self._last_due_ns = max(self._last_due_ns, stamp_ns + self._delay_ns())
        if not self._queue and due_ns <= time.monotonic_ns():
            self.next.feed(data, due_ns)
            return
        self._queue.append((due_ns, stamp_ns, data))
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        due_ns, _, data = self._queue[0]
        self._timer = self.host.loop.call_at(due_ns, self._due, precise=len(data) < _PRECISE_BELOW_BYTES)

    def _due(self) -> None:
        self._timer = None
        queue, now_ns = self._queue, time.monotonic_ns()
        while queue and queue[0][0] <= now_ns:
            due_ns, _, data = queue.popleft()
            self.next.feed(data, due_ns)
        if queue:
            self._arm()
        elif self._ended:
            self.next.end()

    def end(self) -> None:
        self._ended = True
        if not self._queue:
            self.next.end()

    def configure(self, attributes: LatencyAttributes) -> None:
        super().configure(attributes)
        held, self._last_due_ns = list(self._queue), 0
        self._queue.clear()
        for _, stamp_ns, data in held:
            self._last_due_ns = max(self._last_due_ns, stamp_ns + self._delay_ns())
            self._queue.append((self._last_due_ns, stamp_ns, data))
        self._cancel()
        if self._queue:
            self._arm()

    def release(self) -> None:
        self._cancel()
        end_is_held = self._ended and bool(self._queue)
        while self._queue:
            _, stamp_ns, data = self._queue.popleft()
            self.next.feed(data, stamp_ns)
        if end_is_held:
            self.next.end()

    def close(self) -> None:
        self._cancel()
        for _, _, data in self._queue:
            if not isinstance(data, bytes):
                data.discard()
        self._queue.clear()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
