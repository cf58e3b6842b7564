"""Holds packets by a delay line for as long as it lives: the mechanism "line" of network faults.

`config` is that of a `Filter` with "divert" as its verdict, and `shape` {direction: Shape as dataclasses.asdict gives it}.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal

from squall.workers.lifeline import Lifeline, run
from squall.workers.network.filter import Filter, enter_namespace, stand_by
from squall.workers.network.line import Line
from squall.workers.network.names import Names
from squall.workers.network.pump import pump
from squall.workers.network.schedule import Schedule, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main", "stand_by"]

_ZERO = struct.pack("<I", 0)
_TOLD = ("reordered", "overflowed", "unwritable", "foreign")


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(life: Lifeline, config: Mapping[str, Any]) -> None:
    names = Names(config.get("resolved", {}))
    enter_namespace(config)
    held = _Held(config, names)
    pump(life, held, held.line)


class _Held:
    """A filter and the line that it sends packets to."""

    def __init__(self, config: Mapping[str, Any], names: Names) -> None:
        shape, seed = Shape.from_json(config["shape"]), int(config["seed"])
        ways: tuple[Literal["egress", "ingress"], ...] = ("egress", "ingress")
        self._schedules = {way: Schedule[tuple[int, bytes]](shape, seed + number) for number, way in enumerate(ways)}
        self.line = Line(self._schedules, filters=config.get("filters", ""))
        self._filter = Filter(config, names, self.line)

    def fileno(self) -> int:
        """Can be read when interfaces have changed."""
        return self._filter.fileno()

    def renew(self) -> None:
        """Renew the lease, look after interfaces, sockets and names."""
        self._filter.renew()

    def become(self, config: Mapping[str, Any]) -> None:
        """Take another filter and shape; what is held leaves when it was to."""
        shape = Shape.from_json(config["shape"])
        for schedule in self._schedules.values():
            schedule.become(shape)
        self.line.reshape()
        self._filter.become(config)

    def counts(self) -> dict[str, int]:
        """Packets: the filter's, and those that got lost in the line."""
        line = self.line.counts()
        return self._filter.counts() | {name: line[name] for name in _TOLD if line[name]}

    def close(self) -> None:
        """Let nothing more in, let out what is held, take everything off."""
        self._filter.collection.map("lease")[_ZERO] = bytes(8)
        self.line.flush()
        self._filter.close()
        self.line.close()
