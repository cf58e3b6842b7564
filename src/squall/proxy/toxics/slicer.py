"""slicer: data arrives in small pieces."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic, as_bytes

if TYPE_CHECKING:
    from random import Random

    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe

__all__ = ["Slicer", "SlicerAttributes"]

_PIECES_AT_ONCE = 256
"""Without a pause between pieces the loop still serves others after so many."""


@dataclass(frozen=True)
class SlicerAttributes(Attributes):
    """`average_size` and `size_variation` in bytes, `delay` in microseconds as in Toxiproxy; the nanoseconds are added to it."""

    ours = frozenset({"delay_ns"})
    average_size: int = 0
    size_variation: int = 0
    delay: int = 0
    delay_ns: int = 0


class Slicer(Stage[SlicerAttributes]):
    """Cuts what comes, and pauses after each piece; an average of 0 cuts nothing."""

    type = "slicer"
    defaults = SlicerAttributes()

    def __init__(self, host: Host, toxic: Toxic, attributes: SlicerAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._queue: deque[bytes] = deque()
        self._random: Random | None = None
        self._timer: Timer | None = None
        self._ended = False

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        self._queue.append(as_bytes(data))
        if self._timer is None:
            self._cut(stamp_ns)

    def _cut(self, stamp_ns: int) -> None:
        delay_ns = self.attributes.delay * 1000 + self.attributes.delay_ns
        for _ in range(1 if delay_ns > 0 else _PIECES_AT_ONCE):
            if not self._queue:
                break
            self._pass_one(stamp_ns)
        if delay_ns > 0 or self._queue:
            self._timer = self.host.loop.call_at(time.monotonic_ns() + delay_ns, self._again)
        elif self._ended:
            self.next.end()

    def _pass_one(self, stamp_ns: int) -> None:
        data = self._queue.popleft()
        size = min(self._size(), len(data))
        if size < len(data):
            self._queue.appendleft(data[size:])
        self.hit(size)
        self.next.feed(data[:size], stamp_ns)

    def _size(self) -> int:
        average, variation = self.attributes.average_size, self.attributes.size_variation
        if average <= 0:
            return 1 << 62
        if variation <= 0:
            return average
        if self._random is None:
            self._random = self.host.random(self.toxic.name)
        return max(1, average + self._random.randint(-variation, variation))

    def _again(self) -> None:
        self._timer = None
        if self._queue:
            self._cut(time.monotonic_ns())
        elif self._ended:
            self.next.end()

    def end(self) -> None:
        self._ended = True
        if not self._queue and self._timer is None:
            self.next.end()

    def configure(self, attributes: SlicerAttributes) -> None:
        super().configure(attributes)
        if self._timer is not None:
            self._timer.cancel()
            self._again()

    def release(self) -> None:
        end_is_held = self._ended and (bool(self._queue) or self._timer is not None)
        self._cancel()
        while self._queue:
            self.next.feed(self._queue.popleft(), time.monotonic_ns())
        if end_is_held:
            self.next.end()

    def close(self) -> None:
        self._cancel()
        self._queue.clear()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
