"""The filter of a network fault in the kernel: the programs of bpf/network.bpf.c on the interfaces of one namespace.

What it is told (`config`, JSON) is the same for every mechanism that has packets chosen by it:

    netns      the network namespace (NetworkNamespace.to_json)
    scope      {"kind": "netns" | "cgroup" | "process", "cgroup": FOLDER, "processes": [ProcessIdentity...],
                "descendants": bool}
    match      Match, as dataclasses.asdict gives it
    resolved   {host name: [address...]} as the plan has found them
    strike     {"verdict": ..., "share": 0..0xffffffff, "correlation": the same, "class_": number}
    filters    the name of its clsact filters where the kernel has no tcx, else ""
    seed       number

A worker makes `Names` first, then enters the namespace, then makes the `Filter`.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
from typing import TYPE_CHECKING, Any

from squall.kernel import cgroups
from squall.kernel.bpf import Collection
from squall.kernel.namespaces import NetworkNamespace, enter
from squall.workers.holding import Lease, seed
from squall.workers.network.interfaces import Interfaces
from squall.workers.network.match import Match, Networks, Strike, pack_settings
from squall.workers.network.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.network.interfaces import Diverting
    from squall.workers.network.names import Names

__all__ = ["Filter", "enter_namespace", "stand_by"]

_COUNTERS = ("missed", "dropped", "corrupted", "duplicated", "diverted", "classified", "failed")
_ZERO = struct.pack("<I", 0)
_ROOT_INODE = 1
"""Of a mounted cgroup v2 whose root is the machine's: then a folder's depth is the cgroup's."""
_PROGRAMS = ("egress", "ingress", "note")
_LOOK_S = 1.0
"""How often the target's sockets and processes are looked at again."""


def stand_by() -> None:
    """Have the programs verified before their time comes."""
    Collection.have_ready("network", _PROGRAMS)


def enter_namespace(config: Mapping[str, Any]) -> None:
    """Move the calling thread into the namespace that a filter is to be in, for good."""
    fd = NetworkNamespace.from_json(config["netns"]).open()
    try:
        enter(fd)
    finally:
        os.close(fd)


class Filter:
    """Held by the thread that makes it, which is in the namespace. Begins with the first `renew`."""

    def __init__(self, config: Mapping[str, Any], names: Names, diverting: Diverting | None = None) -> None:
        self._names, self._scope = names, config["scope"]
        whole = self._scope["kind"] == "netns"
        self._collection = Collection.load("network", _PROGRAMS)
        self._sockets: Sockets | None = None
        self._words: dict[int, int] = {}
        self._networks: Networks = {}
        try:
            self._begin(int(config["seed"]))
            self._take(config)
            self._interfaces = Interfaces(self._collection, self._match.ways, config.get("filters", ""), diverting)
            if not whole:
                self._sockets = Sockets(self._collection, self._scope)
        except BaseException:
            self._collection.close()
            raise
        self._lease = Lease(self._collection)
        self._looked_s = time.monotonic()

    def _begin(self, value: int) -> None:
        seed(self._collection, value)
        chance = random.Random(value)  # noqa: S311 - replayed from a seed, not a secret
        for way in range(2):
            self._collection.map("chances")[struct.pack("<I", way)] = struct.pack("<I", chance.getrandbits(32))

    def fileno(self) -> int:
        """Can be read when interfaces have changed."""
        return self._interfaces.fileno()

    @property
    def collection(self) -> Collection:
        """Its programs and maps."""
        return self._collection

    def renew(self) -> None:
        """Renew the lease; look after interfaces at once, after sockets and names within a second."""
        self._interfaces.refresh()
        if time.monotonic() - self._looked_s > _LOOK_S:
            self._looked_s = time.monotonic()
            self._put_networks()
            if self._sockets is not None:
                self._sockets.refresh()
        self._lease.renew()

    def become(self, config: Mapping[str, Any]) -> None:
        """Take another match and strike, without a gap; its target stays."""
        self._take(config)
        self._interfaces.become(self._match.ways)

    def _take(self, config: Mapping[str, Any]) -> None:
        """What is new is there before it is asked for, what is old goes afterwards."""
        self._match, strike = Match.from_json(config["match"]), Strike(**config["strike"])
        self._names.add({name: tuple(found) for name, found in config.get("resolved", {}).items()})
        words, ports = self._match.port_words(), self._collection.map("ports")
        for key, word in words.items():
            ports[struct.pack("<I", key)] = struct.pack("<Q", word | self._words.get(key, 0))
        networks = self._put_networks(keep_old=True)
        cgroup, level = self._cgroup()
        self._collection.map("settings")[_ZERO] = pack_settings(self._match, strike, self._scope["kind"], cgroup, level)
        for key in {**self._words, **words}:
            ports[struct.pack("<I", key)] = struct.pack("<Q", words.get(key, 0))
        self._words = words
        self._drop_networks(networks)

    def _cgroup(self) -> tuple[int, int]:
        """The target's cgroup by its number and depth; 0 where there is none, or where the depth cannot be told."""
        folder = self._scope.get("cgroup") or ""
        if not folder:
            return 0, 0
        mounts = [
            tree.mount for tree in cgroups.hierarchies() if tree.v2 and folder.startswith(tree.mount.rstrip("/") + "/")
        ]
        mount = max(mounts, key=len, default="")
        level = 0
        if mount and os.stat(mount).st_ino == _ROOT_INODE:
            level = len(os.path.relpath(folder, mount).split("/"))
        return os.stat(folder).st_ino, level

    def _put_networks(self, *, keep_old: bool = False) -> Networks:
        """Write who the peers are now."""
        networks = self._match.networks(self._names.resolved())
        for (version, length, raw), bits in networks.items():
            old = self._networks.get((version, length, raw), 0)
            if old != bits:
                self._collection.map(f"networks{version}")[struct.pack("<I", length) + raw] = struct.pack("<I", bits)
        if not keep_old:
            self._drop_networks(networks)
        return networks

    def _drop_networks(self, networks: Networks) -> None:
        for version, length, raw in set(self._networks) - set(networks):
            with contextlib.suppress(KeyError):
                del self._collection.map(f"networks{version}")[struct.pack("<I", length) + raw]
        self._networks = networks

    def counts(self) -> dict[str, int]:
        """Packets that matched, by what became of them; those that `missed` were not drawn."""
        counters = self._collection.map("counters")
        counts = {name: counters.total(index) for index, name in enumerate(_COUNTERS)}
        counts = {name: count for name, count in counts.items() if count or name == "missed"}
        if self._sockets is not None and self._sockets.unfollowed:
            counts["unfollowed"] = self._sockets.unfollowed
        return counts | {"lapses": self._lease.lapses}

    def close(self) -> None:
        """Take everything off; what others have there stays."""
        self._interfaces.close()
        if self._sockets is not None:
            self._sockets.close()
        self._names.close()
        self._collection.close()
