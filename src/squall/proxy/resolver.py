"""Addresses as people write them, and the upstream's as sockets need them; names are looked up beside the loop."""

from __future__ import annotations

import functools
import ipaddress
import queue
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.proxy.loop import READ
from squall.proxy.refusals import CannotListen

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.proxy.loop import Loop

__all__ = ["Address", "Endpoint", "Resolver", "SocketAddress", "listen_on", "read_endpoint"]

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Address = tuple[socket.AddressFamily, SocketAddress]
_KEPT_NS = 1_000_000_000
_PENDING_MOST = 4096
_BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (a name, an IPv4 or IPv6 address, or "" for all) and a port, 0 to 65535."""

    host: str
    port: int

    def numeric(self) -> Address | None:
        """The address to use when the host is an address already."""
        try:
            address = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv4Address):
            return socket.AF_INET, (self.host, self.port)
        host, _, scope = self.host.partition("%")
        try:
            return socket.AF_INET6, (host, self.port, 0, socket.if_nametoindex(scope) if scope else 0)
        except OSError:  # no such interface: the look-up will say so
            return None


@functools.lru_cache(maxsize=1024)
def read_endpoint(text: str) -> Endpoint:
    """Read "host:port", ":port", "[ipv6]:port" or "" (any port on all addresses); CannotListen, in Go's words, for anything else."""
    if not text:
        return Endpoint("", 0)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise CannotListen(f"address {text}: missing port in address")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise CannotListen(f"address {text}: too many colons in address")
    try:
        number = int(port or "0") if (port or "0").isascii() else socket.getservbyname(port, "tcp")
    except ValueError:
        try:
            number = socket.getservbyname(port, "tcp")
        except OSError:
            raise CannotListen(f"lookup tcp/{port}: unknown port") from None
    if not 0 <= number <= 65535:  # noqa: PLR2004 - what a port is
        raise CannotListen(f"address {port}: invalid port")
    return Endpoint(host, number)


def listen_on(text: str) -> socket.socket:
    """A listening socket that shares its address with nobody; CannotListen names the address and the reason."""
    try:
        endpoint = read_endpoint(text)
    except CannotListen as error:
        raise CannotListen(f"listen tcp: {error}") from error
    if not endpoint.host:
        family, address = socket.AF_INET6, ("::", endpoint.port, 0, 0)
        if not socket.has_dualstack_ipv6():
            family, address = socket.AF_INET, ("0.0.0.0", endpoint.port)  # type: ignore[assignment] # noqa: S104 - ":port" asks for it
    else:
        try:
            family, address = endpoint.numeric() or _look_up(endpoint)[0]  # type: ignore[assignment] # both are Address
        except OSError as error:
            reason = "no such host" if isinstance(error, socket.gaierror) else error.strerror or error
            raise CannotListen(f"listen tcp: lookup {endpoint.host}: {reason}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(endpoint.host)))
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise CannotListen(f"listen tcp {text}: bind: {reason}") from error
    return listener


def _look_up(endpoint: Endpoint) -> list[Address]:
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]  # type: ignore[misc] # only inet families are asked for
    return sorted(addresses, key=lambda entry: entry[0] != socket.AF_INET)  # IPv4 first, as Go dials


_numeric = functools.lru_cache(maxsize=1024)(Endpoint.numeric)


class Resolver:
    """Looks names up in one thread, started when the first name is needed; an answer is used for a second."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._known: dict[Endpoint, tuple[int, list[Address]]] = {}
        self._waiting: dict[Endpoint, list[Callable[[list[Address]], None]]] = {}
        self._asked: queue.Queue[Endpoint] = queue.Queue(_PENDING_MOST)
        self._answers: queue.Queue[tuple[Endpoint, list[Address]]] = queue.Queue()
        self._bell: tuple[socket.socket, socket.socket] | None = None

    def resolve(self, endpoint: Endpoint, then: Callable[[list[Address]], None]) -> None:
        """Call `then` with the addresses, at once when they are known; with none when the name has none."""
        numeric = _numeric(endpoint)
        if numeric is not None:
            then([numeric])
            return
        since_ns, addresses = self._known.get(endpoint, (0, []))
        if addresses and time.monotonic_ns() - since_ns < _KEPT_NS:
            then(addresses)
            return
        waiting = self._waiting.setdefault(endpoint, [])
        waiting.append(then)
        if len(waiting) == 1:
            self._start()
            try:
                self._asked.put_nowait(endpoint)
            except queue.Full:
                del self._waiting[endpoint]
                then([])

    def _start(self) -> None:
        if self._bell is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            self._loop.handle(self._bell[0].fileno(), self._rung)
            self._loop.want(self._bell[0].fileno(), READ)
            threading.Thread(target=self._work, args=(self._bell[1],), daemon=True, name="resolver").start()

    def _work(self, bell: socket.socket) -> None:
        while True:
            endpoint = self._asked.get()
            try:
                addresses = _look_up(endpoint)
            except OSError:
                addresses = []
            self._answers.put((endpoint, addresses))
            try:
                bell.send(b"!")
            except OSError:  # full: it rings already; closed: nobody listens any more
                continue

    def _rung(self, _events: int) -> None:
        if self._bell is not None:
            self._bell[0].recv(4096)
        while not self._answers.empty():
            endpoint, addresses = self._answers.get()
            self._known[endpoint] = (time.monotonic_ns(), addresses)
            for then in self._waiting.pop(endpoint, []):
                then(addresses)
