"""A data plane as experiments own it, real sockets on both sides of it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions.proxy_control import ProxyControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 10.0


def until(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Wait for a condition; its value."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"not within {within_s} s: {what}")


class Upstream:
    """A TCP server whose connections a test handles itself, or gives to a handler in a thread each."""

    def __init__(self, handler: Callable[[socket.socket], None] | None = None, host: str = "127.0.0.1") -> None:
        self.listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.settimeout(PATIENCE_S)
        self.port = self.listener.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._handler = handler
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        if handler is not None:
            self._start(self._serve)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._open.append(connection)
            self._start(self._handle, connection)

    def _handle(self, connection: socket.socket) -> None:
        assert self._handler is not None
        with connection, contextlib.suppress(OSError):
            self._handler(connection)

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(connection)
        return connection

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)


def echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65536):
        connection.sendall(data)


class OwnedProxy:
    """A running `squall.proxy.owned` with one route."""

    def __init__(self, process: subprocess.Popen[str], control: ProxyControl, socket_path: str) -> None:
        self.process, self.control, self.socket_path = process, control, socket_path
        host, _, port = control.stats()["listen"].rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.create_connection((self.host, self.port), timeout=PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(client)
        return client

    def hits(self, name: str) -> dict[str, int]:
        toxic = self.control.toxic(name)
        return dict(toxic["hits"]) if toxic else self.control.stats()["gone"][name]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout:
                self.process.stdout.close()


class Bench:
    """What a test needs: servers, proxies, and their end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end = contextlib.ExitStack()
        self._count = 0

    until = staticmethod(until)
    echo = staticmethod(echo)

    def upstream(self, handler: Callable[[socket.socket], None] | None = None, host: str = "127.0.0.1") -> Upstream:
        upstream = Upstream(handler, host)
        self._end.callback(upstream.close)
        return upstream

    def start(self, config: dict[str, Any]) -> tuple[subprocess.Popen[str], str]:
        """Start a data plane; its process and its first line."""
        process = subprocess.Popen(
            [sys.executable, "-m", "squall.proxy.owned", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, process.stdout.readline()

    def proxy(
        self, upstream: Upstream | str, *, seed: int = 7, listen: str = "127.0.0.1:0", **options: Any
    ) -> OwnedProxy:
        self._count += 1
        path = str(self._folder / f"control-{self._count}.sock")
        address = upstream if isinstance(upstream, str) else upstream.address
        config = {
            "control": path,
            "seed": seed,
            "listen": listen,
            "upstream": address,
            "options": {"drain_s": 0, **options},
        }
        process, said = self.start(config)
        assert said == "ready\n", said
        proxy = OwnedProxy(process, ProxyControl(path), path)
        self._end.callback(proxy.close)
        return proxy

    def close(self) -> None:
        self._end.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or what came before the end."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(65536, size - len(data)))
        if not part:
            break
        data += part
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    data = bytearray()
    while part := sock.recv(65536):
        data += part
    return bytes(data)


def how_it_ends(sock: socket.socket) -> str:
    """`data`, `end` or `reset`."""
    try:
        return "data" if sock.recv(65536) else "end"
    except ConnectionResetError:
        return "reset"


@pytest.fixture
def sockets() -> Any:
    """The reading functions, for tests (their folder is not a package)."""

    class Sockets:
        receive = staticmethod(receive)
        receive_all = staticmethod(receive_all)
        how_it_ends = staticmethod(how_it_ends)

    return Sockets
