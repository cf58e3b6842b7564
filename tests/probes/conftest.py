"""A real small service in a process of its own, and a server that says exactly the bytes a test wants."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = Path(__file__).parent.parent / "benchmarks" / "load" / "service.py"


@dataclass
class RunningService:
    """`service.py`, listening on `port`."""

    process: subprocess.Popen[str]
    port: int

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def running_service(port: int = 0) -> Iterator[RunningService]:
    command = [sys.executable, "-I", "-S", str(SERVICE), *([str(port)] if port else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield RunningService(process, int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as one:
        yield one


@pytest.fixture
def start_service() -> Iterator[Callable[[int], RunningService]]:
    """Starts a service on a given port, as often as wanted."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(running_service(port))


@pytest.fixture
def says() -> Iterator[Callable[[list[bytes]], int]]:
    """A server that sends these pieces to whoever connects, after the request's first bytes, then closes; its port."""
    with contextlib.ExitStack() as stack:

        def start(pieces: list[bytes]) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_serve, args=(listener, pieces), daemon=True).start()
            port: int = listener.getsockname()[1]
            return port

        yield start


def _serve(listener: socket.socket, pieces: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)


@pytest.fixture
def nobody() -> int:
    """A loopback port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def tls_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A TLS server for localhost whose certificate this process trusts; its port."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
            while b"\r\n\r\n" in tls.recv(65_536):
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)

    def serve() -> None:
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port
