"""limit_data: the connection is closed after so many bytes have passed."""

# ruff: noqa: D102 - the base class says what each method is for

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.toxics.attributes import Attributes
from squall.proxy.toxics.stage import Host, Stage, Toxic, as_bytes

if TYPE_CHECKING:
    from squall.proxy.pipes import FilledPipe

__all__ = ["LimitData", "LimitDataAttributes"]


@dataclass(frozen=True)
class LimitDataAttributes(Attributes):
    """How many bytes of each connection pass, counted from when the toxic came on it."""

    bytes: int = 0


class LimitData(Stage[LimitDataAttributes]):
    """Counts, cuts the piece that crosses the limit, and closes."""

    type = "limit_data"
    defaults = LimitDataAttributes()
    takes_pipes = True

    def __init__(self, host: Host, toxic: Toxic, attributes: LimitDataAttributes) -> None:
        super().__init__(host, toxic, attributes)
        self._passed = 0
        self._over = False

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        size = len(data)
        allowed = 0 if self._over else max(0, self.attributes.bytes - self._passed)
        if size < allowed:
            self._passed += size
            self.next.feed(data, stamp_ns)
            return
        self._passed += allowed
        self.hit(size)
        whole = as_bytes(data)
        if allowed:
            self.next.feed(whole[:allowed], stamp_ns)
        if size > allowed:
            self.host.left(size - allowed)
        if not self._over:
            self._over = True
            self.hit_close()
            self.host.close_after(self)
