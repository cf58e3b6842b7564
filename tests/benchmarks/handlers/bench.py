"""What handlers pay while they may fail or be late, and how late they then are.

`python tests/benchmarks/handlers/bench.py` writes docs/benchmarks/handlers.json and handlers.md. Needs root and Go. Each
figure is from requests over one kept connection on 127.0.0.1; with and without alternate, and what is told of a cost is
the median of the differences of their medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from squall.injectors.entry_patch import EntryPatchInjector  # noqa: E402 - the path first
from squall.injectors.python_hook import PythonHookInjector  # noqa: E402
from squall.injectors.uprobe import UprobeDegradeInjector  # noqa: E402
from tests import services  # noqa: E402

if TYPE_CHECKING:
    from squall.injectors import Injector
    from tests.services import Service

DOCS = ROOT / "docs" / "benchmarks"
ROUNDS, REQUESTS = 6, 600
US = 1e6
ANSWER = "__main__:Handler.answer"


def median_us(service: Service, requests: int = REQUESTS) -> float:
    """Of so many requests over one connection, after some to warm up."""
    with service.client() as client:
        for _ in range(50):
            client.ask()
        client.took_s.clear()
        for _ in range(requests):
            client.ask()
        return client.median_s() * US


def cost_us(service: Service, injector: Injector, tag: str, **fault: Any) -> dict[str, float]:
    """What a request costs more while a fault is on that hits nothing, or as asked; and how long it takes to begin and end."""
    differences, begins, ends = [], [], []
    for _ in range(ROUNDS):
        without = median_us(service)
        plan, began = services.planned(injector, tag, service.target, **fault), time.monotonic()
        with services.injected(plan):
            begins.append((time.monotonic() - began) * 1000)
            differences.append(median_us(service) - without)
            ending = time.monotonic()
        ends.append((time.monotonic() - ending) * 1000)
    return {
        "us": round(statistics.median(differences), 1),
        "begins_ms": round(statistics.median(begins)),
        "ends_ms": round(statistics.median(ends)),
    }


def injected_us(service: Service, injector: Injector, delay: str, **fault: Any) -> dict[str, int]:
    """How long the waits really were, as the mechanism itself measured."""
    with services.injected(services.planned(injector, "http.degrade", service.target, delay=delay, **fault)) as on:
        median_us(service, 300)
        time.sleep(1.5)  # until the last of them are published
        return {name: value for name, value in on.counts().items() if name.startswith("injected_")}


def measured() -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = {"machine": f"{os.cpu_count()} cores, Linux {platform.release()}", "idle": {}, "late": {}}
    uprobe, stub, hook = UprobeDegradeInjector(), EntryPatchInjector(), PythonHookInjector()
    with services.go_service() as go:
        found["idle"]["Go, uprobe"] = cost_us(go, uprobe, "http.degrade", delay="1us", percent="0%")
        found["idle"]["Go, entry stub"] = cost_us(go, stub, "process.panic", percent="0%")
        for delay in ("100us", "500us", "2ms", "5ms"):
            found["late"][f"Go, {delay}"] = injected_us(go, uprobe, delay)
    with services.python_service("threads") as python:
        found["idle"]["Python, hook"] = cost_us(python, hook, "process.panic", function=ANSWER, percent="0%")
        for delay in ("500us", "5ms", "50ms"):
            found["late"][f"Python, {delay}"] = injected_us(python, hook, delay, function=ANSWER)
    return found


def page(found: dict[str, Any]) -> str:
    """The figures as a page of the documentation."""
    idle = "\n".join(
        f"| {name} | {row['us']} | {row['begins_ms']} | {row['ends_ms']} |" for name, row in found["idle"].items()
    )
    late = "\n".join(
        f"| {name} | {row['injected_p50_us']} | {row['injected_p99_us']} | {row['injected_max_us']} |"
        for name, row in found["late"].items()
    )
    return f"""# Handlers that fail or are late

{found["machine"]}. {ROUNDS} rounds of {REQUESTS} requests, with and without by turns; the median of the differences.

## A call that is not hit

What a request costs more, and how long a fault takes to begin (a worker is started) and to end.

| Mechanism | us a call | begins, ms | ends, ms |
|---|---|---|---|
{idle}

On bare metal a uprobe costs 1 to 2 us; inside a virtual machine within another, several times that.

## How long the wait really was

As the mechanism itself measured it, in microseconds; buckets are an eighth wide.

| Asked | half within | 99 % within | at most |
|---|---|---|---|
{late}
"""


def main() -> None:
    """Measure, and write both files."""
    found = measured()
    (DOCS / "handlers.json").write_text(json.dumps(found, indent=1) + "\n")
    (DOCS / "handlers.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
