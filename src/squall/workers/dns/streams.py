"""A connection of a client, and the one to the name server behind it, made with the first query that is passed on."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.workers.dns.doors import Door
    from squall.workers.dns.rule import Judge

__all__ = ["Address", "Server", "ServerOf", "Stream"]

Address = tuple[Any, ...]
"""As the socket module has it."""
ServerOf = Callable[["Door", int, Address], "Server | None"]
"""Whom this client, at this door, by datagrams or a stream, was asking; None where nobody knows."""
_IDLE_S = 30.0
_ANSWER_S = 12.0
_CHUNK = 1 << 16
_EVENTS_MOST = 1 << 20


class Server(NamedTuple):
    """A name server, as a socket's address."""

    host: str
    port: int


class Stream:
    """Runs in a thread of its own. Messages stand behind their length (RFC 1035, 4.2.2), in any number and order."""

    def __init__(
        self, connection: socket.socket, client: Address, door: Door, judge: Judge, server_of: ServerOf
    ) -> None:
        self._connection, self._client, self._door, self._judge = connection, client, door, judge
        self._server_of = server_of
        self._upstream: socket.socket | None = None
        self._asked, self._said = b"", b""
        self.owed = 0
        """Answers of the name server that are still to come."""

    def run(self) -> None:
        """Until either side ends it, or nothing has come for a while."""
        self._connection.settimeout(_ANSWER_S)
        try:
            self._converse()
            self._connection.close()
        except OSError:  # the client is to see what it would see: an end in the middle
            with contextlib.suppress(OSError):
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.close()
        finally:
            if self._upstream is not None:
                self._upstream.close()

    def _converse(self) -> None:
        asks = True
        for _ in range(_EVENTS_MOST):
            poll, waited = select.poll(), [self._connection] if asks else []
            waited += [self._upstream] if self._upstream is not None else []
            for one in waited:
                poll.register(one, select.POLLIN)
            ready = {fd for fd, _ in poll.poll((_IDLE_S if asks else _ANSWER_S) * 1000)}
            if not ready:
                return
            if asks and self._connection.fileno() in ready:
                asks = self._hear_client()
            if self._upstream is not None and self._upstream.fileno() in ready and not self._hear_server():
                return
            if not asks and not self.owed:
                return

    def _hear_client(self) -> bool:
        data = self._connection.recv(_CHUNK)
        self._asked += data
        for query in self._framed("_asked"):
            answer = self._judge.verdict(query)
            if answer:
                self._connection.sendall(struct.pack(">H", len(answer)) + answer)
            elif answer is None:
                self._pass_on(query)
        return bool(data)

    def _pass_on(self, query: bytes) -> None:
        if self._upstream is None:
            server = self._server_of(self._door, socket.SOCK_STREAM, self._client)
            if server is None:
                raise ConnectionAbortedError
            self._upstream = self._door.upstream(socket.SOCK_STREAM)
            self._upstream.settimeout(_ANSWER_S)
            self._upstream.connect(server)
        self._upstream.sendall(struct.pack(">H", len(query)) + query)
        self.owed += 1

    def _hear_server(self) -> bool:
        assert self._upstream is not None  # noqa: S101 - it was ready
        data = self._upstream.recv(_CHUNK)
        self._said += data
        for answer in self._framed("_said"):
            self._connection.sendall(struct.pack(">H", len(answer)) + answer)
            self.owed -= 1
        return bool(data)

    def _framed(self, buffer: str) -> Iterator[bytes]:
        """The whole messages in a buffer, taken out of it."""
        data: bytes = getattr(self, buffer)
        while len(data) >= 2 and len(data) >= (end := 2 + int.from_bytes(data[:2], "big")):  # noqa: PLR2004
            one, data = data[2:end], data[end:]
            setattr(self, buffer, data)
            yield one
