"""A way into a service that leads through Squall's proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from squall.errors import TargetError

__all__ = ["RouteTarget", "split_address"]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port"; TargetError for a port that cannot be."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's own range
        raise TargetError(f"{address!r} has no port between 1 and 65535")
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """Clients connect to `listen`, Squall's proxy passes on to `upstream`; it exists for the length of a run."""

    kind: ClassVar[str] = "route"
    listen: str
    upstream: str

    @property
    def key(self) -> str:
        """One word for it: two runs cannot listen in one place."""
        return f"listen:{self.listen}"

    @property
    def label(self) -> str:
        """For people."""
        return f"route {self.listen} -> {self.upstream}"

    def alive(self) -> bool:
        """A route is there as long as its run keeps it: the run asks its proxy."""
        return True

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
        return {"kind": self.kind, "label": self.label, "listen": self.listen, "upstream": self.upstream}
