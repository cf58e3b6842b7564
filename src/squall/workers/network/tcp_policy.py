"""Holds data of TCP connections by a policy: the program of bpf/tcp_policy.bpf.c on every interface of a namespace.

`config` is like that of a `Filter` (netns, scope, filters), with `policy` [[address, port, ns]...] and `how`: "fq" where
every interface's queue knows departure times and holds the packets itself, "line" for a delay line of this process.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import TYPE_CHECKING, Any

from squall.kernel.bpf import Collection
from squall.workers.holding import Lease, hold
from squall.workers.lifeline import Lifeline, run
from squall.workers.network.filter import enter_namespace
from squall.workers.network.interfaces import Interfaces
from squall.workers.network.line import Line
from squall.workers.network.policy import Policy
from squall.workers.network.pump import pump
from squall.workers.network.schedule import Schedule, Shape
from squall.workers.network.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.kernel.netlink import Netlink
    from squall.workers.network.interfaces import Diverting

__all__ = ["knows_departure_times", "main", "stand_by"]

_PROGRAMS = ("egress", "note")
_SCOPES = {"netns": 0, "cgroup": 1, "process": 2}
_HOW = {"line": 0, "fq": 1}
_COUNTERS = ("held", "unheld", "unreached")
_ZERO = struct.pack("<I", 0)
_LOOK_S = 1.0
"""How often the target's sockets and processes are looked at again."""


def stand_by() -> None:
    """Have the programs verified before their time comes."""
    Collection.have_ready("tcp_policy", _PROGRAMS)


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(life: Lifeline, config: Mapping[str, Any]) -> None:
    enter_namespace(config)
    if config["how"] == "line":
        held = _PolicyByLine(config)
        pump(life, held, held.line)
    else:
        hold(life, _Policy(config))


def knows_departure_times(netlink: Netlink, index: int) -> bool:
    """Whether packets leave this interface by queues that hold them until their departure time: fq, alone or below mq."""
    qdiscs = [one for one in netlink.qdiscs(index) if one.kind not in ("clsact", "ingress")]
    return bool(qdiscs) and all(one.kind in ("fq", "mq") for one in qdiscs) and any(one.kind == "fq" for one in qdiscs)


class _Policy:
    """The program on every interface, with its policy."""

    def __init__(self, config: Mapping[str, Any], diverting: Diverting | None = None) -> None:
        scope = config["scope"]
        whole = scope["kind"] == "netns"
        self._collection = Collection.load("tcp_policy", _PROGRAMS)
        self._lease = Lease(self._collection)
        self._lease.renew()  # from here on sockets are noted
        cgroup = os.stat(scope["cgroup"]).st_ino if scope.get("cgroup") else 0
        settings = struct.pack("<IIQ", _SCOPES[scope["kind"]], _HOW[config["how"]], cgroup)
        self._collection.map("settings")[_ZERO] = settings
        self._policy = Policy({})
        self._take(config)
        self._sockets = None if whole else Sockets(self._collection, scope)
        self._interfaces = Interfaces(self._collection, ("egress",), config.get("filters", ""), diverting)
        self._looked_s = time.monotonic()

    def fileno(self) -> int:
        """Can be read when interfaces have changed."""
        return self._interfaces.fileno()

    def become(self, config: Mapping[str, Any]) -> None:
        """Take another policy: new entries first, then those that are no more go."""
        self._take(config)

    def _take(self, config: Mapping[str, Any]) -> None:
        new, policy = Policy.of(config["policy"]), self._collection.map("policy")
        for key, value in new.packed():
            policy[key] = value
        kept = {key for key, _ in new.packed()}
        for key, _ in self._policy.packed():
            if key not in kept:
                with contextlib.suppress(KeyError):
                    del policy[key]
        self._policy = new

    def renew(self) -> None:
        """Renew the lease; look after interfaces at once, after sockets within a second."""
        self._lease.renew()
        self._interfaces.refresh()
        if self._sockets is not None and time.monotonic() - self._looked_s > _LOOK_S:
            self._looked_s = time.monotonic()
            self._sockets.refresh()

    def counts(self) -> dict[str, int]:
        """Packets of established connections with data: held, of which the policy says nothing, where none can be held."""
        counters = self._collection.map("counters")
        counts = {name: counters.total(index) for index, name in enumerate(_COUNTERS)}
        counts = {name: count for name, count in counts.items() if count or name == "held"}
        return counts | {"interfaces": len(self._interfaces), "lapses": self._lease.lapses}

    def close(self) -> None:
        """Take everything off; what others have there stays."""
        self._interfaces.close()
        if self._sockets is not None:
            self._sockets.close()
        self._collection.close()


class _PolicyByLine(_Policy):
    """Packets go through a delay line of this process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.line = Line({"egress": Schedule(Shape())}, filters=config.get("filters", ""))
        super().__init__(config, self.line)

    def _take(self, config: Mapping[str, Any]) -> None:
        super()._take(config)
        self.line.policy = self._policy.wanted_ns

    def counts(self) -> dict[str, int]:
        line = self.line.counts()
        return super().counts() | {name: line[name] for name in ("overflowed", "unwritable") if line[name]}

    def close(self) -> None:
        self._collection.map("lease")[_ZERO] = bytes(8)  # from here on nothing comes in
        self.line.flush()
        super().close()
        self.line.close()
