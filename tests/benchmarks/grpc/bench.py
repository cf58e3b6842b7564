"""What gRPC through the proxy costs: calls a second and CPU of the proxy, direct, as bytes, followed, and with rules that hit nothing.

`python tests/benchmarks/grpc/bench.py` writes docs/benchmarks/grpc.json and grpc.md. Rounds are interleaved, so that what
else the machine does hits all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

import grpc  # noqa: E402 - the path first

from tests.grpc_programs import grpc_program  # noqa: E402
from tests.proxy.conftest import Bench  # noqa: E402

DOCS = ROOT / "docs" / "benchmarks"
ROUNDS, CALLS, AT_ONCE, LARGE = 5, 400, 32, 4 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def measured(call: Any, pid: int | None) -> dict[str, float]:
    """One round on a channel: calls a second one by one and many at once, and megabytes a second."""
    before, began = (cpu_s(pid) if pid else 0.0), time.perf_counter()
    for _ in range(CALLS):
        call(b"sku")
    alone = CALLS / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(CALLS // AT_ONCE):
        for future in [call.future(b"sku") for _ in range(AT_ONCE)]:
            future.result()
    together = CALLS // AT_ONCE * AT_ONCE / (time.perf_counter() - began)
    done = CALLS + CALLS // AT_ONCE * AT_ONCE
    spent = (cpu_s(pid) - before) / done * 1e6 if pid else 0.0
    blob = bytes(LARGE)
    began = time.perf_counter()
    call(blob)
    moved = 2 * LARGE / (time.perf_counter() - began) / 1e6
    return {
        "one by one, calls/s": alone,
        f"{AT_ONCE} at once, calls/s": together,
        "proxy CPU, us a call": spent,
        "4 MiB both ways, MB/s": moved,
    }


def run() -> dict[str, dict[str, float]]:
    """The medians of each way."""
    found: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as end:
        _, port = end.enter_context(grpc_program())
        bench = Bench(Path(end.enter_context(tempfile.TemporaryDirectory())))
        end.callback(bench.close)
        upstream = f"127.0.0.1:{port}"
        proxies = {
            "as bytes": bench.proxy(upstream, http=False), "followed": bench.proxy(upstream), "with rules": bench.proxy(upstream)
        }  # fmt: skip
        rules = proxies["with rules"].control
        rules.add_toxic("d", "grpc_delay", "upstream", attributes={"service": "shop.v1.Payment", "delay": 1000})
        rules.add_toxic("a", "http_abort", "upstream", attributes={"path": "/elsewhere/*"})
        ways = {"direct": (upstream, None)}
        ways |= {name: (f"{one.host}:{one.port}", one.process.pid) for name, one in proxies.items()}
        calls = {}
        for name, (address, pid) in ways.items():
            options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
            channel = end.enter_context(grpc.insecure_channel(address, options=options))
            calls[name] = (channel.unary_unary("/shop.v1.Inventory/Reserve"), pid)
            calls[name][0](b"warm", wait_for_ready=True)
        for _ in range(ROUNDS):
            for name, (call, pid) in calls.items():
                found.setdefault(name, []).append(measured(call, pid))
    return {
        name: {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
        for name, rounds in found.items()
    }


def page(found: dict[str, dict[str, float]], load: float) -> str:
    """As Markdown."""
    whats = list(found["direct"])
    lines = [
        "# gRPC through the proxy", "",
        f"Written by `tests/benchmarks/grpc/bench.py`: grpcio at both ends, on loopback, one connection, medians of {ROUNDS}",
        'interleaved rounds. "As bytes" is `squall proxy` without the option `http`; "followed" is what experiments do.', "",
        f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; load average {load:.1f} when it began.",
        "", "| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|",
    ]  # fmt: skip
    for what in whats:
        cells = [found[name][what] for name in found]
        lines.append(f"| {what} | " + " | ".join(f"{cell:,.0f}" if cell else "-" for cell in cells) + " |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Run, print, write."""
    load = os.getloadavg()[0]
    found = run()
    text = page(found, load)
    print(text)
    (DOCS / "grpc.json").write_text(json.dumps({"load": load, "found": found}, indent=1) + "\n")
    (DOCS / "grpc.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
