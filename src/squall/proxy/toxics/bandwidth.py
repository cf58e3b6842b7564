"""bandwidth: data passes at no more than a rate."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic, as_bytes

if TYPE_CHECKING:
    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe

__all__ = ["Bandwidth", "BandwidthAttributes"]

_SECOND_NS = 1_000_000_000
_PIECE_S = 0.02
_BEHIND_NS = 50_000_000
"""How much of being late is made up for: a loop that was held up may catch up this much, not an idle hour."""


@dataclass(frozen=True)
class BandwidthAttributes(Attributes):
    """`rate` in kilobytes (1,000 bytes) a second as in Toxiproxy; `rate_bytes` a second are added. 0 lets nothing pass."""

    ours = frozenset({"rate_bytes"})
    rate: int = 0
    rate_bytes: int = 0


class Bandwidth(Stage[BandwidthAttributes]):
    """Each piece passes when it would have been transmitted at the rate; large ones are cut to 20 ms of it."""

    type = "bandwidth"
    defaults = BandwidthAttributes()

    def __init__(self, host: Host, toxic: Toxic, attributes: BandwidthAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._queue: deque[bytes] = deque()
        self._free_ns = 0
        self._timer: Timer | None = None
        self._ended = False

    def _bytes_per_s(self) -> int:
        return self.attributes.rate * 1000 + self.attributes.rate_bytes

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:  # noqa: ARG002 - the rate alone decides
        self.hit(len(data))
        self._queue.append(as_bytes(data))
        if self._timer is None:
            if len(self._queue) == 1:
                self._free_ns = max(self._free_ns, time.monotonic_ns())
            self._next_piece()

    def _next_piece(self) -> None:
        """Cut the next piece off and wait until it is through; with a rate of 0, wait for another rate."""
        rate = self._bytes_per_s()
        if rate <= 0 or not self._queue:
            return
        size = min(len(self._queue[0]), max(1, int(rate * _PIECE_S)))
        self._free_ns = max(self._free_ns, time.monotonic_ns() - _BEHIND_NS) + size * _SECOND_NS // rate
        self._timer = self.host.loop.call_at(self._free_ns, lambda: self._pass(size))

    def _pass(self, size: int) -> None:
        self._timer = None
        data = self._queue.popleft()
        if size < len(data):
            self._queue.appendleft(data[size:])
        self.next.feed(data[:size], self._free_ns)
        if self._queue:
            self._next_piece()
        elif self._ended:
            self.next.end()

    def end(self) -> None:
        self._ended = True
        if not self._queue:
            self.next.end()

    def configure(self, attributes: BandwidthAttributes) -> None:
        super().configure(attributes)
        self._cancel()
        self._free_ns = time.monotonic_ns()
        self._next_piece()

    def release(self) -> None:
        self._cancel()
        end_is_held = self._ended and bool(self._queue)
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
