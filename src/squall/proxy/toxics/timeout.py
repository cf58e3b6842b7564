"""timeout: data vanishes, and the connection is closed when none has come for a while."""

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

__all__ = ["Timeout", "TimeoutAttributes"]


@dataclass(frozen=True)
class TimeoutAttributes(Attributes):
    """Milliseconds as in Toxiproxy; the nanoseconds are added to them. 0 never closes."""

    ours = frozenset({"timeout_ns"})
    timeout: int = 0
    timeout_ns: int = 0


class Timeout(Stage[TimeoutAttributes]):
    """Each piece that comes is dropped and starts the clock anew; the sender's end is dropped too.

    Taking the toxic away closes the connection: a stream with a hole in it must not go on.
    """

    type = "timeout"
    defaults = TimeoutAttributes()

    def __init__(self, host: Host, toxic: Toxic, attributes: TimeoutAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._since_ns = time.monotonic_ns()
        self._timer: Timer | None = None
        self._arm()

    def _timeout_ns(self) -> int:
        return self.attributes.timeout * 1_000_000 + self.attributes.timeout_ns

    def _arm(self) -> None:
        if self._timeout_ns() > 0:
            self._timer = self.host.loop.call_at(self._since_ns + self._timeout_ns(), self._over)

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:  # noqa: ARG002 - it vanishes whenever it came
        size = len(data)
        self.hit(size)
        self._since_ns = time.monotonic_ns()
        if not isinstance(data, bytes):
            data.discard()
        self.host.left(size)

    def end(self) -> None:
        """The sender's end does not get through either."""

    def _over(self) -> None:
        self._timer = None
        if time.monotonic_ns() - self._since_ns < self._timeout_ns():
            self._arm()
            return
        self.hit_close()
        self.host.close_after(self)

    def configure(self, attributes: TimeoutAttributes) -> None:
        super().configure(attributes)
        self.close()
        self._since_ns = time.monotonic_ns()
        self._arm()

    def release(self) -> None:
        self.hit_close()
        self.host.close_after(self)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
