"""A proxy without an upstream of its own: each connection goes on to where it was meant to go."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from squall.proxy.hijack import address_of, end_of
from squall.proxy.refusals import CannotListen
from squall.proxy.resolver import listen_on
from squall.proxy.route import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.kernel.sock_diag import End
    from squall.proxy.connection import Connection
    from squall.proxy.hijack import Hijack
    from squall.proxy.plane import Plane
    from squall.proxy.resolver import Address, SocketAddress

__all__ = ["InboundProxy", "OutboundProxy", "TransparentProxy"]

_UPSTREAM: Final = "where each connection was meant to go"
_ACCEPT_ROUNDS: Final = 256
_SOURCES_TRIED: Final = 256
_TRIES: Final = 4
"""A source that was used a moment ago may not be used again for the same place: then another one is."""
_SIOCGIFFLAGS, _SIOCGIFADDR, _IFF_UP = 0x8913, 0x8915, 0x1


class TransparentProxy(Proxy):
    """Listens on loopback addresses of its network namespace, where the kernel leads connections to it."""

    def __init__(self, plane: Plane, name: str, hijack: Hijack) -> None:
        super().__init__(plane, name, "", _UPSTREAM)
        self._hijack = hijack
        self._refusing = False

    @property
    def enabled(self) -> bool:
        """Whether connections are let through."""
        return bool(self._listeners) and not self._refusing

    @property
    def listeners(self) -> list[socket.socket]:
        """Its listening sockets, one a family."""
        return self._listeners

    def enable(self) -> None:
        """Listen, or listen again."""
        super().enable()
        if self._refusing:
            self._refusing = False
            self._hijack.refuse(closed=False)

    def disable(self) -> None:
        """Have the kernel refuse new connections, and end the open ones; it stays in the way."""
        self._refusing = True
        self._hijack.refuse(closed=True)
        for connection in list(self.connections):
            connection.close()

    def stop_listening(self) -> None:
        """Take in what has come already, nothing is led here any more; then listen no longer."""
        for listener in self._listeners:
            for _ in range(_ACCEPT_ROUNDS):
                before = self.accepted
                self._accept(listener, 0)
                if self.accepted == before:
                    break
        super().stop_listening()

    def _listen(self) -> list[socket.socket]:
        found = [one for one in (_first(_hosts4()), _first(_hosts6())) if one is not None]
        if not found:
            raise CannotListen("there is no address in the network namespace that the proxy could listen on")
        self.listen = ", ".join(str(end_of(one.getsockname())) for one in found)
        return found

    def _lead(self, connection: Connection) -> None:
        try:
            address = self._meant(connection)
        except OSError:  # the client has gone already
            address = None
        if address is None:
            connection.reset()
        else:
            connection.connect([address] * _TRIES)

    def _meant(self, connection: Connection) -> Address | None:
        """Where a connection was meant to go; None for one that nobody led here."""
        raise NotImplementedError

    def unreachable(self, connection: Connection) -> None:
        """The client, which is connected already, sees a reset: nearer to a refusal than an orderly end."""
        connection.reset()


class OutboundProxy(TransparentProxy):
    """Takes connections that a service makes."""

    def _meant(self, connection: Connection) -> Address | None:
        end = self._hijack.meant(end_of(connection.client.getpeername()))
        return None if end is None else address_of(end)


class InboundProxy(TransparentProxy):
    """Takes connections that a service is offered; an accepted socket's own address is the one that was asked for."""

    def __init__(self, plane: Plane, name: str, hijack: Hijack) -> None:
        super().__init__(plane, name, hijack)
        self._sources: dict[Connection, End] = {}
        self._first, self._last = _ephemeral()
        self._next = self._first + int.from_bytes(os.urandom(2)) % (self._last - self._first)

    def _meant(self, connection: Connection) -> Address | None:
        asked: SocketAddress = connection.client.getsockname()
        if any(listener.getsockname()[:2] == asked[:2] for listener in self._listeners):
            return None
        return connection.client.family, asked

    def outgoing(self, connection: Connection, family: int, address: SocketAddress) -> socket.socket:
        """A socket whose source the kernel's programs know before it connects: or it would be led here again.

        Its source is the service's own address, which no client from elsewhere can have.
        """
        self._forget(connection)
        made = super().outgoing(connection, family, address)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._bind(made, address)
            source = end_of(made.getsockname())
            self._hijack.exempt(source)
        except OSError:
            made.close()
            raise
        self._sources[connection] = source
        return made

    def _bind(self, made: socket.socket, address: SocketAddress) -> None:
        """Bind to the next free port. The kernel would not give one that was used a minute ago; asked for it, it does."""
        for _ in range(_SOURCES_TRIED):
            port = self._next
            self._next = self._first if port >= self._last else port + 1
            try:
                made.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRINUSE, "no port is free for a connection to the service")

    def _forget(self, connection: Connection) -> None:
        source = self._sources.pop(connection, None)
        if source is not None:
            self._hijack.exempt_no_longer(source)

    def closed(self, connection: Connection) -> None:
        """A connection has ended: its source may be anybody's."""
        self._forget(connection)
        super().closed(connection)


def _first(hosts: Iterator[str]) -> socket.socket | None:
    """A listening socket on the first of these addresses that can be had."""
    for host in hosts:
        with contextlib.suppress(CannotListen):
            return listen_on(f"[{host}]:0" if ":" in host else f"{host}:0")
    return None


def _hosts4() -> Iterator[str]:
    """127.0.0.1, else what else there is: a namespace's loopback may have had its address taken away."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            (flags,) = struct.unpack_from("H", fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16s24x", b"lo")), 16)
        except OSError:
            flags = 0
        if not flags & _IFF_UP:
            raise CannotListen("the loopback interface of the network namespace is down: the proxy cannot be reached")
        yield "127.0.0.1"
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                yield socket.inet_ntoa(fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("16s24x", name.encode()))[20:24])


def _hosts6() -> Iterator[str]:
    """::1, else a global address; none where IPv6 is off."""
    try:
        rows = [line.split() for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines()]
    except OSError:
        return
    yield "::1"
    for address, _, _, scope, _, _ in rows:
        if scope == "00":
            yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))


def _ephemeral() -> tuple[int, int]:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return first, last
