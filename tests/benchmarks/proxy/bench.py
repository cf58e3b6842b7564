"""Squall's proxy beside toxiproxy 2.12: throughput, round trips, delays, connections, memory.

`python tests/benchmarks/proxy/bench.py [--rounds 5] [--seconds 1.5] [--only NAME ...] [--toxiproxy PROGRAM]` writes
docs/benchmarks/proxy.json and proxy.md. The subjects take turns, round by round, so that a busy moment hits each; medians
over the rounds, ratios of medians. toxiproxy is built from its Go module where Go is there; without it its column stays
empty. Everything is on 127.0.0.1, client and upstream are one C program (`load.c`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.actions.proxy_control import ProxyControl

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
DOCS = ROOT / "docs" / "benchmarks"
CACHE = ROOT / ".cache" / "bench-proxy"
TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
UPSTREAM, API, FIRST_PROXY = 17001, 17002, 17010
TICK = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]


class Subject:
    """A proxy from its own port to UPSTREAM."""

    name = "direct"

    def __init__(self, port: int) -> None:
        self.port = port
        self.pid = 0

    def delay(self, ms: int) -> None:
        """Delay what the client sends; 0 takes the delay away."""

    def cpu_s(self) -> float:
        """What it has used so far."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_mb(self) -> float:
        """Its resident memory."""
        if not self.pid:
            return 0.0
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def close(self) -> None:
        """End it."""


class Toxiproxy(Subject):
    """The peer."""

    name = "toxiproxy"

    def __init__(self, port: int, program: str) -> None:
        super().__init__(port)
        quiet = {**os.environ, "LOG_LEVEL": "error"}
        self._process = subprocess.Popen([program, "-port", str(API)], stdout=subprocess.DEVNULL, env=quiet)
        self.pid = self._process.pid
        proxy = {"name": "p", "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{UPSTREAM}"}
        until(lambda: self._ask("POST", "/proxies", proxy))
        self._delayed = False

    def _ask(self, method: str, path: str, body: object = None) -> bool:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{API}{path}", method=method, data=data)
        try:
            with urllib.request.urlopen(request):
                return True
        except OSError:
            return False

    def delay(self, ms: int) -> None:
        if self._delayed:
            assert self._ask("DELETE", "/proxies/p/toxics/latency_upstream")
        self._delayed = bool(ms)
        if ms:
            assert self._ask(
                "POST", "/proxies/p/toxics", {"type": "latency", "stream": "upstream", "attributes": {"latency": ms}}
            )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Squall(Subject):
    """The data plane as `squall proxy` runs it, with options."""

    def __init__(self, port: int, name: str, **options: object) -> None:
        super().__init__(port)
        self.name = name
        path = CACHE / f"{port}.sock"
        path.unlink(missing_ok=True)
        config = {
            "control": str(path), "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{UPSTREAM}", "seed": 1,
            "options": {"http": False, "drain_s": 0, **options},
        }  # fmt: skip
        command = [sys.executable, "-m", "squall.proxy.owned", json.dumps(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != "ready\n":
            raise SystemExit(f"{name}: {said}")
        self.pid = self._process.pid
        self._control = ProxyControl(str(path))

    def delay(self, ms: int) -> None:
        self._control.remove_toxic("delay")
        if ms:
            self._control.add_toxic("delay", "latency", "upstream", attributes={"latency": ms})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Row:
    """One measurement: which subjects, what is asked of them, and the figures to reach (ratio to toxiproxy)."""

    name: str
    title: str
    measure: Callable[[Subject, float], Figures]
    columns: dict[str, str]
    subjects: tuple[str, ...] = ("direct", "toxiproxy", "squall")
    delay_ms: int = 0
    goals: dict[str, tuple[str, float]] = field(default_factory=dict)
    fresh: bool = False
    """Each round has proxies that were started for it: memory that others used is not counted."""


def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it did not come up")
        time.sleep(0.05)


def load(*words: object) -> Any:
    command = [str(CACHE / "load"), *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout)


def streaming(connections: int, direction: str) -> Callable[[Subject, float], Figures]:
    def measure(subject: Subject, seconds: float) -> Figures:
        before = subject.cpu_s()
        got = load("stream", UPSTREAM, subject.port, seconds, connections, direction)
        time.sleep(0.15)  # what is under way comes to its end
        return {"gb_per_s": got["gb_per_s"], "cpu_s_per_gb": (subject.cpu_s() - before) / max(got["gb"], 1e-9)}

    return measure


def round_trips(subject: Subject, _seconds: float) -> Figures:
    before, count = subject.cpu_s(), 5000
    got = load("ping", UPSTREAM, subject.port, count, 1024, 0)
    return {"p50_us": got["p50_us"], "p99_us": got["p99_us"], "cpu_us": (subject.cpu_s() - before) / count * 1e6}


def delayed(ms: int, count: int) -> Callable[[Subject, float], Figures]:
    def measure(subject: Subject, _seconds: float) -> Figures:
        got = load("ping", UPSTREAM, subject.port, count, 1024, 2000)
        asked = 0 if subject.name == "direct" else ms * 1000
        return {f"{key}_us": got[f"{key}_us"] - asked for key in ("min", "p50", "p99", "max")}

    return measure


def churn(subject: Subject, seconds: float) -> Figures:
    before = subject.cpu_s()
    got = load("churn", UPSTREAM, subject.port, seconds, 8)
    time.sleep(0.2)
    return {
        "per_s": got["per_s"],
        "cpu_us": (subject.cpu_s() - before) / max(got["count"], 1) * 1e6,
        "failures": got["failures"],
    }


def idle(subject: Subject, _seconds: float) -> Figures:
    before = subject.memory_mb()
    command = [str(CACHE / "load"), "idle", str(UPSTREAM), str(subject.port), "2000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        opened = json.loads(process.stdout.readline())["connections"]
        used, with_them = subject.cpu_s(), subject.memory_mb()
        time.sleep(1)
        figures = {
            "connections": opened, "mb": with_them, "kb_each": (with_them - before) * 1024 / 2000,
            "cpu_percent": (subject.cpu_s() - used) * 100,
        }  # fmt: skip
        process.stdin.close()
    time.sleep(0.5)
    return figures


GB = {"gb_per_s": "GB/s", "cpu_s_per_gb": "CPU s/GB"}
RTT = {"p50_us": "p50 us", "p99_us": "p99 us", "cpu_us": "CPU us each"}
ERROR = {"min_us": "least", "p50_us": "p50", "p99_us": "p99", "max_us": "most"}
ACCURATE = ("direct", "toxiproxy", "squall", "squall realtime")
LESS_CPU = {"cpu_s_per_gb": ("<=", 0.2)}

ROWS = [
    Row("idle", "2,000 idle connections", idle,
        {"connections": "open", "mb": "MB", "kb_each": "kB each", "cpu_percent": "CPU %"}, ("toxiproxy", "squall"), fresh=True,
        goals={"mb": ("<=", 0.25)}),
    Row("up", "Throughput, no toxic, one connection, client to service", streaming(1, "up"), GB,
        goals={"gb_per_s": (">=", 3), **LESS_CPU}),
    Row("down", "Throughput, no toxic, one connection, service to client", streaming(1, "down"), GB, goals=LESS_CPU),
    Row("eight", "Throughput, no toxic, eight connections", streaming(8, "up"), GB, goals={"gb_per_s": (">=", 2.5), **LESS_CPU}),
    Row("ping", "Round trip of 1 kB", round_trips, RTT, (*ACCURATE[:3], "squall busy"),
        goals={"p50_us": ("<=", 0.8), "cpu_us": ("<=", 0.6)}),
    Row("through10", "Throughput through latency 10 ms", streaming(1, "up"), GB, delay_ms=10,
        goals={"gb_per_s": (">=", 1.7), "cpu_s_per_gb": ("<=", 0.35)}),
    Row("through50", "Throughput through latency 50 ms", streaming(1, "up"), GB, delay_ms=50,
        goals={"gb_per_s": (">=", 1.9), "cpu_s_per_gb": ("<=", 0.35)}),
    Row("delay1", "Round trip beyond an asked delay of 1 ms, us", delayed(1, 400), ERROR, ACCURATE, 1, {"p50_us": ("<=", 0.5)}),
    Row("delay5", "Round trip beyond an asked delay of 5 ms, us", delayed(5, 150), ERROR, ACCURATE, 5, {"p50_us": ("<=", 0.5)}),
    Row("delay50", "Round trip beyond an asked delay of 50 ms, us", delayed(50, 40), ERROR, ACCURATE, 50, {"p50_us": ("<=", 0.5)}),
    Row("delay100", "Round trip beyond an asked delay of 100 ms, us", delayed(100, 20), ERROR, ACCURATE, 100, {"p50_us": ("<=", 0.5)}),
    Row("churn", "Connections opened, used once and closed", churn, {"per_s": "a second", "cpu_us": "CPU us each", "failures": "failures"},
        goals={"per_s": (">=", 1.7)}),
]  # fmt: skip


def build(toxiproxy: str | None) -> str | None:
    """Compile the load, find or build toxiproxy; its program."""
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-pthread", str(HERE / "load.c"), "-o", str(CACHE / "load")], check=True)
    if toxiproxy:
        return toxiproxy
    program = CACHE / "server"
    if not program.exists():
        if shutil.which("go") is None:
            print("Go is not here: toxiproxy is left out (or give --toxiproxy PROGRAM)", file=sys.stderr)
            return None
        subprocess.run(["go", "install", TOXIPROXY], check=True, env={**os.environ, "GOBIN": str(CACHE)})
    return str(program)


def factories(toxiproxy: str | None) -> dict[str, Callable[[], Subject]]:
    """How each that is compared is started, in a process of its own."""
    found: dict[str, Callable[[], Subject]] = {"direct": lambda: Subject(UPSTREAM)}
    if toxiproxy:
        found["toxiproxy"] = lambda: Toxiproxy(FIRST_PROXY, toxiproxy)
    found["squall"] = lambda: Squall(FIRST_PROXY + 1, "squall")
    found["squall busy"] = lambda: Squall(FIRST_PROXY + 2, "squall busy", busy_poll_us=100)
    if os.geteuid() == 0:
        found["squall realtime"] = lambda: Squall(FIRST_PROXY + 3, "squall realtime", realtime=True)
    return found


def run_row(row: Row, known: dict[str, Callable[[], Subject]], rounds: int, seconds: float) -> dict[str, Any]:
    """Let the row's subjects take turns; each is started for the row, or for each round of it."""
    chosen = {name: start for name, start in known.items() if name in row.subjects}
    results: dict[str, list[Figures]] = {name: [] for name in chosen}
    loads = [os.getloadavg()[0]]
    running: dict[str, Subject] = {}
    try:
        for number in range(rounds):
            for name, start in chosen.items():
                if name not in running:
                    running[name] = start()
                    running[name].delay(row.delay_ms)
                results[name].append(row.measure(running[name], seconds))
                if row.fresh:
                    running.pop(name).close()
            loads.append(os.getloadavg()[0])
            print(f"{row.name} {number + 1}/{rounds}", file=sys.stderr, flush=True)
    finally:
        for subject in running.values():
            subject.close()
    medians = {
        name: {key: statistics.median(figures[key] for figures in each) for key in row.columns}
        for name, each in results.items()
    }
    for name, each in results.items():
        if "min_us" in row.columns:  # the least of all rounds is what "never early" is about
            medians[name]["min_us"] = min(figures["min_us"] for figures in each)
    return {
        "name": row.name, "title": row.title, "columns": row.columns, "load": [min(loads), max(loads)], "rounds": rounds,
        "medians": medians, "goals": row.goals, "all": results,
    }  # fmt: skip


def table(result: dict[str, Any]) -> list[str]:
    columns, medians = result["columns"], result["medians"]
    peer = medians.get("toxiproxy", {})
    least, most = result["load"]
    lines = [f"### {result['title']}", "", f"Load of the machine meanwhile: {least:.1f} to {most:.1f}.", ""]
    lines += ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in medians.items():
        cells = []
        for key in columns:
            cell = f"{figures[key]:.3g}" if abs(figures[key]) < 100 else f"{figures[key]:.0f}"
            if (
                name.startswith("squall")
                and peer.get(key)
                and key not in ("failures", "connections", "min_us", "cpu_percent")
            ):
                cell += f" ({figures[key] / peer[key]:.2f}x)"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", *verdicts(result), ""]


def verdicts(result: dict[str, Any]) -> list[str]:
    """Which goals were reached, by `squall` as it comes."""
    mine, peer = result["medians"].get("squall", {}), result["medians"].get("toxiproxy", {})
    said = []
    for key, (relation, goal) in result["goals"].items():
        if not peer.get(key):
            continue
        ratio = mine[key] / peer[key]
        reached = ratio >= goal if relation == ">=" else ratio <= goal
        said.append(
            f"{result['columns'][key]} {relation} {goal}x: {ratio:.2f}x, {'reached' if reached else 'not reached'}"
        )
    return [f"Aimed at: {'; '.join(said)}."] if said else []


INTRODUCTION = """# The proxy beside toxiproxy 2.12

Written by `tests/benchmarks/proxy/bench.py` on {machine}: the subjects take turns round by round; medians over the rounds,
in brackets the ratio to toxiproxy in the same run. CPU is that of the proxy's process. `squall busy` polls for 100 us
before it sleeps, `squall realtime` runs under SCHED_FIFO; `squall` has the defaults. `direct` has no proxy between.

On a machine that is shared with other work, trust the CPU figures and the ratios more than the GB/s: toxiproxy's many
threads take a larger share of cores that are fought over, and the load itself needs one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument(
        "--only", nargs="+", choices=[row.name for row in ROWS], help="measure these rows; the others stay as they were"
    )
    parser.add_argument("--toxiproxy", help="the program to compare with, instead of building it")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    known = factories(build(options.toxiproxy))
    results = [run_row(row, known, options.rounds, options.seconds) for row in rows]
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    results = merged(results)
    page = [INTRODUCTION.format(machine=machine), *(line for result in results for line in table(result))]
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "proxy.md").write_text("\n".join(page).rstrip() + "\n")
    written = {"machine": machine, "seconds": options.seconds, "rows": results}
    (DOCS / "proxy.json").write_text(json.dumps(written, indent=1) + "\n")
    print(DOCS / "proxy.md")


def merged(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These results, with what an earlier run wrote for the other rows."""
    path = DOCS / "proxy.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {result["name"]: result for result in [*before, *results]}
    return [found[row.name] for row in ROWS if row.name in found]


if __name__ == "__main__":
    main()
