"""TCP sockets of a network namespace, listed and ended through netlink (sock_diag(7), linux/inet_diag.h).

Everything here is about the namespace that the calling thread is in; see `namespaces.inside` for another one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ESTABLISHED", "LISTEN", "End", "TcpSocket", "can_destroy", "destroy", "packed", "sockets"]

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")
_WANTED = struct.Struct("=BBBxI48s")
_FOUND = struct.Struct("=BBBB48sIIIII")
_V6ONLY = 11
_COOKIE_OF_ANY = b"\xff" * 8
_BUFFER = 1 << 18
_WAIT_S = 5.0
_SOCKETS_MOST = 1 << 20

ESTABLISHED, LISTEN = 1, 10
"""Of enum tcp_state in include/net/tcp_states.h."""


class End(NamedTuple):
    """An address of 16 bytes (IPv4 as ::ffff:a.b.c.d) and a port."""

    address: bytes
    port: int

    @property
    def host(self) -> str:
        """The address as people write it."""
        address = IPv6Address(self.address)
        return str(address.ipv4_mapped or address)

    def __str__(self) -> str:
        """As people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One socket as the kernel lists it."""

    family: int
    state: int
    local: End
    remote: End
    inode: int
    """What /proc/PID/fd shows as socket:[INODE]; 0 for one that no process holds any more."""
    v6only: bool
    identity: bytes
    """What names exactly this socket to the kernel, its cookie included."""


def packed(text: str) -> bytes:
    """The 16 bytes of an IPv4 or IPv6 address; OSError for anything else."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_pton(socket.AF_INET, text)


def sockets(*states: int) -> list[TcpSocket]:
    """The TCP sockets in these states, IPv4 and IPv6; OSError where the kernel does not answer."""
    wanted = sum(1 << state for state in states)
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _WANTED.pack(family, socket.IPPROTO_TCP, 0, wanted, b"")
        found += [_read(payload) for payload in _ask(_BY_FAMILY, _DUMP, request)]
    return found


def destroy(some: Iterable[TcpSocket]) -> int:
    """End these connections: their holders see ECONNABORTED, the other sides a reset; how many were still there.

    OSError where the kernel cannot (EOPNOTSUPP) or this user may not (EPERM).
    """
    ended = 0
    for one in some:
        request = _WANTED.pack(one.family, socket.IPPROTO_TCP, 0, 1 << one.state, one.identity)
        try:
            list(_ask(_DESTROY, _ACK, request))
            ended += 1
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return ended


def can_destroy() -> tuple[bool, str]:
    """Whether connections can be ended: the kernel is asked to end one that there cannot be, and says so or that it cannot."""
    nobody = struct.pack(">HH", 0, 0) + b"\0" * 36 + _COOKIE_OF_ANY
    request = _WANTED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << ESTABLISHED, nobody)
    try:
        list(_ask(_DESTROY, _ACK, request))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return True, ""
        if error.errno == errno.EOPNOTSUPP:
            return False, "this kernel cannot end established connections (INET_DIAG_DESTROY)"
        return False, f"established connections cannot be ended: {error.strerror}"
    return True, ""


def _read(payload: bytes) -> TcpSocket:
    family, state, _, _, identity, _, _, _, _, inode = _FOUND.unpack_from(payload)
    local_port, remote_port = struct.unpack_from(">HH", identity)
    local, remote = _address(family, identity[4:20]), _address(family, identity[20:36])
    only = any(kind == _V6ONLY and value[:1] == b"\1" for kind, value in _attributes(payload[_FOUND.size :]))
    return TcpSocket(family, state, End(local, local_port), End(remote, remote_port), inode, only, identity)


def _address(family: int, field: bytes) -> bytes:
    return field if family == socket.AF_INET6 else b"\0" * 10 + b"\xff\xff" + field[:4]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:  # noqa: PLR2004 - an attribute's own header
            return
        yield kind, data[at + 4 : at + length]
        at += length + 3 & ~3


def _ask(kind: int, flags: int, request: bytes) -> Iterator[bytes]:
    """The payloads of the answer to one request; OSError with the kernel's number when it refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_WAIT_S)
        link.bind((0, 0))
        link.send(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | flags, 1, 0) + request)
        for _ in range(_SOCKETS_MOST):
            data = link.recv(_BUFFER)
            at = 0
            while at + _HEADER.size <= len(data):
                length, what, _, _, _ = _HEADER.unpack_from(data, at)
                payload = data[at + _HEADER.size : at + length]
                if what == _DONE:
                    return
                if what == _ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield payload
                at += length + 3 & ~3
