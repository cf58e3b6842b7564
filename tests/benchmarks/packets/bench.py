"""What a network fault costs each packet: of its target, and of others who pass the same interface.

`python tests/benchmarks/packets/bench.py` writes docs/benchmarks/packets.json and packets.md. Needs root: everything
happens between two network namespaces of its own. Two measures: the kernel's own statistics of the program's run time,
and, pair by pair, how many datagrams a process sends in a second with the fault and without.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from squall.actions.worker import surviving  # noqa: E402 - the path first
from squall.kernel.bpf.calls import bpf  # noqa: E402
from squall.targets import find_cgroup, find_netns, find_processes  # noqa: E402
from tests import kernel_world  # noqa: E402
from tests.network.striking import striking  # noqa: E402
from tests.network.wires import FAR, NEAR, Ears, Talker, talker, wire  # noqa: E402

if TYPE_CHECKING:
    from squall.targets import Target
    from tests.network.striking import Struck

DOCS = ROOT / "docs" / "benchmarks"
SENT, PAIRS = 20_000, 7
_ENABLE_STATS = 32


@dataclass
class Cost:
    """Of one packet: ns in the program, as the kernel counts them, and the change of a sender's rate, in percent."""

    fault: str
    whose: str
    direction: str
    program_ns: int
    rate_change: float


def programs_of(struck: Struck) -> tuple[int, int]:
    """Run time in ns and runs of all programs that the worker holds."""
    (stat,) = surviving(struck.actions[-1].token)  # type: ignore[attr-defined]  # it is a worker
    time_ns = runs = 0
    for path in Path(f"/proc/{stat.pid}/fdinfo").iterdir():
        fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
        if fields.get("prog_type") == "3":  # BPF_PROG_TYPE_SCHED_CLS
            time_ns, runs = time_ns + int(fields["run_time_ns"]), runs + int(fields["run_cnt"])
    return time_ns, runs


def sent_per_s(who: Talker, near: Ears, direction: str, port: int) -> float:
    """The rate of datagrams that it sends, or that it is sent."""
    began = time.perf_counter()
    if direction == "egress":
        who.ask("send", name="u", to=[NEAR[4], near.port], count=SENT)
    else:
        near.send((FAR[4], port), SENT)
    took = time.perf_counter() - began
    near.numbers()
    who.ask("numbers", name="u")
    return SENT / took


def cost(what: str, whose: str, target: Target, who: Talker, near: Ears, port: int, **asked: Any) -> Cost:
    """Pairs with and without the fault, one after the other; a percentage of zero, so that what is measured arrives."""
    changes, spent = [], []
    for _ in range(PAIRS):
        without = sent_per_s(who, near, asked["direction"], port)
        with striking("network.loss", {"percent": "0%", **asked}, target) as struck:
            changes.append(sent_per_s(who, near, asked["direction"], port) / without - 1)
            stats, _ = bpf(_ENABLE_STATS, struct.pack("<I", 0))
            before = programs_of(struck)
            sent_per_s(who, near, asked["direction"], port)
            after = programs_of(struck)
            os.close(stats)
        spent.append((after[0] - before[0]) / max(1, after[1] - before[1]))
    return Cost(
        what, whose, asked["direction"], round(statistics.median(spent)), round(100 * statistics.median(changes), 1)
    )


def measure() -> list[Cost]:
    """Every row."""
    world = kernel_world.enter()
    group = world.subgroup("target")
    found = []
    with world.exits, wire() as cable, ExitStack() as exits:
        hit, other = (exits.enter_context(talker(cable.name, place)) for place in (group, world.subgroup("other")))
        near = exits.enter_context(Ears(NEAR[4]))
        ports = {who.pid: who.ask("udp", name="u", address=FAR[4]) for who in (hit, other)}
        netns = find_netns(cable.name)
        for way in ("egress", "ingress"):
            elsewhere = {"peers": ["192.0.2.0/24"], "remotePorts": [1]}
            found += [
                cost("of a namespace", "hit", netns, hit, near, ports[hit.pid], direction=way),
                cost("of a namespace, by port and peer", "hit", netns, hit, near, ports[hit.pid], direction=way,
                     peers=[NEAR[4]], remotePorts=[near.port]),
                cost("of a namespace, by port and peer", "others", netns, hit, near, ports[hit.pid], direction=way, **elsewhere),
                cost("of a cgroup", "hit", find_cgroup(str(group)), hit, near, ports[hit.pid], direction=way),
                cost("of a cgroup", "others", find_cgroup(str(group)), other, near, ports[other.pid], direction=way),
                cost("of a process", "hit", find_processes(pid=hit.pid)[0], hit, near, ports[hit.pid], direction=way),
                cost("of a process", "others", find_processes(pid=hit.pid)[0], other, near, ports[other.pid], direction=way),
            ]  # fmt: skip
    return found


def page(result: dict[str, Any]) -> str:
    """The page of the documentation."""
    lines = [
        "# Network: what a fault costs each packet",
        "",
        "Written by `tests/benchmarks/packets/bench.py`: datagrams of 12 bytes between two network namespaces, by a fault that",
        "hits none of them. The program's time is the kernel's own statistics (which are part of it: about 20 ns); the change of",
        f"the rate is the median of {PAIRS} pairs, with and without the fault, of a Python process that sends {SENT} as fast as it can.",
        "",
        f"Linux {result['kernel']}, {result['cpus']} CPUs; load average {result['load']} when it began.",
        "",
        "| a fault on packets | whose packet | direction | in the program | sender's rate |",
        "|---|---|---|---|---|",
        *(
            f"| {row['fault']} | {row['whose']} | {row['direction']} | {row['program_ns']} ns | {row['rate_change']:+} % |"
            for row in result["rows"]
        ),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Measure and write."""
    if os.geteuid() != 0:
        print("packets: needs root, for network namespaces", file=sys.stderr)
        return 1
    load = round(os.getloadavg()[0], 1)
    rows = [asdict(row) for row in measure()]
    result = {"kernel": platform.release(), "cpus": os.cpu_count(), "load": load, "rows": rows}
    (DOCS / "packets.json").write_text(json.dumps(result, indent=1) + "\n")
    (DOCS / "packets.md").write_text(page(result))
    print(page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
