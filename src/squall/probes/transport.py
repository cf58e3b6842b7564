"""What a load's connection does to its socket: plainly, or through TLS. Non-blocking; standard library only.

Each step returns the epoll events to wait for before it is repeated.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl

__all__ = ["Plain", "Tls", "Transport"]

READ_BYTES = 65_536
TLS_READ_BYTES_MOST = 1 << 20
_BOTH = select.EPOLLIN | select.EPOLLOUT


class Transport(Protocol):
    """A connection under way or open; every step may raise OSError."""

    def advance(self) -> int:
        """Go on with connecting; 0 once that is done."""

    def send(self, data: bytes | memoryview) -> tuple[int, int]:
        """How many bytes were taken, and what to wait for."""

    def receive(self) -> bytes | None:
        """What has come; empty at the end of the stream, None when there is nothing yet."""

    def close(self) -> None:
        """Close the socket, at once."""


class Plain:
    """TCP as it is."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def advance(self) -> int:
        """Connected, or the reason why not as an OSError."""
        failed = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        return 0

    def send(self, data: bytes | memoryview) -> tuple[int, int]:
        """As much as the socket takes; an answer is waited for meanwhile, since a server may refuse early."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0, _BOTH
        return sent, select.EPOLLIN if sent == len(data) else _BOTH

    def receive(self) -> bytes | None:
        """One read."""
        try:
            return self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close."""
        self._sock.close()


class Tls:
    """TLS with the certificate checked against the host; the handshake is part of connecting."""

    __slots__ = ("_context", "_host", "_plain", "_sock", "_tls")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain, self._sock, self._context, self._host = Plain(sock), sock, context, host
        self._tls: ssl.SSLSocket | None = None

    def advance(self) -> int:
        """Connected and agreed, or on the way."""
        import ssl

        if self._tls is None:
            self._plain.advance()
            self._tls = self._context.wrap_socket(self._sock, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return select.EPOLLIN
        except ssl.SSLWantWriteError:
            return select.EPOLLOUT
        return 0

    def send(self, data: bytes | memoryview) -> tuple[int, int]:
        """As much as fits."""
        import ssl

        if self._tls is None:
            return 0, _BOTH
        try:
            sent = self._tls.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0, _BOTH
        return sent, select.EPOLLIN if sent == len(data) else _BOTH

    def receive(self) -> bytes | None:
        """All that is decrypted already, since what TLS has buffered does not make the socket readable again."""
        import ssl

        if self._tls is None:
            return None
        data = b""
        try:
            while len(data) < TLS_READ_BYTES_MOST:
                piece = self._tls.recv(READ_BYTES)
                data += piece
                if not piece or not self._tls.pending():
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return data or None
        return data

    def close(self) -> None:
        """Close without TLS's goodbye, which would wait for the other side."""
        (self._tls or self._sock).close()
