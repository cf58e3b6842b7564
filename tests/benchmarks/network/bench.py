"""How exactly packets are held, how many, and how soon: the delay line here, netem and departure times in a kernel that has them.

`python tests/benchmarks/network/bench.py [--kernel 6.12]` writes docs/benchmarks/network.json and network.md. Needs root:
everything happens between network namespaces of its own. Another kernel is booted under QEMU where it was unpacked
(tools/debian-kernels): software emulation, an order of magnitude slower, so compare within a column of one kernel.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import socket
import statistics
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from squall.actions.base import StandsBy  # noqa: E402 - the path first
from squall.faults import parse_fault  # noqa: E402
from squall.injectors import Plan, Site  # noqa: E402
from squall.injectors.line import LineInjector  # noqa: E402
from squall.injectors.netem import HtbInjector, NetemInjector  # noqa: E402
from squall.injectors.tcp_policy import PolicyByLine, PolicyByQueue  # noqa: E402
from squall.targets import NetnsTarget  # noqa: E402
from tests import wires  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.injectors import Injector
    from tests.wires import Wire

DOCS = ROOT / "docs" / "benchmarks"
ASKED_MS = (1, 5, 20, 100)
EXCHANGES_S = 4.0
FLOOD_S = 3.0
TIMES = 15
PATIENCE_S = 30.0
STANDING_BY_S = 1.5
CLONE_NEWNET = 0x4000_0000
NAMES = {
    "line": "network.delay by line", "netem": "network.delay by netem", "policy-line": "tcp.delay by line",
    "fq": "tcp.delay by fq (departure times)",
}  # fmt: skip


@dataclass
class Accuracy:
    """One asked delay by one mechanism: what the exchanges took beyond those without a fault, in ms."""

    mechanism: str
    asked_ms: int
    count: int
    median_error_ms: float
    p99_beyond_median_ms: float
    earliest_ms: float


@dataclass
class Flow:
    """What passes in a second."""

    what: str
    value: float
    unit: str


@dataclass
class Moment:
    """How soon, in ms."""

    what: str
    median_ms: float
    worst_ms: float


def mechanisms() -> dict[str, tuple[Injector, str, dict[str, Any]]]:
    """Those that work here: injector, fault and the parameter that holds the delay."""
    rows: dict[str, tuple[Injector, str, dict[str, Any]]] = {
        "line": (LineInjector(), "network.delay", {}),
        "netem": (NetemInjector(), "network.delay", {}),
        "policy-line": (PolicyByLine(), "tcp.delay", {}),
        "fq": (PolicyByQueue(), "tcp.delay", {}),
    }
    return {name: row for name, row in rows.items() if row[0].capable(None).works}  # type: ignore[arg-type]  # asks the kernel


def plan_of(wire: Wire, injector: Injector, tag: str, **parameters: Any) -> Plan:
    """The steps at the far end."""
    site = Site("bench", HERE, f"0-{os.urandom(4).hex()}", 7)
    plan = injector.plan(parse_fault(tag, parameters), NetnsTarget("far", wire.namespace), site)
    if not isinstance(plan, Plan):
        raise SystemExit(f"{tag} by {plan.mechanism}: {plan.reason}")
    return plan


def delayed(wire: Wire, name: str, ms: int) -> Plan:
    """A delay of so many ms by a mechanism."""
    injector, tag, _ = mechanisms()[name]
    given = {"policy": {"0.0.0.0:0": f"{ms}ms"}} if tag == "tcp.delay" else {"latency": f"{ms}ms"}
    return plan_of(wire, injector, tag, **given)


@contextmanager
def on(plan: Plan) -> Iterator[None]:
    """The plan done, and undone at the end."""
    with ExitStack() as exits:
        for action in plan.actions:
            ready = action.prepare()
            exits.callback(ready.undo)
            for fd in ready.do():
                exits.callback(os.close, fd)
        yield


def exchanges(address: str, count: int) -> list[float]:
    """What as many exchanges took, in ms, over one TCP connection with a little rest between them."""
    taken = []
    with socket.create_connection((address, wires.ECHO_PORT)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begun = time.perf_counter_ns()
            one.sendall(b"x" * 64)
            one.recv(100)
            taken.append((time.perf_counter_ns() - begun) / 1e6)
            time.sleep(0.002)
    return taken


def accuracy(wire: Wire, name: str, asked: int) -> Accuracy:
    """Measure one cell; the exchanges without a fault are measured right before it."""
    base = statistics.median(exchanges(wire.far, 100))
    count = min(400, max(30, int(EXCHANGES_S * 1000 / (asked + 2))))
    with on(delayed(wire, name, asked)):
        exchanges(wire.far, 5)
        taken = sorted(ms - base - asked for ms in exchanges(wire.far, count))
    middle = statistics.median(taken)
    return Accuracy(
        NAMES[name], asked, count, round(middle, 3), round(taken[int(count * 0.99)] - middle, 3), round(taken[0], 3)
    )


def mbit_per_s(wire: Wire) -> float:
    """What one TCP connection carries to the far end."""
    with socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
        available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic" if "cubic" in available else b"reno")
        one.settimeout(1)
        block, sent, begun = b"drop" * 65536, 0, time.monotonic()
        while time.monotonic() - begun < FLOOD_S:
            sent += one.send(block)
        return sent * 8 / (time.monotonic() - begun) / 1e6


def kilopackets_per_s(wire: Wire) -> float:
    """How many small datagrams come back from the far end while more are offered than it takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((wire.far, wires.ECHO_PORT))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        got, stop = [0], time.monotonic() + FLOOD_S

        def count() -> None:
            one.settimeout(0.2)
            while time.monotonic() < stop:
                try:
                    one.recv(100)
                    got[0] += 1
                except TimeoutError:
                    continue

        counting = threading.Thread(target=count)
        counting.start()
        window = 0
        while time.monotonic() < stop:
            if window - got[0] < 512:
                try:
                    one.send(b"x" * 64)
                    window += 1
                except OSError:
                    pass
            else:
                time.sleep(0.0005)
                window = min(window, got[0] + 511)
        counting.join()
        return got[0] / FLOOD_S / 1000


def flows(wire: Wire, rates: tuple[int, ...]) -> list[Flow]:
    """Throughput without a fault, through the line, and by each bandwidth."""
    found = [
        Flow("one TCP connection, no fault", mbit_per_s(wire), "Mbit/s"),
        Flow("datagrams there and back, no fault", kilopackets_per_s(wire), "1000/s"),
    ]
    line = plan_of(wire, LineInjector(), "network.delay", latency="5ms", direction="ingress")
    with on(line):
        found.append(Flow("one TCP connection through the line, held 5 ms", mbit_per_s(wire), "Mbit/s"))
    with on(plan_of(wire, LineInjector(), "network.delay", latency="5ms", direction="ingress")):
        found.append(Flow("datagrams through the line, held 5 ms", kilopackets_per_s(wire), "1000/s"))
    for injector in (LineInjector(), HtbInjector(), NetemInjector()):
        if injector.capable(None).works:  # type: ignore[arg-type]
            for rate in rates:
                with on(plan_of(wire, injector, "network.bandwidth", rate=f"{rate}mbit")):
                    found.append(
                        Flow(f"network.bandwidth {rate} Mbit/s by {injector.mechanism}", echoed(wire, rate), "Mbit/s")
                    )
    return found


def echoed(wire: Wire, rate_mbit: int) -> float:
    """The rate at which an echo comes back, the first third left out, with the headers that count (40 of 1500)."""
    size = rate_mbit * 125_000 * 2
    with socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
        sender = threading.Thread(target=one.sendall, args=(b"x" * size,))
        sender.start()
        got, begun, before = 0, 0.0, 0
        while got < size:
            got += len(one.recv(1 << 16))
            if not begun and got > size // 3:
                begun, before = time.monotonic(), got
        sender.join()
        return (size - before) * 8 / (time.monotonic() - begun) / 1e6 * 1500 / 1448


def moments(wire: Wire, name: str, times: int) -> list[Moment]:
    """From the step's begin to the first exchange that is late, and from its end to the first that is not.

    The process that holds packets stands by, as it does in a run, where it is started before the baseline.
    """
    with socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = [moment(one, delayed(wire, name, 20)) for _ in range(times)]
    begins, ends = [begin for begin, _ in taken], [end for _, end in taken]
    return [
        Moment(f"{NAMES[name]}: from inject to the first late packet", statistics.median(begins), max(begins)),
        Moment(f"{NAMES[name]}: from stop to the first that is not", statistics.median(ends), max(ends)),
    ]


def moment(one: socket.socket, plan: Plan) -> tuple[float, float]:
    """How soon after its begin and its end a plan is felt, in ms."""
    seen: list[tuple[float, bool]] = []
    stop = threading.Event()
    for action in plan.actions:
        if isinstance(action, StandsBy):
            action.stand_by()
    time.sleep(STANDING_BY_S)
    watching = threading.Thread(target=watch, args=(one, seen, stop))
    watching.start()
    begun = time.perf_counter()
    with on(plan):
        begin = first(seen, begun, late=True)
        ended = time.perf_counter()
    end = first(seen, ended, late=False)
    stop.set()
    watching.join()
    return (begin - begun) * 1000, (end - ended) * 1000


def first(seen: list[tuple[float, bool]], since: float, *, late: bool) -> float:
    """When the first exchange after a time began that was late, or not; half a minute is waited for it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for at, was_late in list(seen):
            if at > since and was_late == late:
                return at
        time.sleep(0.01)
    raise SystemExit("the benchmark waited in vain")


def watch(one: socket.socket, seen: list[tuple[float, bool]], stop: threading.Event) -> None:
    """Note when each exchange was begun, and whether it was late."""
    while not stop.is_set():
        begun = time.perf_counter()
        one.sendall(b"x")
        one.recv(10)
        seen.append((begun, time.perf_counter() - begun > 0.015))


def measure(*, brief: bool = False) -> dict[str, Any]:
    """Everything, on this kernel, in a network namespace of its own; `brief` where everything takes ten times as long."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        raise SystemExit("needs root, for network namespaces of its own")
    load = os.getloadavg()[0]
    with wires.wire() as wire, wires.echo(wire):
        cells = [accuracy(wire, name, asked) for name in mechanisms() for asked in ASKED_MS[1 if brief else 0 :]]
        return {
            "kernel": platform.release(), "load": round(load, 1), "accuracy": [asdict(cell) for cell in cells],
            "flows": [asdict(flow) for flow in flows(wire, (2,) if brief else (1, 10, 100))],
            "moments": [asdict(moment) for name in mechanisms() for moment in moments(wire, name, 3 if brief else TIMES)],
        }  # fmt: skip


def in_guest(name: str) -> dict[str, Any] | None:
    """The same in another kernel, if it was unpacked."""
    from squall.lab import Kernel, boot
    from squall.lab.guest import RESULT

    kernels = [kernel for kernel in Kernel.cached() if kernel.release.startswith(name)]
    if not kernels:
        print(f"there is no kernel {name} in the cache: tools/debian-kernels {name}")
        return None
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", RESULT]
    guest = boot(kernels[0], command, 900, folder=str(ROOT))
    if guest.problem():
        print(f"{name}: {guest.problem()}\n{guest.output.decode(errors='replace')[-2000:]}")
        return None
    found: dict[str, Any] = json.loads(guest.result)
    return found


def page(results: list[dict[str, Any]]) -> str:
    """The Markdown."""
    lines = [
        "# Network: how exactly packets are held, how many, and how soon",
        "",
        "Written by `tests/benchmarks/network/bench.py`. Exchanges of 64 bytes over one TCP connection between two network",
        "namespaces, the answers held; what they took without a fault is taken off. An error is what is beyond the delay that",
        "was asked. Aimed at, idle: median error <= 0.3 ms + 0.5 % of the delay, p99 <= median + 1 ms.",
    ]
    for result in results:
        emulated = " in a guest under QEMU, software emulation" if result.get("guest") else ""
        lines += [
            "", f"## Linux {result['kernel']}{emulated}", "",
            f"{result['cpus']} CPUs, Python {result['python']}; load average {result['load']} (of 1 minute) when it began.", "",
            "| mechanism | asked | n | median error | p99 beyond median | earliest |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {c['mechanism']} | {c['asked_ms']} ms | {c['count']} | {c['median_error_ms']:+.2f} ms "
            f"| {c['p99_beyond_median_ms']:.2f} ms | {c['earliest_ms']:+.2f} ms |"
            for c in result["accuracy"]
        ]
        lines += ["", "| what passes | |", "|---|---|"]
        lines += [f"| {f['what']} | {f['value']:.2f} {f['unit']} |" for f in result["flows"]]
        lines += ["", f"| how soon, of {3 if emulated else TIMES} | median | worst |", "|---|---|---|"]
        lines += [f"| {m['what']} | {m['median_ms']:.0f} ms | {m['worst_ms']:.0f} ms |" for m in result["moments"]]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure here and in another kernel; write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", default="6.12", help='beside this one; "" for none')
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    about = {"cpus": os.cpu_count(), "python": platform.python_version()}
    if options.inside:
        Path(options.inside).write_text(json.dumps(measure(brief=True) | about | {"guest": True}))
        return 0
    guest = in_guest(options.kernel) if options.kernel else None
    results = [measure() | about, *([guest] if guest else [])]
    (DOCS / "network.json").write_text(json.dumps(results, indent=1) + "\n")
    (DOCS / "network.md").write_text(page(results))
    print(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
