"""What it costs that connections may be led away: to those that are not, to those that are, and how soon it begins and ends.

`python tests/benchmarks/hijack/bench.py` writes docs/benchmarks/hijack.json and hijack.md. Needs root: everything happens
in a network namespace and a cgroup of its own. What the programs take is counted by the kernel itself (BPF_ENABLE_STATS).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from squall.faults import parse_fault  # noqa: E402 - the path first
from squall.injectors import Plan, Site  # noqa: E402
from squall.injectors.hijack import HijackInjector  # noqa: E402
from squall.kernel.bpf.calls import bpf  # noqa: E402
from squall.kernel.namespaces import NetworkNamespace  # noqa: E402
from squall.targets import NetnsTarget, Target, find_cgroup  # noqa: E402
from tests import kernel_world  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from squall.actions import Action

DOCS = ROOT / "docs" / "benchmarks"
ROUNDS, CONNECTS, EXCHANGES, TIMES = 5, 200, 500, 10
_NEXT_PROGRAM, _PROGRAM_FD, _INFO, _ENABLE_STATS = 11, 13, 15, 32
_NAME_AT, _RUN_AT, _INFO_SIZE = 64, 192, 256


def program_times(name: str) -> tuple[int, int]:
    """How long the program of this name has run, in ns, and how often."""
    found, ns, times = 0, 0, 0
    while True:
        try:
            _, block = bpf(_NEXT_PROGRAM, struct.pack("<III", found, 0, 0))
        except OSError:
            return ns, times
        (found,) = struct.unpack_from("<I", block, 4)
        try:
            fd, _ = bpf(_PROGRAM_FD, struct.pack("<III", found, 0, 0))
        except OSError:
            continue  # gone since
        info = ctypes.create_string_buffer(_INFO_SIZE)
        with contextlib.suppress(OSError):
            bpf(_INFO, struct.pack("<IIQ", fd, _INFO_SIZE, ctypes.addressof(info)))
        os.close(fd)
        if info.raw[_NAME_AT : _NAME_AT + 16].rstrip(b"\0").decode() == name:
            spent, count = struct.unpack_from("<QQ", info.raw, _RUN_AT)
            ns, times = ns + spent, times + count


class Bench:
    """One server, one target, and faults on it that do nothing but lead connections."""

    def __init__(self, folder: Path, world: kernel_world.KernelWorld) -> None:
        self._folder, self._number = folder, 0
        self._home, self._app = world.cgroup / "test", world.subgroup("app")
        self._move(self._app)
        self.inside = find_cgroup(str(self._app))
        self.here = NetnsTarget("here", NetworkNamespace.at("/proc/thread-self/ns/net"))
        self._servers = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
        self.port, self.other = (one.getsockname()[1] for one in self._servers)
        for server in self._servers:
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()

    @staticmethod
    def _move(folder: Path) -> None:
        """Be the target from now on, or not: a worker that is started must not be in the target's cgroup."""
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    @staticmethod
    def _serve(server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=Bench._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def leave(self) -> None:
        """Go back to where the world expects this process."""
        self._move(self._home)

    def plan(self, direction: str) -> Plan:
        """Lead the connections to `port`, without a fault on them."""
        self._number += 1
        target: Target = self.here if direction == "inbound" else self.inside
        fault = parse_fault(
            "tcp.latency", {"latency": "0s", "connections": direction, "ports": [self.port], "established": "leave"}
        )
        made = HijackInjector().plan(fault, target, Site(f"bench-{os.getpid()}", self._folder, str(self._number), 7))
        if not isinstance(made, Plan):
            raise SystemExit(made.reason)
        return made

    def begin(self, hijack: Action) -> Sequence[int]:
        """Do it, from outside of the target's cgroup."""
        self._move(self._home)
        held = hijack.do()
        self._move(self._app)
        return held

    @contextlib.contextmanager
    def led(self, direction: str) -> Iterator[None]:
        hijack = self.plan(direction).actions[0]
        held = self.begin(hijack)
        try:
            yield
        finally:
            for fd in held:
                os.close(fd)
            hijack.undo()

    def connect_us(self, port: int) -> list[float]:
        """What connecting takes, one after the other."""
        found = []
        for _ in range(CONNECTS):
            with socket.socket() as one:
                began = time.perf_counter_ns()
                one.connect(("127.0.0.1", port))
                found.append((time.perf_counter_ns() - began) / 1000)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return found

    def exchange_us(self) -> list[float]:
        """What 1 kB there and back takes on one connection."""
        found, data = [], bytes(1024)
        with socket.create_connection(("127.0.0.1", self.port)) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(EXCHANGES):
                began, left = time.perf_counter_ns(), len(data)
                one.sendall(data)
                while left:
                    got = len(one.recv(left))
                    assert got, "the connection ended"
                    left -= got
                found.append((time.perf_counter_ns() - began) / 1000)
        return found


def programs(bench: Bench) -> list[tuple[str, float]]:
    """What each program takes, in ns, for connections that it leaves alone and for those that it leads."""
    cases = (
        ("outbound", "connect4", bench.other, "a connect to a port that is not meant"),
        ("outbound", "connect4", bench.port, "a connect that is led"),
        ("outbound", "connecting", bench.other, "the same socket's other events, not meant"),
        ("outbound", "connecting", bench.port, "its origin noted"),
        ("inbound", "offered", bench.other, "a connection offered to a port that is not meant"),
        ("inbound", "offered", bench.port, "a connection offered that is led (and the proxy's own to the service)"),
    )
    found = []
    for direction, name, port, what in cases:
        with bench.led(direction):
            bench.connect_us(port)
            before = program_times(name)
            bench.connect_us(port)
            after = program_times(name)
        found.append((f"{name}: {what}", (after[0] - before[0]) / max(1, after[1] - before[1])))
    return found


def paired(bench: Bench) -> list[tuple[str, float, float, str]]:
    """The same with and without, in turns: what, without, with, unit."""
    found = []
    for direction in ("outbound", "inbound"):
        without, beside, through, round_trip, hop = [], [], [], [], []
        for _ in range(ROUNDS):
            without += bench.connect_us(bench.port)
            round_trip += bench.exchange_us()
            with bench.led(direction):
                beside += bench.connect_us(bench.other)
                through += bench.connect_us(bench.port)
                hop += bench.exchange_us()
        for what, one, other in (
            (f"connect to a port that is not meant, {direction}", without, beside),
            (f"connect that is led, {direction}", without, through),
            (f"1 kB there and back through the proxy, {direction}", round_trip, hop),
        ):
            found.append((what, statistics.median(one), statistics.median(other), "us"))
    return found


def moments(bench: Bench) -> list[tuple[str, float, float]]:
    """How soon a hijack is on, and how soon after its owner's end connections go their own way."""
    found = []
    for direction in ("outbound", "inbound"):
        begins, ends = [], []
        for _ in range(TIMES):
            hijack = bench.plan(direction).actions[0]
            began = time.monotonic_ns()
            held = bench.begin(hijack)
            begins.append((time.monotonic_ns() - began) / 1e6)
            for fd in held:
                os.close(fd)
            ended = time.monotonic_ns()
            name = "connect4" if direction == "outbound" else "offered"
            led = True
            while led:
                before = program_times(name)[1]
                socket.create_connection(("127.0.0.1", bench.port)).close()
                led = program_times(name)[1] > before
            ends.append((time.monotonic_ns() - ended) / 1e6)
            hijack.undo()
        found.append(
            (f"{direction}: from the step's begin until connections are led", statistics.median(begins), max(begins))
        )
        found.append(
            (f"{direction}: from its owner's end until they go their own way", statistics.median(ends), max(ends))
        )
    return found


def page(result: dict[str, object], costs: list[tuple[str, float]], pairs: list[tuple[str, float, float, str]],
         soon: list[tuple[str, float, float]]) -> str:  # fmt: skip
    """The Markdown."""
    lines = [
        "# Hijack: what it costs that connections may be led to the proxy",
        "",
        "Written by `tests/benchmarks/hijack/bench.py`, in a network namespace and a cgroup of its own, on loopback.",
        "Aimed at: no more than 200 ns for a connect of the target that is not meant. Processes that are not in the target's",
        "cgroup run none of the outbound programs; the inbound one runs for new connections of its network namespace.",
        "",
        f"Linux {result['kernel']}, {result['cpus']} CPUs, Python {result['python']}; load average {result['load']} when it began.",
        "",
        "| program, counted by the kernel | ns a run |",
        "|---|---|",
        *(f"| {what} | {ns:.0f} |" for what, ns in costs),
        "",
        "| medians, in turns with and without | without | with |",
        "|---|---|---|",
        *(f"| {what} | {one:.1f} {unit} | {other:.1f} {unit} |" for what, one, other, unit in pairs),
        "",
        f"| how soon, of {TIMES} | median | worst |",
        "|---|---|---|",
        *(f"| {what} | {median:.0f} ms | {worst:.0f} ms |" for what, median, worst in soon),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write the page."""
    about: dict[str, object] = {
        "kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    stats, _ = bpf(_ENABLE_STATS, struct.pack("<I", 0))
    world = kernel_world.enter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), world)
            costs, pairs, soon = programs(bench), paired(bench), moments(bench)
            bench.leave()
    finally:
        os.close(stats)
        world.exits.close()
    text = page(about, costs, pairs, soon)
    (DOCS / "hijack.json").write_text(
        json.dumps(about | {"programs": costs, "paired": pairs, "moments": soon}, indent=1) + "\n"
    )
    (DOCS / "hijack.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
