"""HTTP/2 by the library h2 at both ends: it checks every window, number, state and header table, and says what is wrong."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

Fields = list[tuple[str, str]]
JSON = b'{"id":1,"tags":["a"],"price":{"net":5,"tax":1}}'
LARGE = random.Random(5).randbytes(3_000_000)
PATIENCE_S = 15.0


@dataclass
class Message:
    """What came on one stream."""

    fields: Fields = field(default_factory=list)
    interim: list[Fields] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self[":status"])


class Peer:
    """One end of a connection; what it sends waits for windows, as it must."""

    def __init__(self, sock: socket.socket, *, client: bool, settings: dict[int, int] | None = None) -> None:
        self.sock = sock
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8", validate_inbound_headers=True)
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            mine = {**dict(self.h2.local_settings), **settings}
            self.h2.local_settings = h2.settings.Settings(client=client, initial_values=mine)
        self.messages: dict[int, Message] = {}
        self.goaway: Any = None
        self.pings = self.acknowledged = 0
        self.lock = threading.RLock()
        self._waiting: dict[int, tuple[bytes, Fields | None]] = {}
        self.grants = True
        """It gives windows back as data comes."""
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        with self.lock:
            data = self.h2.data_to_send()
            if data:
                self.sock.sendall(data)

    def send(self, stream: int, fields: Fields, body: bytes | None = None, trailers: Fields | None = None) -> None:
        """A head, and the rest as windows allow."""
        with self.lock:
            end = body is None and trailers is None
            self.h2.send_headers(stream, fields, end_stream=end)
            if not end:
                self._waiting[stream] = (body or b"", trailers)
            self.pump()

    def pump(self) -> None:
        """Send what windows allow."""
        with self.lock:
            for stream, (body, trailers) in list(self._waiting.items()):
                at = 0
                while at < len(body):
                    room = min(
                        self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body) - at
                    )
                    if room <= 0:
                        break
                    self.h2.send_data(stream, body[at : at + room])
                    at += room
                if at < len(body):
                    self._waiting[stream] = (body[at:], trailers)
                    continue
                del self._waiting[stream]
                if trailers is None:
                    self.h2.end_stream(stream)
                else:
                    self.h2.send_headers(stream, trailers, end_stream=True)
            self.flush()

    def receive(self) -> bool:
        """Take what has come; False at the end."""
        data = self.sock.recv(65536)
        if not data:
            return False
        with self.lock:
            for event in self.h2.receive_data(data):
                self._take(event)
            self.pump()
        return True

    def _take(self, event: Any) -> None:  # noqa: C901 - a table
        kind = type(event)
        stream = getattr(event, "stream_id", None)
        if kind in (h2.events.RequestReceived, h2.events.ResponseReceived):
            self.messages.setdefault(stream, Message()).fields = list(event.headers)
        elif kind is h2.events.InformationalResponseReceived:
            self.messages.setdefault(stream, Message()).interim.append(list(event.headers))
        elif kind is h2.events.DataReceived:
            self.messages[stream].body += event.data
            if self.grants:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif kind is h2.events.TrailersReceived:
            self.messages[stream].trailers = list(event.headers)
        elif kind is h2.events.StreamEnded:
            self.messages.setdefault(stream, Message()).ended = True
            self.ended(stream)
        elif kind is h2.events.StreamReset:
            self.messages.setdefault(stream, Message()).reset = event.error_code
            self._waiting.pop(stream, None)
        elif kind is h2.events.ConnectionTerminated:
            self.goaway = event
        elif kind is h2.events.PingAckReceived:
            self.pings += 1
        elif kind is h2.events.SettingsAcknowledged:
            self.acknowledged += 1

    def ended(self, stream: int) -> None:
        """A message has come whole."""


class Service(Peer):
    """Answers by the path; remembers what it was asked."""

    def __init__(self, sock: socket.socket, **settings: int) -> None:
        self.asked: list[Message] = []
        super().__init__(sock, client=False, settings={int(code): value for code, value in settings.items()} or None)

    def ended(self, stream: int) -> None:
        """Answer."""
        request = self.messages[stream]
        self.asked.append(request)
        path = request[":path"].partition("?")[0]
        body: bytes | None = bytes(request.body)
        fields, trailers = [(":status", "200"), ("x-path", request[":path"])], None
        if path == "/json":
            body = JSON
            fields += [("content-type", "application/json"), ("content-length", str(len(JSON)))]
        elif path == "/large":
            body = LARGE
        elif path == "/trailers":
            body, trailers = JSON, [("x-sum", "7"), ("x-of", "9")]
        elif path == "/204":
            body, fields = None, [(":status", "204")]
        elif path == "/interim":
            self.h2.send_headers(stream, [(":status", "103"), ("link", "</a>")])
        elif path == "/secret":
            fields.append(("set-cookie", "token=1"))
        if request[":method"] == "HEAD":
            body = None
        if stream in self.messages and request.reset is None:
            self.send(stream, fields, body, trailers)


class Server:
    """A handler of connections for `bench.upstream`; keeps what each was asked."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        self.settings = settings
        self.services: list[Service] = []

    def __call__(self, sock: socket.socket) -> None:
        service = Service.__new__(Service)
        service.asked = []
        Peer.__init__(service, sock, client=False, settings=self.settings)
        self.services.append(service)
        while service.receive():
            pass

    @property
    def asked(self) -> list[Message]:
        """Every request, in order of its end."""
        return [message for service in self.services for message in service.asked]


class Client(Peer):
    """Asks, and reads in the caller's thread."""

    def __init__(self, sock: socket.socket, settings: dict[int, int] | None = None) -> None:
        super().__init__(sock, client=True, settings=settings)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, trailers: Fields | None = None, **fields: str
    ) -> int:
        """Send a request; its stream."""
        with self.lock:
            stream = self.h2.get_next_available_stream_id()
            head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "shop")]
            head += [(name.replace("_", "-"), value) for name, value in fields.items()]
            self.messages[stream] = Message()
            self.send(stream, head, body, trailers)
        return int(stream)

    def until(self, condition: Callable[[], Any]) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "not within the time"
            assert self.receive(), "the connection ended"

    def answer(self, stream: int) -> Message:
        """The whole answer."""
        message = self.messages[stream]
        self.until(lambda: message.ended or message.reset is not None)
        return message

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **fields: str) -> Message:
        """Ask, and wait for the answer."""
        return self.answer(self.ask(path, method, body, **fields))
