"""What the tests of the stand-ins share: raw HTTP by hand, and waiting for a condition."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

Raw = Callable[[str, bytes], bytes]
WaitFor = Callable[[Callable[[], bool]], None]


@pytest.fixture
def raw() -> Raw:
    """Send bytes to a URL's host and port; everything that comes back until the server closes."""

    def send(url: str, data: bytes) -> bytes:
        host, _, port = url.removeprefix("http://").rpartition(":")
        received = b""
        with socket.create_connection((host.strip("[]"), int(port)), timeout=20) as sock:
            sock.sendall(data)
            while chunk := sock.recv(65_536):
                received += chunk
        return received

    return send


@pytest.fixture
def wait_for() -> WaitFor:
    """Wait until a condition holds, at most 20 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "not so within 20 s"
            time.sleep(0.01)

    return wait
