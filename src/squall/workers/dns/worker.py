"""Answers the name queries of a cgroup: a stand-in resolver, and the programs that lead the queries to it.

Both are held by this one process. When it ends, however it ends, the programs go with it and queries go where they were
meant to go; when it is stopped its lease lapses, with the same result.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from squall.errors import SquallError
from squall.kernel import cgroups, namespaces
from squall.kernel.bpf import CgroupHook, Collection, Hook, Lifecycle
from squall.kernel.namespaces import NetworkNamespace
from squall.workers.dns.doors import PORTS, Door, Doors
from squall.workers.dns.redirected import Redirected
from squall.workers.dns.resolver import Resolver
from squall.workers.dns.rule import Judge, rule_of
from squall.workers.dns.streams import Address, Server
from squall.workers.holding import Lease, hold
from squall.workers.lifeline import Lifeline, Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OBJECT", "main", "stand_by"]

OBJECT = "dns"
_LEADING = [f"{call}{version}" for call in ("connect", "sendmsg") for version in (4, 6)]
_NAMING = [f"{call}{version}" for call in ("recvmsg", "getpeername") for version in (4, 6)]
"""What keeps up the name server's address: it is needed until the last answer has arrived."""
_COUNTS = ("led", "crowded", "bound")
"""By their index in the counters of bpf/dns.bpf.c."""
_PLACE = struct.Struct("=Q16sH2sI")
_LOOK_EVERY = 5
"""Renewals between two looks for processes in other network namespaces."""
_LOOKS_EMPTY_MOST = 2
_LAST_ANSWERS_S = 1.0
_READ_S = 0.02
"""So long a program has to read an answer that has just arrived, while the name server's address is still kept up."""


def stand_by() -> None:
    """Have the programs verified before their time comes."""
    Collection.have_ready(OBJECT)


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, config: Mapping[str, Any]) -> None:
    hold(line, Redirected(config) if "netns" in config else _Led(config))


def _folder(config: Mapping[str, Any]) -> str:
    """The cgroup itself, or the one of its own that a process was moved into: `own` is its name."""
    if "folder" in config:
        return str(config["folder"])
    place = cgroups.folders_of(config["pid"]).get("", "")
    while place and os.path.basename(place) != config["own"]:
        place = os.path.dirname(place) if place != "/" else ""
    if not place:
        raise Refused(f"process {config['pid']} is in no cgroup {config['own']}")
    return place


class _Led:
    """The resolver with its doors in every network namespace that the cgroup's processes are in, and the programs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._folder = _folder(config)
        self._doors: dict[tuple[int, int], Doors] = {}
        self._unserved: set[tuple[int, int]] = set()
        self._empty: dict[tuple[int, int], int] = {}
        self._known: dict[tuple[int, int, int], Server] = {}
        self._renewals = 0
        self._life = Lifecycle(OBJECT)
        self._life.load()
        self._lease = Lease(self._life.collection)
        self._judge = Judge(rule_of(config), int(config["seed"]))
        self._resolver = Resolver(self._judge, self._server_of)
        try:
            self._look(first=True)
            self._life.attach(self._hooks(_NAMING) + self._hooks(_LEADING))
        except BaseException:
            self.close()
            raise

    # --- held, as workers.holding asks for it

    def renew(self) -> None:
        """Keep the programs working as long as the resolver does."""
        if not self._resolver.well:
            raise Refused("the resolver no longer answers")
        self._lease.renew()
        self._renewals += 1
        if self._renewals % _LOOK_EVERY == 0:
            self._look()

    def counts(self) -> Mapping[str, int]:
        """Queries by what became of them: hit (by the kind of answer), missed (passed on), and those that could not be led."""
        counters = self._life.collection.map("counters")
        led = {name: counters.total(index) for index, name in enumerate(_COUNTS) if name != "led"}
        found = {**self._judge.counts, **led, "unserved": len(self._unserved)}
        return {"missed": 0, "lapses": self._lease.lapses, **{name: count for name, count in found.items() if count}}

    def become(self, config: Mapping[str, Any]) -> None:
        """Judge by another rule from the next query on."""
        self._judge.follow(rule_of(config))

    def close(self) -> None:
        """Let queries go direct; give those that are on their way the time to arrive."""
        self._life.detach(self._hooks(_LEADING))
        self._resolver.finish(_LAST_ANSWERS_S)
        time.sleep(_READ_S)
        for doors in self._doors.values():
            doors.close()
        self._doors = {}
        self._life.close()

    def _hooks(self, names: list[str]) -> list[Hook]:
        return [CgroupHook(f"dns_{name}", self._folder, name) for name in names]

    # --- where the cgroup's processes are

    def _look(self, *, first: bool = False) -> None:
        """Have doors in each network namespace that a process of the cgroup is in, and in no other."""
        there: dict[tuple[int, int], int] = {}
        for pid in cgroups.processes_below([self._folder]):
            if (where := namespaces.network_of(pid)) is not None:
                there.setdefault(where, pid)
        for where, pid in there.items():
            if where not in self._doors and where not in self._unserved:
                self._open(where, pid, first=first)
        for where in list(self._doors):
            self._empty[where] = 0 if where in there else self._empty.get(where, 0) + 1
            if self._empty[where] >= _LOOKS_EMPTY_MOST:
                self._leave(where)

    def _open(self, where: tuple[int, int], pid: int, *, first: bool) -> None:
        try:
            namespace = NetworkNamespace.at(f"/proc/{pid}/ns/net")
            if (namespace.device, namespace.inode) != where:
                return
            doors = _doors_in(namespace)
        except (OSError, SquallError):
            return  # it has ended meanwhile
        except Refused:
            if first:
                raise
            self._unserved.add(where)
            return
        self._resolver.serve(doors)
        self._doors[where] = doors
        pool = b"".join(_ports(doors.ports(family)) for family in (socket.AF_INET, socket.AF_INET6))
        self._life.collection.map("pools")[struct.pack("=Q", namespace.cookie)] = pool

    def _leave(self, where: tuple[int, int]) -> None:
        doors = self._doors.pop(where)
        self._empty.pop(where)
        del self._life.collection.map("pools")[struct.pack("=Q", doors.namespace.cookie)]
        self._resolver.leave(doors)

    def _server_of(self, door: Door, _kind: int, _client: Address) -> Server | None:
        """Whom this port stands for; None as long as it stands for nobody."""
        key = (door.doors.namespace.cookie, door.family, door.port)
        if key not in self._known:
            host = b"\x7f\0\0\1".ljust(16, b"\0") if door.family == socket.AF_INET else bytes(15) + b"\1"
            place = _PLACE.pack(key[0], host, door.family, struct.pack(">H", door.port), 0)
            try:
                value = self._life.collection.map("homeward")[place]
            except KeyError:
                return None
            _, address, _, port, _ = _PLACE.unpack(value)
            size = 4 if door.family == socket.AF_INET else 16
            self._known[key] = Server(socket.inet_ntop(door.family, address[:size]), int.from_bytes(port))
        return self._known[key]


def _doors_in(namespace: NetworkNamespace) -> Doors:
    if not namespace.cookie:
        raise Refused("this kernel gives network namespaces no cookies (Linux 5.14 does)")
    return Doors.open(namespace)


def _ports(ports: list[int]) -> bytes:
    return b"".join(struct.pack(">H", port) for port in ports).ljust(2 * PORTS, b"\0")
