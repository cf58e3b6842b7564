"""Holds data of TCP connections by a policy: the programs of bpf/tcp_policy.bpf.c on every interface of a namespace.

An interface whose queue knows departure times (fq) holds the packets itself where `mechanism` is "fq"; with "line" they
go through a delay line of this process.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Any, Literal

from squall.kernel.bpf import BpfError, Collection, TcxHook
from squall.kernel.bpf.lifecycle import Lifecycle
from squall.kernel.namespaces import NetworkNamespace, enter
from squall.kernel.netlink import LinkWatch, Netlink
from squall.workers.holding import Lease, hold
from squall.workers.lifeline import Lifeline, Refused, run
from squall.workers.network.line import Line, Origin
from squall.workers.network.policy import Policy
from squall.workers.network.pump import pump
from squall.workers.network.schedule import Schedule, Shape
from squall.workers.network.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.kernel.netlink import Link

__all__ = ["SCOPES", "knows_departure_times", "main", "reachable"]

SCOPES = {"netns": 0, "cgroup": 1, "process": 2}
_BY_DEPARTURE_TIME, _BY_LINE = 1, 2
_ORDERS = 1 << 23
_HELD, _UNHELD = 0, 1
_MAC = 6
_ZERO = struct.pack("<I", 0)


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(life: Lifeline, config: Mapping[str, Any]) -> None:
    fd = NetworkNamespace.from_json(config["netns"]).open()
    enter(fd)
    os.close(fd)
    if config["mechanism"] == "line":
        held = _PolicyByLine(config)
        pump(life, held, held.line)
    else:
        hold(life, _PolicyByQueue(config))


def reachable(link: Link) -> bool:
    """Whether a delay line can take this interface's packets: they must have Ethernet headers, and not be a line's own."""
    return len(link.address) == _MAC and not link.name.startswith("squall")


def knows_departure_times(netlink: Netlink, index: int) -> bool:
    """Whether packets leave this interface by queues that hold them until their departure time: fq, alone or below mq."""
    qdiscs = [one for one in netlink.qdiscs(index) if one.kind not in ("clsact", "ingress")]
    return bool(qdiscs) and all(one.kind in ("fq", "mq") for one in qdiscs) and any(one.kind == "fq" for one in qdiscs)


class _Policy:
    """The program on every interface, with its policy; each subclass has another way to hold packets."""

    kind: Literal["line", "fq"]

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._watch = LinkWatch()
        self._programs = Lifecycle("tcp_policy")
        self._programs.load()
        self._lease = Lease(self._programs.collection)
        scope = config["scope"]
        self._attached: dict[int, TcxHook] = {}
        self._policy = Policy({})
        settings = struct.pack("<IIQ", SCOPES[scope["kind"]], 0, scope.get("cgroup_id", 0))
        self._programs.adjust("settings", _ZERO, settings)
        self._lease.renew()  # from here on sockets are noted
        self._sockets = Sockets(self.collection, scope) if scope["kind"] != "netns" else None
        self._take(config)

    @property
    def collection(self) -> Collection:
        """The programs and maps."""
        return self._programs.collection

    def fileno(self) -> int:
        """Can be read when interfaces have changed."""
        return self._watch.fileno()

    def become(self, config: Mapping[str, Any]) -> None:
        """Take another policy: new entries first, then those that are no more go."""
        self._take(config)

    def _take(self, config: Mapping[str, Any]) -> None:
        new, policy = Policy.of(config["policy"]), self.collection.map("policy")
        for key, value in new.packed():
            policy[key] = value
        kept = {key for key, _ in new.packed()}
        for key, _ in self._policy.packed():
            if key not in kept:
                with contextlib.suppress(KeyError):
                    del policy[key]
        self._policy = new

    def renew(self) -> None:
        """Renew the lease; attach to interfaces that came, forget those that went."""
        self._lease.renew()
        if self._sockets is not None:
            self._sockets.refresh()
        if self._watch.changed() or not self._attached:
            with Netlink() as netlink:
                links = {link.index: link for link in netlink.links()}
                for index in [index for index in self._attached if index not in links]:
                    self._programs.detach([self._attached.pop(index)])
                    self._gone(index)
                for index, link in links.items():
                    if index not in self._attached and link.up and reachable(link):
                        self._attach(netlink, link)

    def _attach(self, netlink: Netlink, link: Link) -> None:
        """Attach to one interface; one that went while it was looked at is left."""
        hook = TcxHook("hold", link.index, "egress")
        try:
            way = self._way(netlink, link)
            if way is None:
                return
            self.collection.map("ways")[struct.pack("<I", link.index)] = struct.pack("<III", *way)
            self._programs.attach([hook])
        except (BpfError, OSError):
            self._gone(link.index)
            if any(one.index == link.index for one in netlink.links()):
                raise
        else:
            self._attached[link.index] = hook

    def _way(self, netlink: Netlink, link: Link) -> tuple[int, int, int] | None:
        raise NotImplementedError

    def _gone(self, index: int) -> None:
        with contextlib.suppress(KeyError):
            del self.collection.map("ways")[struct.pack("<I", index)]

    def counts(self) -> dict[str, int]:
        """Packets of established connections with data: held, and those of which the policy says nothing."""
        counters = self.collection.map("counters")
        counted = {"held": counters.total(_HELD), "unheld": counters.total(_UNHELD), "lapses": self._lease.lapses}
        return counted | {"interfaces": len(self._attached)}

    def close(self) -> None:
        """Detach first, so that nothing more comes in."""
        if self._sockets is not None:
            self._sockets.close()
        self._programs.close()
        self._watch.close()


class _PolicyByQueue(_Policy):
    """Packets get a departure time; the interface's fq holds them until then."""

    def _way(self, netlink: Netlink, link: Link) -> tuple[int, int, int] | None:
        return (_BY_DEPARTURE_TIME, 0, 0) if knows_departure_times(netlink, link.index) else None


class _PolicyByLine(_Policy):
    """Packets go through a delay line of this process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._schedule: Schedule[tuple[int, bytes]] = Schedule(Shape())
        with Netlink() as netlink:
            newest = max((link.index for link in netlink.links()), default=0)
        if newest >= _ORDERS:
            raise Refused(f"the newest interface has the number {newest}: marks of packets go to {_ORDERS - 1}")
        self._order = newest  # a line that comes later finds this one's devices, and so has a higher number
        self.line = Line({"egress": self._schedule})
        super().__init__(config)

    def _take(self, config: Mapping[str, Any]) -> None:
        super()._take(config)
        self.line.policy = self._policy.wanted_ns

    def _way(self, netlink: Netlink, link: Link) -> tuple[int, int, int] | None:  # noqa: ARG002 - as the base says
        loopback = link.name == "lo"
        device = self.line.divert(Origin(link.index, "egress"), link.mtu, self._order, loopback=loopback)
        return _BY_LINE, device, self._order

    def _gone(self, index: int) -> None:
        super()._gone(index)
        self.line.forget(index)

    def counts(self) -> dict[str, int]:
        line = self.line.counts()
        return super().counts() | {name: line[name] for name in ("overflowed", "unwritable") if line[name]}

    def close(self) -> None:
        super().close()
        self.line.flush()
        self.line.close()
