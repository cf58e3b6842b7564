"""Another network namespace at the end of a wire, for kernel tests: real packets that meet nothing of the machine.

The test itself stands at the near end, in the namespace of its own that every test marked `kernel` has.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import worker
from squall.kernel.namespaces import NetworkNamespace
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.specimens import Specimen

__all__ = ["ECHO_PORT", "OFF_MS", "TIMES", "Wire", "echo", "round_trips_ms", "wire"]

ECHO_PORT = 7007
TIMES = 8 if os.environ.get("SQUALL_GUEST") else 1
"""Everything takes longer in a guest, and so must a delay that is to be told from none."""
OFF_MS = 12.0 * TIMES
"""Without a delay an exchange takes far less, on a busy machine too; each delay that a test asks for is longer."""
worker._READY_S = max(worker._READY_S, 10.0 * TIMES)  # a guest starts an interpreter in seconds
_PATIENCE_S = 20.0 * TIMES

_SLEEP = "import time\nprint('ready', flush=True)\ntime.sleep(600)"
_ECHO = """
import selectors, socket, sys
port = int(sys.argv[1])
chosen = selectors.DefaultSelector()
listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("::", port))
for one in (listener, udp):
    chosen.register(one, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        if key.fileobj is listener:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chosen.register(connection, selectors.EVENT_READ)
        elif key.fileobj is udp:
            data, sender = udp.recvfrom(65535)
            udp.sendto(data, sender)
        else:
            data = key.fileobj.recv(1 << 20)
            if not data:
                chosen.unregister(key.fileobj)
                key.fileobj.close()
            elif data[:4] == b"drop":
                continue
            else:
                key.fileobj.sendall(data)
"""


@dataclass(frozen=True)
class Wire:
    """Two ends: the test's own ("near") and that of another namespace ("far")."""

    keeper: Specimen
    """A process at the far end: its namespace lives with it."""
    near: str = "10.77.0.1"
    far: str = "10.77.0.2"
    near6: str = "fd77::1"
    far6: str = "fd77::2"
    near_link: str = "near0"
    far_link: str = "far0"

    @property
    def path(self) -> str:
        """The far namespace's."""
        return f"/proc/{self.keeper.pid}/ns/net"

    @property
    def namespace(self) -> NetworkNamespace:
        """The far namespace."""
        return NetworkNamespace.at(self.path)

    def argv(self, *argv: str) -> list[str]:
        """A command that runs at the far end."""
        return ["nsenter", f"--net={self.path}", *argv]

    def far_end(self, *argv: str) -> str:
        """Run a command at the far end; what it printed."""
        return subprocess.run(self.argv(*argv), capture_output=True, text=True, check=True, timeout=_PATIENCE_S).stdout

    def connect(self) -> None:
        """Make the wire (anew, if it is gone) and give its ends their addresses."""
        pid = str(self.keeper.pid)
        _ip("link", "add", self.near_link, "type", "veth", "peer", "name", self.far_link, "netns", pid)
        for address in (f"{self.near}/24", f"{self.near6}/64"):
            _ip("addr", "add", address, "dev", self.near_link, *(["nodad"] if ":" in address else []))
        for address in (f"{self.far}/24", f"{self.far6}/64"):
            nodad = ["nodad"] if ":" in address else []
            self.far_end("ip", "addr", "add", address, "dev", self.far_link, *nodad)
        self.far_end("ip", "link", "set", self.far_link, "up")
        _ip("link", "set", self.near_link, "up")

    def cut(self) -> None:
        """Take the wire away, with both its interfaces."""
        _ip("link", "del", self.near_link)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=_PATIENCE_S)


@contextmanager
def wire() -> Iterator[Wire]:
    """A wire from the test's namespace to another one; skips where `ip` or `nsenter` are missing."""
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs `{tool}`, of Debian's package {package}")
    argv = ("unshare", "--net", sys.executable, "-I", "-S", "-u", "-c", _SLEEP)
    with specimens.started(*argv, stdout=subprocess.PIPE) as keeper:
        assert keeper.popen.stdout is not None
        assert keeper.popen.stdout.readline() == b"ready\n"
        made = Wire(keeper)
        made.far_end("ip", "link", "set", "lo", "up")
        made.connect()
        try:
            yield made
        finally:
            if Path(f"/sys/class/net/{made.near_link}").exists():
                made.cut()


@contextmanager
def echo(at: Wire | None = None, port: int = ECHO_PORT) -> Iterator[Specimen]:
    """A TCP and UDP echo server at the far end of a wire, or (None) at the test's own; it does not answer "drop..."."""
    argv = [sys.executable, "-I", "-S", "-u", "-c", _ECHO, str(port)]
    with ExitStack() as exits:
        server = exits.enter_context(
            specimens.started(*(argv if at is None else at.argv(*argv)), stdout=subprocess.PIPE)
        )
        assert server.popen.stdout is not None
        assert server.popen.stdout.readline() == b"ready\n"
        yield server


def round_trips_ms(address: str, count: int, *, port: int = ECHO_PORT, udp: bool = False) -> list[float]:
    """How long as many exchanges with an echo server take over one connection, each when the one before has ended."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as one:
        one.settimeout(_PATIENCE_S)
        one.connect((address, port))
        if not udp:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            one.sendall(b"x" * 64)
            assert one.recv(65535)
            taken.append((time.perf_counter() - begun) * 1000)
    return taken
