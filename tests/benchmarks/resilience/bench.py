"""What a call that succeeds pays for a pattern, beside the same of other libraries.

`python tests/benchmarks/resilience/bench.py [--rounds 15] [--calls 4000]` writes docs/benchmarks/resilience.json and
resilience.md. In each round every contender has one turn, so that a busy moment hits all of them; what counts is the
least of its turns. The bare call's own time is in each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from contenders import CONTENDERS, OURS, Contender  # noqa: E402 - the path first

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = HERE.parents[2] / "docs" / "benchmarks"

REACH = {
    ("breaker", False): 600,
    ("breaker", True): 800,
    ("retry", False): 200,
    ("retry", True): 350,
    ("rate limit", False): 350,
    ("rate limit", True): 450,
    ("time-out", True): 3000,
    ("five", True): 6000,
}
"""What ours is to cost at most, in ns."""

TITLES = {
    "call": "The call itself",
    "breaker": "Circuit breaker",
    "retry": "Retry",
    "rate limit": "Rate limit",
    "time-out": "Time-out",
    "bulkhead": "Bulkhead",
    "five": "Five patterns: time-out, breaker, bulkhead, retry, fallback",
}


@dataclass
class Result:
    """One contender's turns, in ns a call."""

    of: Contender
    call: Callable[[int], Any] | None = None
    missing: str = ""
    turns: list[float] = field(default_factory=list)

    @property
    def ns(self) -> float:
        return min(self.turns)


def turn(call: Callable[[int], Any], calls: int) -> float:
    """Nanoseconds a call, of so many."""
    numbers = range(calls)
    begun = time.perf_counter_ns()
    for number in numbers:
        call(number)
    return (time.perf_counter_ns() - begun) / calls


async def awaited_turn(call: Callable[[int], Any], calls: int) -> float:
    """Nanoseconds an awaited call, of so many."""
    numbers = range(calls)
    begun = time.perf_counter_ns()
    for number in numbers:
        await call(number)
    return (time.perf_counter_ns() - begun) / calls


async def measure(rounds: int, calls: int) -> list[Result]:
    """All contenders, taking turns."""
    results = [Result(each) for each in CONTENDERS]
    for result in results:
        try:
            result.call = result.of.make()
            await take_turn(result, 200)
            result.turns.clear()
        except (ImportError, AttributeError) as error:
            result.missing = f"{type(error).__name__}: {error}"
            sys.stderr.write(f"{result.of.group}, {result.of.who}: left out: {result.missing}\n")
    gc.collect()
    gc.disable()
    for number in range(rounds):
        for result in results:
            if not result.missing:
                await take_turn(result, calls)
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
        await asyncio.sleep(0.05)
    gc.enable()
    return [result for result in results if not result.missing]


async def take_turn(result: Result, calls: int) -> None:
    """Slow ones get fewer calls: a turn is to be about as long for all."""
    call = result.call
    assert call is not None
    if result.turns:
        calls = max(min(calls, int(calls * 1000 / result.turns[-1])), 200)
    if result.of.is_async:
        result.turns.append(await awaited_turn(call, calls))
    else:
        result.turns.append(turn(call, calls))


def breaker_bytes() -> float:
    """What one breaker holds after five minutes of traffic with latencies all over the range."""
    from squall_resilience import BreakerSettings, CircuitBreaker

    now = [0.0]
    settings = BreakerSettings(latency=60.0, error_rate=None, failures_in_a_row=None)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    breakers = []
    for number in range(20):
        now[0] = 0.0
        breakers.append(CircuitBreaker(f"bench-{number}", settings, clock=lambda: now[0], registry=None))
        for _ in range(31):
            for step in range(0, 100, 2):
                with breakers[-1].guard():
                    now[0] += 1e-4 * 1.1**step
            now[0] += 10 - now[0] % 10
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / len(breakers)
    tracemalloc.stop()
    return each


def import_ms(*, patterns: bool) -> float:
    """What `import squall_resilience` costs beyond asyncio, with every pattern or none: least of nine interpreters."""
    program = (
        "import asyncio, time\nbegun = time.process_time()\nimport squall_resilience\n"
        f"if {patterns}: [getattr(squall_resilience, name) for name in squall_resilience.__all__]\n"
        "print((time.process_time() - begun) * 1000)"
    )
    taken = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(9)
    ]
    return min(taken)


def version_of(who: str) -> str:
    name = who.partition(",")[0]
    try:
        return version(name)
    except PackageNotFoundError:
        return platform.python_version() if name.startswith("asyncio") else ""


def table(group: str, results: list[Result], *, is_async: bool) -> list[str]:
    """One group's rows, quickest first, each as a multiple of ours."""
    rows = sorted(
        (each for each in results if each.of.group == group and each.of.is_async is is_async), key=lambda r: r.ns
    )
    if not rows:
        return []
    ours = next((each.ns for each in rows if each.of.who.startswith(OURS)), None)
    reach = REACH.get((group, is_async))
    lines = [
        "",
        f"### {'awaited' if is_async else 'called'}" + (f" (ours is to take {reach} ns at most)" if reach else ""),
        "",
        "| | ns | times ours | |",
        "|---|---|---|---|",
    ]
    for each in rows:
        name = f"**{each.of.who}**" if each.of.who.startswith(OURS) else each.of.who
        times = f"{each.ns / ours:.1f}" if ours else ""
        lines.append(f"| {name} {version_of(each.of.who)} | {each.ns:.0f} | {times} | {each.of.what} |")
    return lines


def page(results: list[Result], rounds: int, size: float, importing: tuple[float, float]) -> str:
    machine = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    lines = [
        "# What a pattern costs a call that succeeds",
        "",
        f"Written by `tests/benchmarks/resilience/bench.py` on {machine}: the least of {rounds} turns each, taken in turn;",
        "the bare call's own time is in each figure. Compare the ratios: absolute times are those of this machine.",
        "",
        f"One breaker after five minutes of traffic holds {size / 1000:.1f} kB (16 kB at most).",
        f"`import squall_resilience` takes {importing[0]:.1f} ms of CPU beyond asyncio, with every pattern {importing[1]:.1f} ms.",
    ]
    for group, title in TITLES.items():
        rows = table(group, results, is_async=False) + table(group, results, is_async=True)
        if rows:
            lines += ["", f"## {title}", *rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=4000)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    results = asyncio.run(measure(options.rounds, options.calls))
    size, importing = breaker_bytes(), (import_ms(patterns=False), import_ms(patterns=True))
    text = page(results, options.rounds, size, importing)
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "resilience.md").write_text(text)
    data = {
        "python": platform.python_version(),
        "rounds": options.rounds,
        "breaker_bytes": round(size),
        "import_ms": round(importing[0], 2),
        "import_all_ms": round(importing[1], 2),
        "results": [
            {
                "group": each.of.group,
                "who": each.of.who,
                "version": version_of(each.of.who),
                "async": each.of.is_async,
                "ns_min": round(each.ns, 1),
                "ns_median": round(sorted(each.turns)[len(each.turns) // 2], 1),
            }
            for each in results
        ],
    }
    (DOCS / "resilience.json").write_text(json.dumps(data, indent=1) + "\n")
    print(text)
    late = [
        f"{each.of.group}: {each.ns:.0f} ns"
        for each in results
        if each.of.who.startswith(OURS)
        and "block" not in each.of.who
        and each.ns > REACH.get((each.of.group, each.of.is_async), 1e9)
    ]
    if late:
        print(f"not reached: {'; '.join(late)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
