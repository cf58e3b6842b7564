"""A listener of multipath TCP, as Go's are, is hit like any other: the kernel answers for it by sockets of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from squall.targets import find_processes
from tests.network.striking import striking

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_SERVER = """
import socket
listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("::", 0)); listener.listen()
print(listener.getsockname()[1], flush=True)
held = []
while True:
    one, _ = listener.accept()
    held.append(one)
    one.sendall(one.recv(1))
"""


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """A process that answers each byte, on IPv4 and IPv6: its pid and port."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            pytest.skip(f"this kernel has no multipath TCP: {process.stderr.read().decode().splitlines()[-1]}")
        try:
            yield process.pid, int(line)
        finally:
            process.kill()


def answers(address: str, port: int) -> bool:
    """Whether it answers within the time that a loss of everything would need."""
    try:
        with socket.create_connection((address, port), timeout=1) as one:
            one.sendall(b"x")
            return one.recv(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_nothing_of_it_passes_and_all_of_others(address: str, direction: str) -> None:
    with server() as (pid, port), server() as (_, other):
        [target] = find_processes(pid=pid)
        assert answers(address, port)
        with striking("network.loss", {"percent": "100%", "direction": direction}, target):
            assert not answers(address, port)
            assert answers(address, other)
        assert answers(address, port)
