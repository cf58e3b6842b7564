"""slow_close: the end of a connection is passed on late."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic

if TYPE_CHECKING:
    from squall.proxy.loop import Timer

__all__ = ["SlowClose", "SlowCloseAttributes"]


@dataclass(frozen=True)
class SlowCloseAttributes(Attributes):
    """Milliseconds as in Toxiproxy; the nanoseconds are added to them."""

    ours = frozenset({"delay_ns"})
    delay: int = 0
    delay_ns: int = 0


class SlowClose(Stage[SlowCloseAttributes]):
    """Data passes untouched; the end waits."""

    type = "slow_close"
    defaults = SlowCloseAttributes()
    takes_pipes = True

    def __init__(self, host: Host, toxic: Toxic, attributes: SlowCloseAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._came_ns = 0
        self._timer: Timer | None = None

    def end(self) -> None:
        if not self._came_ns:
            self._came_ns = time.monotonic_ns()
            self.hit_close()
            self._wait()

    def _wait(self) -> None:
        delay_ns = self.attributes.delay * 1_000_000 + self.attributes.delay_ns
        self._timer = self.host.loop.call_at(self._came_ns + delay_ns, self._over)

    def _over(self) -> None:
        self._timer = None
        self.next.end()

    def configure(self, attributes: SlowCloseAttributes) -> None:
        super().configure(attributes)
        if self._timer is not None:
            self._timer.cancel()
            self._wait()

    def release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._over()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
