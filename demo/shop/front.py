"""The listening side of a service: one thread that takes connections, reads requests and answers what needs no worker.

What a request needs a worker for is handed on. `/health`, `/workers` and `/metrics` are answered here, so they answer even
when every worker is stuck.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from client import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "Front", "Request"]

HEAD_BYTES_MAX = 16_384
BODY_BYTES_MAX = 65_536
CONNECTIONS_MAX = 4_096
WRITE_SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Request:
    """A request as a handler sees it."""

    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    """By name in lower case."""


@dataclass(eq=False)
class Connection:
    """A client's connection and what it has sent so far."""

    sock: socket.socket
    received: bytes = b""
    keep: bool = True
    registered: bool = False

    def gone(self) -> bool:
        """Whether the client has closed its side."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def answer(self, answer: Answer) -> bool:
        """Send an answer; whether the connection can go on to be used."""
        content = answer.content
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        head = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Type: {answer.kind}\r\n{more}"
            f"Content-Length: {len(content)}\r\nConnection: {'keep-alive' if self.keep else 'close'}\r\n\r\n"
        )
        try:
            self.sock.settimeout(WRITE_SECONDS_MAX)
            self.sock.sendall(head.encode() + content)
            self.sock.setblocking(False)
        except OSError:
            return False
        return self.keep

    def request(self) -> Request | Answer | None:
        """Take the next whole request; None while it is incomplete, an answer when it cannot be served."""
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return (
                Answer(431, {"error": "the request's head is too large"})
                if len(self.received) > HEAD_BYTES_MAX
                else None
            )
        lines = self.received[:end].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "0")
        if len(words) != 3 or not length.isdecimal() or "transfer-encoding" in headers:  # noqa: PLR2004 - method, path, version
            return Answer(400, {"error": "not a request this service understands"})
        if int(length) > BODY_BYTES_MAX:
            return Answer(413, {"error": f"the body is larger than {BODY_BYTES_MAX} bytes"})
        if len(self.received) < end + 4 + int(length):
            return None
        content = self.received[end + 4 : end + 4 + int(length)]
        self.received = self.received[end + 4 + int(length) :]
        self.keep = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        try:
            body = json.loads(content) if content else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return Answer(400, {"error": "the body must be a JSON object"})
        return Request(words[0], words[1].partition("?")[0], body, headers)


class Front:
    """Accepts, reads and hands on; runs in the main thread until the process ends."""

    def __init__(
        self,
        listener: socket.socket,
        at_once: Callable[[Request], Answer | None],
        hand_on: Callable[[Connection, Request], None],
    ) -> None:
        self._listener, self._at_once, self._hand_on = listener, at_once, hand_on
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._returned: deque[Connection] = deque()
        self._connections = 0

    def give_back(self, connection: Connection, *, usable: bool) -> None:
        """A worker is done with this connection (called in the worker's thread)."""
        connection.keep = connection.keep and usable
        self._returned.append(connection)
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the front just as well
            self._wake.send(b"w")

    def run(self) -> None:
        """Serve for ever."""
        for sock in (self._listener, self._wake, self._woken):
            sock.setblocking(False)
        self._listener.listen(512)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._take_back()
                else:
                    self._read(key.data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            if self._connections >= CONNECTIONS_MAX:
                sock.close()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections += 1
            self._watch(Connection(sock))

    def _watch(self, connection: Connection) -> None:
        if not connection.registered:
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            connection.registered = True

    def _unwatch(self, connection: Connection) -> None:
        if connection.registered:
            self._selector.unregister(connection.sock)
            connection.registered = False

    def _close(self, connection: Connection) -> None:
        self._unwatch(connection)
        connection.sock.close()
        self._connections -= 1

    def _take_back(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._returned:
            connection = self._returned.popleft()
            if connection.keep:
                self._watch(connection)
                self._serve(connection)
            else:
                self._close(connection)

    def _read(self, connection: Connection) -> None:
        try:
            received = connection.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if received:
            connection.received += received
            self._serve(connection)
        else:
            self._close(connection)

    def _serve(self, connection: Connection) -> None:
        """Answer or hand on every whole request that is there."""
        while (request := connection.request()) is not None:
            if isinstance(request, Answer):
                connection.keep = False
                answer: Answer | None = request
            else:
                answer = self._at_once(request)
            if answer is None and isinstance(request, Request):
                self._unwatch(connection)
                self._hand_on(connection, request)
                return
            if answer is not None and not connection.answer(answer):
                self._close(connection)
                return
            self._watch(connection)
