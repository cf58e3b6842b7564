"""The interfaces of a network namespace, with the programs `egress` and `ingress` on each, also on those that come later.

Ports of a bridge or a bond are left out: what passes them, as far as it is the namespace's own, passes the bridge's or
bond's own interface too, and must be met once. Where the kernel has tcx (6.6) a descriptor holds each program; before
that it is a filter on the interface's clsact, which outlives its maker: `squall.actions.TcFilter` takes it away then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from squall.kernel.bpf import BpfError, TcxHook
from squall.kernel.bpf.calls import bpf
from squall.kernel.netlink import CLSACT_EGRESS, CLSACT_INGRESS, LinkWatch, Netlink, NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.kernel.bpf import Collection
    from squall.kernel.netlink import Filter, Link

__all__ = [
    "FILTER_PREFIX",
    "Attached",
    "Diverting",
    "Interfaces",
    "filters_named",
    "is_own",
    "link_order",
    "remove_filters",
]

Way = Literal["egress", "ingress"]

FILTER_PREFIX = "squall:"
"""Every filter made here has a name that begins so."""
WITH_CLSACT = "+"
"""... and ends so where the clsact that it is on was made for it, or for another of these: whoever is last removes it."""
_WAYS: dict[Way, int] = {"egress": 0, "ingress": 1}
_PARENTS: dict[Way, int] = {"egress": CLSACT_EGRESS, "ingress": CLSACT_INGRESS}
_PORT_OF = ("bridge", "bond", "team", "openvswitch", "ovs-system", "batadv", "hsr")
_ORDERS = 1 << 23
_OBJECT_INFO = 15
"""BPF_OBJ_GET_INFO_BY_FD."""
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EINVAL)


class Diverting(Protocol):
    """Who holds the packets of an interface and way: gives the device that they are to be sent to."""

    def divert(self, link: Link, way: Way, order: int) -> int:
        """The ifindex of that device, 0 for none; `order` is the filter's number among those of this interface and way."""

    def forget(self, ifindex: int) -> None:
        """The interface is gone."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A program on one interface and way; `descriptors` hold it, none where it is a filter."""

    way: Way
    order: int
    descriptors: tuple[int, ...]


def link_order(descriptor: int) -> int:
    """The number of a link among all of this machine: whoever was attached later has the higher one."""
    import ctypes

    info = ctypes.create_string_buffer(64)
    bpf(_OBJECT_INFO, struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(info)))
    number: int = struct.unpack_from("<I", info.raw, 4)[0]
    return number % (_ORDERS - 1) + 1


class Interfaces:
    """For the thread that makes it, in the network namespace that it is in by then.

    `ways` is what is attached. `filters` is the name of the filters where programs are to be attached that way, "" for tcx.
    """

    def __init__(
        self, collection: Collection, ways: Iterable[Way], filters: str = "", diverting: Diverting | None = None
    ) -> None:
        self._collection, self._ways, self._diverting = collection, tuple(ways), diverting
        self._filters = filters
        self._watch = LinkWatch()
        self._netlink = Netlink()
        self._attached: dict[int, list[Attached]] = {}

    def fileno(self) -> int:
        """Can be read when interfaces have changed."""
        return self._watch.fileno()

    def __len__(self) -> int:
        return len(self._attached)

    def refresh(self) -> None:
        """Attach where it is not yet, forget what is gone. The first time: everywhere, or OSError, BpfError."""
        first = not self._attached
        if not self._watch.changed() and not first:
            return
        links = {link.index: link for link in self._netlink.links()}
        for index in set(self._attached) - {link.index for link in links.values() if is_own(link)}:
            self._forget(index)
        for link in links.values():
            if link.index not in self._attached and is_own(link):
                self._attach(link)

    def become(self, ways: Iterable[Way]) -> None:
        """Attach to these ways from now on; what is attached to another stays, and passes everything."""
        self._ways = tuple(ways)
        for index, link in {link.index: link for link in self._netlink.links()}.items():
            if index in self._attached:
                self._attach(link)

    def _attach(self, link: Link) -> None:
        there = self._attached.setdefault(link.index, [])
        for way in self._ways:
            if any(one.way == way for one in there):
                continue
            try:
                one = self._by_filter(link, way) if self._filters else self._by_tcx(link, way)
                there.append(one)
                line = self._diverting.divert(link, way, one.order) if self._diverting is not None else 0
                self._collection.map("hooks")[_place(link.index, way)] = struct.pack(
                    "<IIII", one.order, line, link.header, 0
                )
            except (BpfError, OSError) as error:
                if any(one.index == link.index for one in self._netlink.links()):
                    raise
                if error.errno not in _GONE:
                    raise
                self._forget(link.index)
                return

    def _by_tcx(self, link: Link, way: Way) -> Attached:
        descriptors = TcxHook(way, link.index, way).attach(self._collection)
        return Attached(way, link_order(descriptors[0]), descriptors)

    def _by_filter(self, link: Link, way: Way) -> Attached:
        made = self._netlink.add_clsact(link.index)
        there = [one for parent in _PARENTS.values() for one in self._netlink.filters(link.index, parent)]
        ours = made or any(one.name.startswith(FILTER_PREFIX) and one.name.endswith(WITH_CLSACT) for one in there)
        priority = max((one.priority for one in there if one.parent == _PARENTS[way]), default=0) + 1
        name = self._filters + WITH_CLSACT * ours
        self._netlink.add_bpf_filter(link.index, _PARENTS[way], priority, self._collection.program(way), name)
        return Attached(way, priority, ())

    def _forget(self, index: int) -> None:
        for one in self._attached.pop(index, ()):
            with contextlib.suppress(KeyError):
                del self._collection.map("hooks")[_place(index, one.way)]
            for fd in one.descriptors:
                os.close(fd)
        if self._diverting is not None:
            self._diverting.forget(index)

    def close(self) -> None:
        """Take everything off again."""
        for index in list(self._attached):
            if self._filters:
                with contextlib.suppress(NetlinkError):
                    remove_filters(self._netlink, index, self._filters)
            self._forget(index)
        self._netlink.close()
        self._watch.close()


def filters_named(netlink: Netlink, index: int, name: str) -> tuple[list[Filter], bool]:
    """The filters of this name on an interface, both ways, and whether there are others."""
    there = [one for parent in _PARENTS.values() for one in netlink.filters(index, parent)]
    named = [one for one in there if one.kind == "bpf" and one.name in (name, name + WITH_CLSACT)]
    return named, len(named) < len(there)


def remove_filters(netlink: Netlink, index: int, name: str) -> None:
    """Take the filters of this name off an interface; its clsact too where that came with them and nobody else uses it."""
    named, others = filters_named(netlink, index, name)
    if not others and any(one.name.endswith(WITH_CLSACT) for one in named):
        netlink.remove_clsact(index)  # with the filters, at once: whoever is killed in between would leave it for ever
        return
    for one in named:
        netlink.remove_filter(one)


def is_own(link: Link) -> bool:
    """Whether the namespace's own traffic is to be met here: not at ports, nor at the devices of delay lines."""
    return link.part_of not in _PORT_OF and not (link.kind == "tun" and link.name.startswith("squall"))


def _place(index: int, way: Way) -> bytes:
    return struct.pack("<II", index, _WAYS[way])
