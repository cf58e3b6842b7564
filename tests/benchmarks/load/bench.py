"""How punctual and how costly the load is at 1,000 requests/s, beside a bare epoll loop and asyncio with httpx2.

`python tests/benchmarks/load/bench.py [--rounds 5] [--seconds 10] [--wait 10]` writes docs/benchmarks/load.json and load.md. The
three take turns against one `service.py` on the same machine, so that a busy moment hits each; medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.probes.load import LoadProcess
from squall.probes.spec import Load

if TYPE_CHECKING:
    from squall.probes.samples import Sample

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[2] / "docs" / "benchmarks"
TICKS = os.sysconf("SC_CLK_TCK")
QUIET_CORES = (os.cpu_count() or 1) / 8


@dataclass(frozen=True)
class Round:
    """One generator's turn; times in microseconds, CPU in cores, `others` what all else on the machine used meanwhile."""

    who: str
    rate: float
    sent: int
    late_p50: float
    late_p99: float
    late_max: float
    took_p50: float
    took_p99: float
    cpu: float
    service_cpu: float
    others: float


def quantile(values: list[int], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] / 1e3


def busy_ticks() -> int:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4]


def ticks_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def script(name: str, port: int, rate: float, seconds: float) -> tuple[list[int], list[int], float]:
    done = subprocess.run(
        [sys.executable, str(HERE / name), str(port), str(rate), str(seconds)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + 60,
    )
    data = json.loads(done.stdout)
    return data["late_ns"], data["took_ns"], data["cpu"]


def squall(port: int, rate: float, seconds: float) -> tuple[list[int], list[int], float]:
    """Its own account of lateness has buckets, of which quantiles are taken; three values stand in for all."""

    async def run() -> tuple[list[int], list[int], float]:
        samples: list[Sample] = []
        load = Load.model_validate({"http": {"url": f"http://127.0.0.1:{port}/"}, "rate": f"{rate:g}/s"})
        async with LoadProcess(load, seed=1, on_samples=samples.extend) as process:
            await asyncio.sleep(seconds)
            report = await process.stop()
        if report.behind or any(sample.outcome != "ok" for sample in samples):
            sys.stderr.write(f"not a clean round: {report.behind or 'failed requests'}\n")
        late = [report.late_p50_ns] * 50 + [report.late_p99_ns] * 49 + [report.late_max_ns]
        return late, [sample.latency_ns for sample in samples], report.cpu_ns / report.wall_ns

    return asyncio.run(run())


def turn(who: str, port: int, service_pid: int, rate: float, seconds: float) -> Round:
    begun, busy, served = time.monotonic(), busy_ticks(), ticks_of(service_pid)
    late, took, cpu = squall(port, rate, seconds) if who == "squall" else script(who, port, rate, seconds)
    wall = time.monotonic() - begun
    service_cpu = (ticks_of(service_pid) - served) / TICKS / wall
    others = max((busy_ticks() - busy) / TICKS / wall - cpu - service_cpu, 0.0)
    if who == "squall":
        late_p50, late_p99, late_max = late[0] / 1e3, late[60] / 1e3, late[-1] / 1e3
    else:
        late_p50, late_p99, late_max = quantile(late, 0.5), quantile(late, 0.99), max(late) / 1e3
    return Round(
        who,
        rate,
        len(took),
        late_p50,
        late_p99,
        late_max,
        quantile(took, 0.5),
        quantile(took, 0.99),
        cpu,
        service_cpu,
        others,
    )


INTRODUCTION = """# The load: how punctual, at what cost

Written by `tests/benchmarks/load/bench.py` on {machine}: {count} rounds of {seconds:g} s each, taking turns; medians over the rounds.

"Sent late" is the time from a request's intended moment to its sending. "Answered" counts from the intended moment too.
The service is one small Python process on the same CPUs. "Rest" is what everything else on the machine used meanwhile, in
cores; a turn counts as quiet when that was at most an eighth of the CPUs. On a busy machine lateness is the scheduler's.

The bare loop sends and counts bytes, nothing else: no parser, no time-outs, no limit, no samples handed on. It stands for
what this machine and this interpreter allow.
"""

NAMES = {
    "squall": "Squall's load",
    "bare_loop.py": "bare epoll loop (Python)",
    "httpx_tasks.py": "asyncio + httpx2 tasks",
}


def wait_until_quiet(seconds: float) -> None:
    """Until the machine was quiet for a second, at most so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = busy_ticks()
        time.sleep(1.0)
        if (busy_ticks() - before) / TICKS < QUIET_CORES:
            return


def table(rounds: list[Round], rate: float, *, quiet: bool) -> list[str]:
    """The rounds of one rate in which the rest of the machine was quiet, or was not."""
    chosen = [one for one in rounds if one.rate == rate and (one.others <= QUIET_CORES) is quiet]
    if not chosen:
        return [f"No round at {rate:g} requests/s found the machine {'quiet' if quiet else 'busy'}.", ""]
    lines = [
        f"## {rate:g} requests/s, machine {'quiet' if quiet else 'busy'}", "",
        "| | rounds | sent late p50 | p99 | worst p99 | max | answered p50 | p99 | CPU (cores) | service's CPU | rest |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for who, name in NAMES.items():
        mine = [one for one in chosen if one.who == who]
        if mine:
            middle = {
                key: statistics.median(asdict(one)[key] for one in mine) for key in asdict(mine[0]) if key != "who"
            }
            lines.append(
                f"| {name} | {len(mine)} | {middle['late_p50']:.0f} us | {middle['late_p99']:.0f} us"
                f" | {max(one.late_p99 for one in mine):.0f} us | {max(one.late_max for one in mine) / 1e3:.1f} ms"
                f" | {middle['took_p50']:.0f} us | {middle['took_p99']:.0f} us | {middle['cpu']:.3f}"
                f" | {middle['service_cpu']:.3f} | {middle['others']:.2f} |"
            )
    return [*lines, ""]


def ratios(rounds: list[Round], rate: float) -> list[str]:
    """Squall's load over the bare loop, round by round."""
    mine, bare = ([one for one in rounds if one.who == who and one.rate == rate] for who in ("squall", "bare_loop.py"))
    found = []
    for key, name in (("late_p50", "late p50"), ("late_p99", "late p99"), ("took_p50", "answered p50"), ("cpu", "CPU")):
        each = [asdict(a)[key] / asdict(b)[key] for a, b in zip(mine, bare, strict=True)]
        found.append(f"{name} {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
    return [
        f"At {rate:g} requests/s, Squall's load over the bare loop of the same round, median (least to most): {', '.join(found)}.",
        "",
    ]


def page(rounds: list[Round], seconds: float) -> str:
    rates = sorted({one.rate for one in rounds})
    count = max(sum(one.who == "squall" and one.rate == rate for one in rounds) for rate in rates)
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    lines = [INTRODUCTION.format(machine=machine, count=count, seconds=seconds)]
    for rate in rates:
        lines += table(rounds, rate, quiet=True) + table(rounds, rate, quiet=False) + ratios(rounds, rate)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--wait", type=float, default=10.0, help="seconds to wait, before each turn, for the machine to be quiet"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1000.0])
    options = parser.parse_args()
    rounds: list[Round] = []
    command = [sys.executable, "-I", "-S", str(HERE / "service.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        try:
            for number in range(options.rounds):
                for rate in options.rates:
                    for who in NAMES:
                        wait_until_quiet(options.wait)
                        rounds.append(turn(who, port, service.pid, rate, options.seconds))
                        sys.stderr.write(f"round {number + 1}: {rounds[-1]}\n")
        finally:
            service.kill()
    DOCS.mkdir(parents=True, exist_ok=True)
    machine = {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": options.seconds,
    }
    (DOCS / "load.json").write_text(
        json.dumps({"machine": machine, "rounds": [asdict(one) for one in rounds]}, indent=1) + "\n"
    )
    (DOCS / "load.md").write_text(page(rounds, options.seconds))


if __name__ == "__main__":
    main()
