"""reset_peer: the connection is reset once data has flowed."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic

if TYPE_CHECKING:
    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe

__all__ = ["ResetPeer", "ResetPeerAttributes"]


@dataclass(frozen=True)
class ResetPeerAttributes(Attributes):
    """Milliseconds as in Toxiproxy, from the first data; the nanoseconds are added to them."""

    ours = frozenset({"timeout_ns"})
    timeout: int = 0
    timeout_ns: int = 0


class ResetPeer(Stage[ResetPeerAttributes]):
    """The first piece, or the end, starts the clock; all that comes is dropped; then both sides see a reset."""

    type = "reset_peer"
    defaults = ResetPeerAttributes()

    def __init__(self, host: Host, toxic: Toxic, attributes: ResetPeerAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._timer: Timer | None = None
        self._begun = False

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        size = len(data)
        self.hit(size)
        if not isinstance(data, bytes):
            data.discard()
        self.host.left(size)
        self._begin(stamp_ns)

    def end(self) -> None:
        self._begin(time.monotonic_ns())

    def _begin(self, stamp_ns: int) -> None:
        if self._begun:
            return
        self._begun = True
        timeout_ns = self.attributes.timeout * 1_000_000 + self.attributes.timeout_ns
        self._timer = self.host.loop.call_at(stamp_ns + timeout_ns, self._over)

    def _over(self) -> None:
        self._timer = None
        self.hit_close()
        self.host.reset()

    def release(self) -> None:
        self.close()
        if self._begun:  # something was dropped: the stream must not go on
            self._over()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
