"""A cable between the test's network namespace and another, and processes there that talk when they are told to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from squall.kernel.namespaces import NetworkNamespace, entered
from tests import namespaces, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["FAR", "NEAR", "Ears", "Talker", "Wire", "send_numbered", "talker", "wire"]

NEAR = {4: "10.77.0.1", 6: "fd77::1"}
FAR = {4: "10.77.0.2", 6: "fd77::2"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_TALKER = Path(__file__).with_name("talk.py")
_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


@dataclass
class Wire:
    """`near` is in the test's namespace, `far` in the one called `name`."""

    name: str

    @property
    def namespace(self) -> NetworkNamespace:
        """The far end's."""
        return NetworkNamespace.at(f"/run/netns/{self.name}")

    def ip(self, *words: str) -> None:
        """Run `ip` at the far end."""
        subprocess.run(["ip", "-n", self.name, *words], check=True, capture_output=True)


@contextmanager
def wire() -> Iterator[Wire]:
    """A cable with addresses of both families at both ends, from the test's namespace to a new one."""
    with namespaces.named_netns() as name:
        subprocess.run(
            ["ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", name],
            check=True,
            capture_output=True,
        )
        found = Wire(name)
        _address("near", NEAR)
        found.ip("link", "set", "far", "up")
        for family, address in FAR.items():
            found.ip("addr", "add", f"{address}/{24 if family == 4 else 64}", "dev", "far", *_nodad(family))
        try:
            with entered(found.namespace):
                specimens.wait_for(lambda: _answers(FAR, NEAR), "the cable works")
            yield found
        finally:
            subprocess.run(["ip", "link", "delete", "near"], check=False, capture_output=True)


def _nodad(family: int) -> list[str]:
    return ["nodad"] if family == 6 else []


def _address(device: str, addresses: dict[int, str]) -> None:
    subprocess.run(["ip", "link", "set", device, "up"], check=True, capture_output=True)
    for family, address in addresses.items():
        prefix = f"{address}/{24 if family == 4 else 64}"
        subprocess.run(["ip", "addr", "add", prefix, "dev", device, *_nodad(family)], check=True, capture_output=True)


def _answers(here: dict[int, str], there: dict[int, str]) -> bool:
    """Whether a connection to a port where nobody listens is refused at once: then neighbours know each other."""
    for family in (4, 6):
        with socket.socket(_family(family), socket.SOCK_STREAM) as one:
            one.settimeout(0.5)
            one.bind((here[family], 0))
            try:
                one.connect((there[family], 9))
            except ConnectionRefusedError:
                continue
            except OSError:
                return False
    return True


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


class Ears:
    """A UDP socket of the test's own that remembers nothing by itself: `numbers` reads what has come."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._socket = socket.socket(_family(6 if ":" in address else 4), socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((address, port))
        self._socket.setblocking(False)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    def numbers(self) -> list[int]:
        """What has come since the last time; local delivery is done when a sender's call returns, unless packets are held."""
        found = []
        while True:
            try:
                found.append(int(self._socket.recv(2048).split(b" ")[0]))
            except BlockingIOError:
                return found

    def send(self, to: tuple[str, int], count: int) -> None:
        """Send as many numbered datagrams from this very socket."""
        send_numbered(self._socket, to, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def send_numbered(one: socket.socket, to: tuple[str, int], count: int) -> None:
    """Numbered datagrams, one after the other."""
    for number in range(count):
        one.sendto(b"%d squall" % number, to)


@dataclass
class Talker:
    """A process that does with sockets what it is asked to (talk.py says what)."""

    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.popen.pid

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have something done and wait for its answer; AssertionError with the reason when it could not."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self.popen.stdin.flush()
        answer = json.loads(self.popen.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["ok"]


@contextmanager
def talker(netns: str = "", cgroup: Path | None = None) -> Iterator[Talker]:
    """A process that talks in this network namespace (the test's), in this cgroup (the test's)."""
    argv = [*(["ip", "netns", "exec", netns] if netns else []), sys.executable, "-I", "-S", "-u", str(_TALKER)]
    with ExitStack() as exits:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        exits.callback(_end, process)
        found = Talker(process)
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(process.pid))
        found.ask("hello")
        yield found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
