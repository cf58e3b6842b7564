"""The sockets on which a stand-in resolver listens in a network namespace, each port for one name server."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from squall.kernel import namespaces
from squall.workers.lifeline import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.kernel.namespaces import NetworkNamespace

__all__ = ["PORTS", "Door", "Doors"]

PORTS = 16
"""So many name servers of each IP version are told apart in a network namespace, as in bpf/dns.bpf.c."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

Pair = tuple[socket.socket, socket.socket]
"""Of one port: for datagrams, and to accept connections."""


class Door(NamedTuple):
    """One port of a namespace, which stands for one name server."""

    doors: Doors
    family: int
    port: int

    def upstream(self, kind: int) -> socket.socket:
        """A new socket in the same namespace."""
        with namespaces.entered(self.doors.fd):
            made = socket.socket(self.family, kind | socket.SOCK_NONBLOCK)
        if self.doors.mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.doors.mark)
        return made


class Doors(NamedTuple):
    """The sockets of one network namespace, by family: for each port one for datagrams, one that accepts connections."""

    namespace: NetworkNamespace
    fd: int
    """Holds the namespace: what is passed on is sent from there."""
    sockets: Mapping[int, tuple[Pair, ...]]

    mark: int = 0
    """Of the sockets that pass on: what rules are to leave alone."""

    @classmethod
    def open(cls, namespace: NetworkNamespace, port: int = 0, mark: int = 0) -> Doors:
        """Listen on the loopback there, on PORTS ports or on this one; Refused where that cannot be.

        Without IPv6 there are none of that family.
        """
        doors = cls(namespace, namespace.open(), {}, mark)
        with namespaces.entered(doors.fd):
            found: dict[int, tuple[Pair, ...]] = {family: _pool(family, port) for family in _FAMILIES}
            up = bool(found[_FAMILIES[0]]) and _reaches(found[socket.AF_INET][0][0])
        doors = doors._replace(sockets=found)
        if not up:
            doors.close()
            if port:
                raise Refused(
                    f"port {port} cannot be had in the network namespace {namespace.path}, or its loopback is down"
                )
            raise Refused(f"the loopback of the network namespace {namespace.path} is down: no resolver can be there")
        return doors

    def ports(self, family: int) -> list[int]:
        """The port of each pair."""
        return [datagrams.getsockname()[1] for datagrams, _ in self.sockets[family]]

    def close(self) -> None:
        """Listen no more."""
        for pool in self.sockets.values():
            _close(pool)
        os.close(self.fd)


def _pool(family: int, port: int) -> tuple[Pair, ...]:
    if port:
        only = _pair(family, port)
        return (only,) if only else ()
    pairs: list[Pair] = []
    for _ in range(PORTS * 8):  # a port that is free for one of the two may be taken for the other
        if len(pairs) == PORTS:
            break
        pair = _pair(family, 0)
        if pair is None:
            break
        pairs += [pair] if pair else []
    return tuple(pairs)


def _pair(family: int, port: int) -> Pair | tuple[()] | None:
    """Both sockets on one port; () where the port is taken, None where this family has no loopback here."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    datagrams = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    streams = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        datagrams.bind((host, port))
    except OSError:
        _close([(datagrams, streams)])
        return None
    try:
        streams.bind((host, datagrams.getsockname()[1]))
        streams.listen(128)
    except OSError:
        _close([(datagrams, streams)])
        return ()
    return datagrams, streams


def _close(pairs: list[Pair] | tuple[Pair, ...]) -> None:
    for pair in pairs:
        for one in pair:
            one.close()


def _reaches(listening: socket.socket) -> bool:
    """Whether the loopback carries a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial, contextlib.suppress(OSError):
        trial.connect(listening.getsockname())
        trial.send(b"")
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                listening.recv(1)
                return True
            time.sleep(0.001)
    return False
