"""The programs that lead a service's connections here, held by the data plane: without it they are gone at once.

The kernel's side of every structure is bpf/hijack.bpf.c.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, Literal

from squall.kernel.bpf import CgroupHook, Lifecycle, NetnsHook
from squall.kernel.sock_diag import End, packed
from squall.proxy.refusals import Invalid
from squall.workers.holding import Lease

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.kernel.bpf import Hook
    from squall.proxy.resolver import Address

__all__ = ["INBOUND", "OUTBOUND", "Door", "Hijack", "Wanted", "address_of", "end_of"]

OUTBOUND = ("connect4", "connect6", "connecting", "getpeername4", "getpeername6")
INBOUND = ("offered",)
_EVERY_PEER, _CLOSED = 1, 2
_SPANS = 64
_COUNTS = ("led", "left", "away", "refused", "foreign")
_PLACE = struct.Struct("=16sHH")
_NOWHERE = _PLACE.pack(b"\0" * 16, 0, 0)
_YES, _NO = struct.pack("=I", 1), struct.pack("=I", 0)
_ZERO = struct.pack("=I", 0)
_MAPPED = b"\0" * 10 + b"\xff\xff"
_NETNS_COOKIE = 71
"""SO_NETNS_COOKIE, Linux 5.14."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a service listens: its connections are led here, unless it is another's more precise address."""

    address: str
    port: int
    own: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections are led here. Peers are the other ends, addresses or CIDRs; none stand for all.

    `ports` are those of the other ends of outbound connections, first and last of each range; none stand for all.
    Inbound, `doors` are the ports.
    """

    direction: Literal["outbound", "inbound"]
    ports: tuple[tuple[int, int], ...] = ()
    peers: tuple[str, ...] = ()
    doors: tuple[Door, ...] = ()

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Wanted:
        """From the configuration of a worker; Invalid for what cannot be."""
        direction = config.get("direction")
        if direction not in ("outbound", "inbound"):
            raise Invalid(f"direction: {direction!r} is neither outbound nor inbound")
        doors = tuple(Door(address, port, own) for address, port, own in config.get("doors", ()))
        ports = tuple((low, high) for low, high in config.get("ports", ()))
        if len(ports) > _SPANS:
            raise Invalid(f"ports: {len(ports)} ranges are too many; {_SPANS} are allowed")
        return cls(direction, ports, tuple(config.get("peers", ())), doors)

    def takes(self, peer: End) -> bool:
        """Whether a connection with this other end is meant, by the filters."""
        if self.direction == "outbound" and self.ports and not any(a <= peer.port <= z for a, z in self.ports):
            return False
        prefixes = [_prefix(text) for text in self.peers]
        return not prefixes or any(_begins(peer.address, length, first) for length, first in prefixes)


class Hijack:
    """Loaded when made, attached by `begin`; `renew` several times a second, or everything goes its own way."""

    def __init__(self, wanted: Wanted) -> None:
        self._life = Lifecycle("hijack", OUTBOUND if wanted.direction == "outbound" else INBOUND)
        self._life.load()
        self._maps = self._life.collection.map
        self._lease = Lease(self._life.collection)
        self._wanted = wanted
        self._refuse_with: list[socket.socket] = []
        self._proxy = (_NOWHERE, _NOWHERE)
        self._closed = False

    @property
    def lapses(self) -> int:
        """How often the lease ended before it was renewed."""
        return self._lease.lapses

    def begin(self, listeners: Sequence[socket.socket], cgroup: str) -> None:
        """Lead connections to these listening sockets (one a family), those of this cgroup's or this namespace's.

        BpfError or OSError, with nothing attached, where the kernel refuses.
        """
        by_family = {listener.family: listener for listener in listeners}
        four, six = by_family.get(socket.AF_INET), by_family.get(socket.AF_INET6)
        self._proxy = (_own_place(four), _own_place(six))
        self._refuse_with = [_bound_beside(listener) for listener in listeners]
        self.become(self._wanted)
        self._lease.renew()
        if self._wanted.direction == "outbound":
            hooks: list[Hook] = [
                CgroupHook(name, cgroup, "sockops" if name == "connecting" else name)
                for name in ("getpeername4", "getpeername6", "connecting", "connect4", "connect6")
            ]
            self._life.attach(hooks)
            return
        for which, listener in ((0, four), (1, six)):
            if listener is not None:
                self._maps("listeners")[struct.pack("=I", which)] = struct.pack("=Q", listener.fileno())
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._life.attach([NetnsHook("offered", here)])
        finally:
            os.close(here)

    def become(self, wanted: Wanted) -> None:
        """Lead these connections from now on; what was added comes before what was taken away goes."""
        if wanted.direction != self._wanted.direction:
            raise Invalid("a hijack keeps its direction")
        tables = {
            "peers": {struct.pack("=I16s", length, first): _YES for length, first in map(_prefix, wanted.peers)},
            "doors": {
                _PLACE.pack(packed(door.address), door.port, 0): _YES if door.own else _NO for door in wanted.doors
            },
        }
        for name, entries in tables.items():
            for key, value in entries.items():
                self._maps(name)[key] = value
        self._wanted = wanted
        self._settle()
        for name, entries in tables.items():
            for key in [key for key in self._maps(name) if key not in entries]:
                with contextlib.suppress(KeyError):
                    del self._maps(name)[key]

    def refuse(self, *, closed: bool) -> None:
        """Have the kernel refuse every connection that would be led here, or lead them here again."""
        self._closed = closed
        self._settle()

    def _settle(self) -> None:
        refusing = {one.family: _own_place(one) for one in self._refuse_with}
        flags = (0 if self._wanted.peers else _EVERY_PEER) | (_CLOSED if self._closed else 0)
        spans = b"".join(struct.pack("=HH", low, high) for low, high in self._wanted.ports)
        self._maps("settings")[_ZERO] = (
            b"".join(self._proxy)
            + refusing.get(socket.AF_INET, _NOWHERE)
            + refusing.get(socket.AF_INET6, _NOWHERE)
            + struct.pack("=QII", _netns_cookie(), flags, len(self._wanted.ports))
            + spans.ljust(4 * _SPANS, b"\0")
        )

    def renew(self) -> None:
        """Let the programs work for another second."""
        self._lease.renew()

    def counts(self) -> dict[str, int]:
        """Connections led here, left alone by the filters, out of reach, refused, chosen by somebody else's program before."""
        table = self._maps("counters")
        return {name: table.total(index) for index, name in enumerate(_COUNTS)}

    # What the proxy asks with each connection

    def meant(self, came_from: End) -> End | None:
        """Where an outbound connection that came from here was meant to go; asked once, None when it was not led here."""
        key = _PLACE.pack(came_from.address, came_from.port, 0)
        table = self._maps("origins")
        try:
            address, port, _ = _PLACE.unpack(table[key])
            del table[key]
        except KeyError:
            return None
        return End(address, port)

    def exempt(self, source: End) -> None:
        """Let a connection of the proxy's own that comes from here reach the service; OSError when there are too many."""
        self._maps("own")[_PLACE.pack(source.address, source.port, 0)] = _YES

    def exempt_no_longer(self, source: End) -> None:
        """Forget such a connection."""
        with contextlib.suppress(KeyError):
            del self._maps("own")[_PLACE.pack(source.address, source.port, 0)]

    # Ends

    def let_go(self) -> None:
        """Lead nothing here any more; clients of connections that go on still see the peer that they asked for."""
        with contextlib.suppress(Exception):
            self._life.detach([hook for hook in self._life.hooks if not hook.program.startswith("getpeername")])

    def close(self) -> None:
        """Give everything back."""
        self._life.close()
        for one in self._refuse_with:
            one.close()


def end_of(address: Sequence[Any]) -> End:
    """What a socket's address is to the kernel's maps."""
    host = str(address[0]).partition("%")[0]
    return End(packed(host), int(address[1]))


def address_of(end: End) -> Address:
    """How a socket connects to it."""
    if end.address.startswith(_MAPPED):
        return socket.AF_INET, (socket.inet_ntop(socket.AF_INET, end.address[12:]), end.port)
    return socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, end.address), end.port, 0, 0)


def _own_place(bound: socket.socket | None) -> bytes:
    if bound is None:
        return _NOWHERE
    end = end_of(bound.getsockname())
    return _PLACE.pack(end.address, end.port, 0)


def _bound_beside(listener: socket.socket) -> socket.socket:
    """A socket that holds a port and does not listen: whoever connects is refused by the kernel."""
    held = socket.socket(listener.family, socket.SOCK_STREAM)
    held.bind((listener.getsockname()[0], 0))
    return held


def _prefix(text: str) -> tuple[int, bytes]:
    """An address or CIDR as a length and 16 bytes; Invalid for anything else."""
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError as error:
        raise Invalid(f"peers: {text!r} is neither an address nor a CIDR") from error
    more = 96 if isinstance(network, IPv4Network) else 0
    return network.prefixlen + more, packed(str(network.network_address))


def _begins(address: bytes, length: int, first: bytes) -> bool:
    return int.from_bytes(address) >> 128 - length == int.from_bytes(first) >> 128 - length


def _netns_cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        try:
            return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8), "little")
        except OSError:
            return 0
