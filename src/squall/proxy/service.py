"""`squall proxy`: the API in this process, the data plane in a child; neither outlives the other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import unquote, urlsplit

from squall.errors import InputError
from squall.kernel import launch
from squall.proxy.api import Answer, Api, read_specs
from squall.proxy.link import Link, PlaneGone
from squall.proxy.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["serve"]

_BODY_MOST: Final = 8 << 20
_IDLE_S: Final = 60
_END_WAIT_S: Final = 2.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(
    api_host: str = "127.0.0.1",
    api_port: int = 8474,
    config_path: str | None = None,
    options: Mapping[str, object] | None = None,
    *,
    seed: int | None = None,
    ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve the Toxiproxy API and its proxies until SIGTERM or SIGINT; call it from the main thread.

    `config_path` is a toxiproxy.json, populated before the API answers; `options` are those of `proxy.Options`;
    `ready` is called with the API's address. Raises InputError for a wrong config, option or address (exit status 2),
    PlaneGone when the data plane ends by itself.
    """
    specs = _read_config(config_path)
    stop = _Stop()
    before = {number: signal.signal(number, lambda _number, _frame: stop.set()) for number in _SIGNALS}
    try:
        with _DataPlane({"drain_s": 0, "http": False, **(options or {})}, seed) as plane:
            for spec in specs:
                _populate(plane.link, spec, config_path)
            _serve_api(plane, api_host, api_port, stop, ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read_config(path: str | None) -> list[dict[str, object]]:
    if path is None:
        return []
    try:
        return read_specs(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except Refusal as refusal:
        raise InputError(f"{path}: {refusal}") from refusal


def _populate(link: Link, spec: dict[str, object], path: str | None) -> None:
    try:
        link.ask("populate", **spec)
    except Refusal as refusal:
        raise InputError(f"{path}: proxy {spec['name']}: {refusal}") from refusal


def _serve_api(plane: _DataPlane, host: str, port: int, stop: _Stop, ready: Callable[[str, int], None] | None) -> None:
    try:
        server = _Server((host, port), Api(plane.link))
    except OSError as error:
        raise InputError(f"the API cannot listen on {host}:{port}: {error.strerror or error}") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True, name="api")
        thread.start()
        plane.watch(stop)
        if ready is not None:
            ready(*server.address)
        stop.wait()
        server.shutdown()
        thread.join()
    if plane.ended():
        raise PlaneGone("the data plane ended by itself; its proxies are gone")


class _Stop:
    """Set once, by a signal handler or a thread. Not a threading.Event: its lock is not for handlers, which may run inside `wait`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def set(self) -> None:
        os.write(self._writer, b".")

    def wait(self) -> None:
        os.read(self._reader, 1)


class _DataPlane:
    """The child: it ends when its standard input does, so it cannot outlive this process however that ends."""

    def __init__(self, options: Mapping[str, object], seed: int | None) -> None:
        here, there = socket.socketpair()
        config = json.dumps({"control": there.fileno(), "options": dict(options), "seed": seed})
        self._process = subprocess.Popen(
            launch.command("squall.proxy.owned", config),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[there.fileno()], start_new_session=True,
        )  # fmt: skip
        there.close()
        self.link = Link(here)
        self._closing = False
        said = self._process.stdout.readline() if self._process.stdout else b""
        if said != b"ready\n":
            self.__exit__()
            raise InputError(json.loads(said)["error"] if said else "the data plane did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.link.close()

    def watch(self, stop: _Stop) -> None:
        """Set `stop` when the data plane ends."""

        def wait() -> None:
            self._process.wait()
            stop.set()

        threading.Thread(target=wait, daemon=True, name="data plane").start()

    def ended(self) -> bool:
        """Whether the data plane has ended although nobody asked it to."""
        return not self._closing and self._process.poll() is not None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], api: Api) -> None:
        self.api = api
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking the host's name up, as the base class would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self.server_address = self.address
        self.server_name, self.server_port = self.address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self._body()
        if body is None:
            self._send(Answer(413))
            return
        api = cast("_Server", self.server).api
        path = unquote(urlsplit(self.path).path)
        self._send(api.answer(self.command, path, body, self.headers.get("User-Agent", "")))

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = _handle  # noqa: N815 - the base class's names

    def _body(self) -> bytes | None:
        """The request's body; None when it is too large or cannot be read."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= _BODY_MOST:
            self.close_connection = True
            return None
        return self.rfile.read(length)

    def _chunks(self) -> bytes | None:
        body = bytearray()
        while True:
            try:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
            except ValueError:
                size = _BODY_MOST + 1
            if size + len(body) > _BODY_MOST:
                self.close_connection = True
                return None
            body += self.rfile.read(size)
            self.rfile.readline(8)
            if not size:
                return bytes(body)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        self.send_header("Date", formatdate(usegmt=True))
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        if answer.content_type.startswith("text/plain; charset"):
            self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status != 204:  # noqa: PLR2004 - 204 has no body and no length
            self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the API is for programs."""
