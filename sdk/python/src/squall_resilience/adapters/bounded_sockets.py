"""Sockets each of whose waits is cut to what is left of the deadline: a server that sends a byte a second cannot outstay it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from squall_resilience.deadline import at_most

__all__ = ["BoundedSSLSocket", "BoundedSocket", "bounded"]


class _Bounded(socket.socket):
    """`read` and `write` bound one wait each, in seconds."""

    read_seconds: float | None = None
    write_seconds: float | None = None

    def _bound(self, seconds: float | None) -> None:
        left = at_most(seconds)
        if left is not None and left <= 0.0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(left)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._bound(self.read_seconds)
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._bound(self.write_seconds)
        return super().sendall(*args, **kwargs)


class BoundedSocket(_Bounded):
    """A plain one."""


class BoundedSSLSocket(_Bounded, ssl.SSLSocket):
    """One with TLS."""


def bounded(plain: socket.socket) -> BoundedSocket:
    """Take over a connected socket."""
    timeout = plain.gettimeout()
    made = BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    made.settimeout(timeout)
    return made
