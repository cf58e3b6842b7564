"""A real HTTP server on a thread, whose answers a test chooses."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.resilience.adapters.databases import Database, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

HANG_SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Seen:
    """A request as the server had it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: int
    """The port it came from: the same for requests on one connection."""


@dataclass
class Script:
    """What the server answers, one after the other; the last one again and again."""

    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"left": 7}'
    hangs_before: str = ""
    """"head": no answer at all; "body": the head, and nothing after it."""
    trickles: float = 0.0
    """Seconds between two bytes of the body."""
    chunked: bool = False
    closes: bool = False
    """Close the connection after an answer that promised to keep it."""
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/stock/a1"


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its class."""

    protocol_version = "HTTP/1.1"
    script: Script

    def answer(self) -> None:
        script = self.script
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        script.seen.append(Seen(self.command, self.path, headers, body, self.client_address[1]))
        if script.hangs_before == "head":
            self.hang()
            return
        self.send_response(script.statuses[min(len(script.seen), len(script.statuses)) - 1])
        for name, value in script.headers.items():
            self.send_header(name, value)
        if script.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(script.body)))
        self.end_headers()
        self.wfile.flush()
        if script.hangs_before == "body":
            self.hang()
            return
        if self.command != "HEAD":
            (self.send_chunks if script.chunked else self.send_bytes)()
        self.close_connection = self.close_connection or script.closes

    def hang(self) -> None:
        self.script.let_go.wait(HANG_SECONDS_MAX)
        self.close_connection = True

    def send_chunks(self) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(self.script.body), self.script.body))
        self.wfile.flush()
        if self.script.trickles:
            self.script.let_go.wait(HANG_SECONDS_MAX)
        self.wfile.write(b"0\r\n\r\n")

    def send_bytes(self) -> None:
        if not self.script.trickles:
            self.wfile.write(self.script.body)
            return
        for byte in self.script.body:
            self.wfile.write(bytes([byte]))
            self.script.let_go.wait(self.script.trickles)

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - the base's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that gave up
            super().handle()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that is gone is part of these tests."""


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    with Server(("127.0.0.1", 0), type("Handler", (Handler,), {"script": made})) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.let_go.set()
            server.shutdown()
            thread.join(5)


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A real PostgreSQL, shared by the tests of a session."""
    with postgres() as started:
        yield started
