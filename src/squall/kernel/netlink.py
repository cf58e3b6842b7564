"""rtnetlink(7), as far as Squall needs it: links, addresses, queueing disciplines and their filters. No `tc`, no `ip`.

A socket belongs to the network namespace of the thread that makes it, for good. Constants are those of
linux/rtnetlink.h, linux/pkt_sched.h and linux/pkt_cls.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = [
    "CLSACT_EGRESS",
    "CLSACT_INGRESS",
    "ROOT",
    "Filter",
    "Link",
    "LinkWatch",
    "Netlink",
    "NetlinkError",
    "Qdisc",
    "attribute",
    "attributes",
    "text_attribute",
]

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, GETADDR = 20, 22
NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWCLASS, DELCLASS, GETCLASS = 40, 41, 42
NEWFILTER, DELFILTER, GETFILTER = 44, 45, 46
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
"""Flags of a request that makes something: may it replace, must it be new, is it made where it is not there."""
ROOT = 0xFFFF_FFFF
CLSACT, CLSACT_HANDLE, CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFF_FFF1, 0xFFFF_0000, 0xFFFF_FFF2, 0xFFFF_FFF3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_CAPPED, _TOLD = 0x100, 0x200
_GROUP_LINK = 1
_ATTRIBUTE = struct.Struct("<HH")
_HEADER, _TC, _INTERFACE = struct.Struct("<IHHII"), struct.Struct("<BxHiIII"), struct.Struct("<BxHiII")
_BUFFER = 1 << 17
_MESSAGES_MOST = 1 << 16
_WAIT_S = 5.0
_ALL_PROTOCOLS = 0x0300
"""ETH_P_ALL in network order."""
_DIRECT_ACTION = 1
_UP = 1
_ETHERNET, _LOOPBACK = 1, 772


class NetlinkError(OSError):
    """The kernel refused; with its own words where it has any."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is that of its driver ("veth", "bridge"; "" for hardware and lo), `part_of` its master's."""

    index: int
    name: str
    kind: str
    up: bool
    master: int
    part_of: str
    mtu: int
    address: bytes
    device: int
    """What its frames are like: ARPHRD_ETHER and so on."""

    @property
    def header(self) -> int:
        """The bytes of a frame before its network header: Ethernet's, also on lo, or none."""
        return 14 if self.device in (_ETHERNET, _LOOPBACK) else 0


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queueing discipline: `parent` is ROOT for an interface's own, `handle` is major << 16."""

    index: int
    kind: str
    handle: int
    parent: int
    options: bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter on a queueing discipline; `name` is a BPF filter's own, `program` the id of its program."""

    index: int
    parent: int
    priority: int
    protocol: int
    handle: int
    kind: str
    name: str
    program: int


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded; nested ones are attributes in the value of one."""
    return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def text_attribute(kind: int, value: str) -> bytes:
    """One attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(block: bytes) -> dict[int, bytes]:
    """The attributes in a block, by kind; the last of several."""
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(block):
        length, kind = _ATTRIBUTE.unpack_from(block, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = block[at + 4 : at + length]
        at += length + 3 & ~3
    return found


class Netlink:
    """A conversation with the kernel about the network namespace that the calling thread is in when it begins."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_WAIT_S)
        for option in (_EXT_ACK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._number = 0

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, message: int, payload: bytes, flags: int = 0) -> None:
        """Have something done; NetlinkError when it is refused."""
        for _ in self._talk(message, payload, _REQUEST | _ACK | flags):
            pass

    def dump(self, message: int, payload: bytes) -> Iterator[bytes]:
        """Every answer's payload, header cut off; NetlinkError when it is refused."""
        return self._talk(message, payload, _REQUEST | _DUMP)

    # --- interfaces

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        return [link for block in self.dump(GETLINK, _INTERFACE.pack(0, 0, 0, 0, 0)) if (link := _link(block))]

    def set_up(self, index: int, *, up: bool = True) -> None:
        """Let an interface work, or not."""
        self.request(NEWLINK, _INTERFACE.pack(0, 0, index, _UP if up else 0, _UP))

    def addresses(self) -> list[tuple[int, str]]:
        """Every interface's addresses: its index and "10.0.0.1" or "fe80::1"."""
        found = []
        for block in self.dump(GETADDR, struct.pack("<BBBBI", 0, 0, 0, 0, 0)):
            index, there = struct.unpack_from("<I", block, 4)[0], attributes(block[8:])
            raw = there.get(2) or there.get(1)  # IFA_LOCAL, IFA_ADDRESS
            if raw:
                found.append((index, str(ip_address(raw))))
        return found

    # --- queueing disciplines

    def qdiscs(self, index: int = 0) -> list[Qdisc]:
        """Those of one interface, or (0) of all."""
        found = []
        for block in self.dump(GETQDISC, _TC.pack(0, 0, index, 0, 0, 0)):
            _, _, at, handle, parent, _ = _TC.unpack_from(block)
            there = attributes(block[_TC.size :])
            if index in (0, at):  # older kernels list all whatever is asked
                found.append(Qdisc(at, _text(there.get(1)), handle, parent, there.get(2, b"")))
        return found

    def add_qdisc(
        self,
        index: int,
        kind: str,
        *,
        parent: int = ROOT,
        handle: int = 0,
        options: bytes = b"",
        flags: int = EXCLUSIVE,
    ) -> None:
        """Make one; NetlinkError (EEXIST) where there is one of the user's already."""
        more = text_attribute(1, kind) + (attribute(2, options) if options else b"")
        self.request(NEWQDISC, _TC.pack(0, 0, index, handle, parent, 0) + more, CREATE | flags)

    def remove_qdisc(self, index: int, *, parent: int = ROOT, handle: int = 0) -> None:
        """Take it away; NetlinkError (ENOENT, EINVAL) where there is none like this."""
        self.request(DELQDISC, _TC.pack(0, 0, index, handle, parent, 0))

    def add_clsact(self, index: int) -> bool:
        """Make an interface able to have filters on its ways in and out; False when it is already."""
        try:
            self.add_qdisc(index, "clsact", parent=CLSACT, handle=CLSACT_HANDLE)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                return False
            raise
        return True

    def remove_clsact(self, index: int) -> None:
        """Take that away, with all filters there."""
        self.remove_qdisc(index, parent=CLSACT, handle=CLSACT_HANDLE)

    # --- filters

    def filters(self, index: int, parent: int) -> list[Filter]:
        """The filters of one place, in the order of their priorities."""
        blocks = self.dump(GETFILTER, _TC.pack(0, 0, index, 0, parent, 0))
        found = [one for block in blocks if (one := _filter(block)) is not None]
        return sorted(found, key=lambda one: one.priority)

    def add_bpf_filter(self, index: int, parent: int, priority: int, program: int, name: str) -> None:
        """Put a program (its descriptor) there, which decides by its result; `name` is what it is found by again."""
        options = (
            attribute(6, struct.pack("<I", program)) + text_attribute(7, name) + attribute(8, struct.pack("<I", _DIRECT_ACTION))
        )  # fmt: skip
        more = text_attribute(1, "bpf") + attribute(2, options)
        where = _TC.pack(0, 0, index, 1, parent, priority << 16 | _ALL_PROTOCOLS)
        self.request(NEWFILTER, where + more, CREATE | EXCLUSIVE)

    def remove_filter(self, one: Filter) -> None:
        """Take exactly this filter away."""
        where = _TC.pack(0, 0, one.index, one.handle, one.parent, one.priority << 16 | one.protocol)
        self.request(DELFILTER, where + text_attribute(1, one.kind))

    # --- messages

    def _talk(self, message: int, payload: bytes, flags: int) -> Iterator[bytes]:
        self._number = self._number + 1 & 0x7FFF_FFFF
        self._socket.send(_HEADER.pack(_HEADER.size + len(payload), message, flags, self._number, 0) + payload)
        for _ in range(_MESSAGES_MOST):
            for kind, marks, number, block in _split(self._socket.recv(_BUFFER)):
                if number != self._number:
                    continue  # what was left of a dump that nobody read to its end
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    _raise_error(block, marks)
                    return
                yield block
        raise NetlinkError(errno.EMSGSIZE, "the kernel's list has no end")


class LinkWatch:
    """Tells that interfaces came, went or changed in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, _GROUP_LINK))

    def fileno(self) -> int:
        """For poll and select."""
        return self._socket.fileno()

    def changed(self) -> bool:
        """Whether anything has since the last time; also when the kernel had more to say than it could keep."""
        told = False
        for _ in range(_MESSAGES_MOST):
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            told = True
        return told

    def close(self) -> None:
        """End it."""
        self._socket.close()


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, number, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _raise_error(block: bytes, marks: int) -> None:
    """An acknowledgement (0), or a refusal with what the kernel says of it (NLMSGERR_ATTR_MSG)."""
    number = -struct.unpack_from("<i", block)[0]
    if number == 0:
        return
    told = b""
    if marks & _TOLD:
        length = struct.unpack_from("<I", block, 4)[0]
        told = attributes(block[4 + (_HEADER.size if marks & _CAPPED else length) :]).get(1, b"")
    words = _text(told)
    raise NetlinkError(number, f"{os.strerror(number)}{f': {words}' if words else ''}")


def _text(raw: bytes | None) -> str:
    return (raw or b"").rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw[:4], "little") if raw else 0


def _link(block: bytes) -> Link | None:
    _, device, index, flags, _ = _INTERFACE.unpack_from(block)
    there = attributes(block[_INTERFACE.size :])
    name = _text(there.get(3))
    if not name:
        return None
    info = attributes(there.get(18, b""))
    return Link(
        index, name, _text(info.get(1)), bool(flags & _UP), _number(there.get(10)), _text(info.get(4)),
        _number(there.get(4)), there.get(1, b""), device,
    )  # fmt: skip


def _filter(block: bytes) -> Filter | None:
    _, _, index, handle, parent, info = _TC.unpack_from(block)
    there = attributes(block[_TC.size :])
    options = attributes(there.get(2, b""))
    if not handle:  # the head of a chain, not a filter
        return None
    return Filter(
        index, parent, info >> 16, info & 0xFFFF, handle, _text(there.get(1)), _text(options.get(7)),
        _number(options.get(11)),
    )  # fmt: skip
