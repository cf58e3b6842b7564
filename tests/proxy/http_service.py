"""An HTTP service, a client that sees raw answers, and a route between them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    import socket

JSON = b'{"id":1,"tags":["a"],"price":{"net":5,"tax":1}}'

FIXED: dict[str, tuple[Any, ...]] = {
    "/chunked": (200, {"Transfer-Encoding": "chunked", "Trailer": "X-Sum"}, JSON * 3, {"X-Sum": "7"}),
    "/json": (200, {"Content-Type": "application/json", "Content-Length": str(len(JSON)), "ETag": "v1"}, JSON),
    "/204": (204, {}),
    "/304": (304, {"ETag": "v1"}),
    "/until-close": (200, {"Connection": "close"}, JSON),
    "/interim": (200, {"Content-Length": "2"}, b"ok"),
}


class Service:
    """An HTTP/1.1 server that records what reaches it, byte-exact bodies included."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    def __call__(self, sock: socket.socket) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body = self._read(sock, connection)
            if request is None:
                return
            headers = {name.decode(): value.decode() for name, value in request.headers}
            self.requests.append((request.method.decode(), request.target.decode(), headers, body))
            if not self._answer(sock, connection, request, body):
                return
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    def _read(self, sock: socket.socket, connection: h11.Connection) -> tuple[h11.Request | None, bytes]:
        request, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    sock.sendall(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                connection.receive_data(sock.recv(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return request, bytes(body)
            else:
                return None, b""

    def _answer(self, sock: socket.socket, connection: h11.Connection, request: h11.Request, body: bytes) -> bool:
        path = request.target.decode().partition("?")[0]

        def say(
            status: int, headers: dict[str, str], payload: bytes = b"", trailers: dict[str, str] | None = None
        ) -> None:
            out = connection.send(h11.Response(status_code=status, headers=list(headers.items()))) or b""
            if payload and request.method != b"HEAD":
                for start in range(0, len(payload), 50_000):
                    out += connection.send(h11.Data(data=payload[start : start + 50_000])) or b""
            out += connection.send(h11.EndOfMessage(headers=list((trailers or {}).items()))) or b""
            sock.sendall(out)

        if path == "/ws":
            self._echo(sock, connection)
            return False
        if path == "/interim":
            sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        if path in FIXED:
            say(*FIXED[path])
        elif path == "/large":
            blob = random.Random(5).randbytes(6_000_000)
            say(200, {"Content-Length": str(len(blob))}, blob)
        else:
            say(200, {"Content-Length": str(len(body)), "X-Path": request.target.decode()}, body)
        return path != "/until-close"

    def _echo(self, sock: socket.socket, connection: h11.Connection) -> None:
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        sock.sendall(connection.trailing_data[0])
        while data := sock.recv(65536):
            sock.sendall(data)


class Client:
    """An HTTP/1.1 client on one connection: sends raw bytes, reads whole answers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = b""

    def send(self, raw: str | bytes) -> None:
        self.sock.sendall(raw.replace("\n", "\r\n").encode() if isinstance(raw, str) else raw)

    def _more(self) -> bytes:
        part = self.sock.recv(65536)
        self._data += part
        return part

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._data:
            assert self._more(), f"the connection ended after {self._data!r}"
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers

    def take(self, size: int) -> bytes:
        while len(self._data) < size:
            assert self._more(), "the connection ended in mid-body"
        data, self._data = self._data[:size], self._data[size:]
        return data

    def line(self) -> bytes:
        while b"\r\n" not in self._data:
            assert self._more()
        line, _, self._data = self._data.partition(b"\r\n")
        return line

    def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304) or status < 200:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.line(), 16):
                body += self.take(size)
                self.take(2)
            while line := self.line():
                headers["trailer " + line.decode().partition(":")[0].lower()] = line.decode().partition(":")[2].strip()
            return status, headers, body
        if "content-length" in headers:
            return status, headers, self.take(int(headers["content-length"]))
        while self._more():
            pass
        body, self._data = self._data, b""
        return status, headers, body

    def get(
        self, path: str, method: str = "GET", headers: str = "", body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        length = f"Content-Length: {len(body)}\n" if body else ""
        self.send(f"{method} {path} HTTP/1.1\nHost: shop\n{headers}{length}\n".replace("\n", "\r\n").encode() + body)
        return self.answer(method)

    def ended(self) -> bool:
        return not self._data and not self.sock.recv(1)


class Route:
    """A service behind a proxy."""

    def __init__(self, bench: Any, **options: Any) -> None:
        self.service = Service()
        self.proxy = bench.proxy(bench.upstream(self.service), http=True, **options)
        self.control = self.proxy.control

    def client(self) -> Client:
        return Client(self.proxy.connect())

    def add(self, kind: str, stream: str = "upstream", **attributes: Any) -> str:
        self.control.add_toxic(kind, f"http_{kind}", stream, attributes=attributes)
        return kind

    def hits(self, name: str) -> dict[str, int]:
        return dict(self.proxy.hits(name))
