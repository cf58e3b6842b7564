"""What the kernel's connection tracking knows of redirected flows: where they were going (ctnetlink).

Messages and attributes are those of linux/netfilter/nfnetlink_conntrack.h; of them only the tuples are read.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Conntrack", "End", "Flow"]

_NETFILTER, _CTNETLINK = 12, 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _TYPE = 0x8000, 0x3FFF
_TUPLE_ORIG, _TUPLE_REPLY, _TUPLE_IP, _TUPLE_PROTO = 1, 2, 1, 2
_HEADER, _FAMILY = struct.Struct("=IHHII"), struct.Struct(">BBH")
_FLOWS_MOST = 1 << 20
_WAIT_S = 1.0


class End(NamedTuple):
    """One side of a flow."""

    host: str
    port: int


class Flow(NamedTuple):
    """One direction of a flow; `protocol` is that of IP (6 TCP, 17 UDP)."""

    family: int
    protocol: int
    source: End
    destination: End


class Conntrack:
    """A socket to the tracking of the network namespace in which the calling thread is. OSError where there is none."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.settimeout(_WAIT_S)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def original(self, reply: Flow) -> Flow | None:
        """How a flow began whose answers go as `reply` says; None where no such flow is tracked."""
        try:
            for found, _ in self._ask(_GET, 0, reply.family, _tuple(_TUPLE_REPLY, reply)):
                return found
        except FileNotFoundError:
            return None
        return None

    def forget(self, port: int) -> int:
        """Drop the flows that were redirected to this local port, so that the next packet of each is looked at anew; how many."""
        count = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            redirected = [
                original
                for original, reply in self._ask(_GET, _DUMP, family)
                if reply.source.port == port and original.destination.port != port
            ]
            for flow in redirected:
                try:
                    list(self._ask(_DELETE, 0, family, _tuple(_TUPLE_ORIG, flow)))
                    count += 1
                except FileNotFoundError:
                    continue  # it has ended meanwhile
        return count

    def _ask(self, what: int, flags: int, family: int, body: bytes = b"") -> Iterator[tuple[Flow, Flow]]:
        """Each flow that the kernel answers with, both directions; OSError with the kernel's refusal."""
        self._sequence += 1
        message = _FAMILY.pack(family, 0, 0) + body
        head = _HEADER.pack(_HEADER.size + len(message), what, _REQUEST | _ACK | flags, self._sequence, 0)
        self._socket.send(head + message)
        for _ in range(_FLOWS_MOST):
            data = self._socket.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                one, data = data[_HEADER.size : length], data[length + 3 & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind in (_ERROR, _DONE):
                    refused = -struct.unpack_from("=i", one)[0] if kind == _ERROR else 0
                    if refused:
                        raise OSError(refused, os.strerror(refused))
                    return
                attributes = dict(_attributes(one[_FAMILY.size :]))
                yield tuple(_flow(family, attributes[which]) for which in (_TUPLE_ORIG, _TUPLE_REPLY))  # type: ignore[misc]  # two of them
        raise OSError(errno.E2BIG, "the kernel tracks more flows than are looked at")


def _attribute(type_: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, type_) + data + bytes(-length % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:  # noqa: PLR2004 - an attribute's head
        length, type_ = struct.unpack_from("=HH", data)
        if length < 4:  # noqa: PLR2004
            return
        yield type_ & _TYPE, data[4:length]
        data = data[length + 3 & ~3 :]


def _tuple(which: int, flow: Flow) -> bytes:
    first = 1 if flow.family == socket.AF_INET else 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; the destination follows
    hosts = (flow.source.host, flow.destination.host)
    addresses = b"".join(_attribute(first + at, socket.inet_pton(flow.family, host)) for at, host in enumerate(hosts))
    ports = (flow.source.port, flow.destination.port)
    protocol = _attribute(1, bytes([flow.protocol])) + b"".join(
        _attribute(2 + at, struct.pack(">H", port)) for at, port in enumerate(ports)
    )
    both = _attribute(_TUPLE_IP | _NESTED, addresses) + _attribute(_TUPLE_PROTO | _NESTED, protocol)
    return _attribute(which | _NESTED, both)


def _flow(family: int, data: bytes) -> Flow:
    parts = dict(_attributes(data))
    addresses, protocol = dict(_attributes(parts[_TUPLE_IP])), dict(_attributes(parts[_TUPLE_PROTO]))
    first = 1 if family == socket.AF_INET else 3
    hosts = [socket.inet_ntop(family, addresses[first + at]) for at in (0, 1)]
    ports = [int.from_bytes(protocol.get(2 + at, b"\0\0"), "big") for at in (0, 1)]
    return Flow(family, protocol[1][0], End(hosts[0], ports[0]), End(hosts[1], ports[1]))
