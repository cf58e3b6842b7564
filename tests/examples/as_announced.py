"""Runs an example of examples/kernel as its first lines say, on a service of its own, until it can be judged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import free_port, listens
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOLDER", "run_as_announced"]

FOLDER = Path(__file__).parents[2] / "examples" / "kernel"
ATTEMPTS, INCONCLUSIVE = 4, 6
RUN_SECONDS_MAX = 180


def run_as_announced(example: Path, folder: Path, afterwards: Callable[[int], object] = int) -> list[dict[str, int]]:
    """Run it; its verdict must be the announced one, and its service must live on. The counters, as they were published.

    `afterwards` is given the service's pid when the run is over. A machine that is too busy to tell is asked again.
    """
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    assert announced is not None, f"{example.name} does not announce a verdict"
    for attempt in range(ATTEMPTS):
        state = folder / str(attempt)
        state.mkdir()
        status = _ran(text, state, afterwards)
        crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        if status == int(announced[2]) or not (status == INCONCLUSIVE or crowded):
            break
    said = (state / "said").read_text()
    assert status == int(announced[2]), said
    assert announced[1] in said
    events = max((state / "runs").glob("*/events.jsonl")).read_text().splitlines()
    found: list[dict[str, Any]] = [one["counters"] for one in map(json.loads, events) if "counters" in one]
    return found


def _service(text: str, state: Path) -> list[str]:
    """What starts the service, without its port."""
    started = re.search(r"Start it first: +(?:python3|go run) examples/kernel/(\S+)(?: (\S+))?$", text, re.MULTILINE)
    assert started is not None, "it does not say what to start"
    service = FOLDER / started[1]
    if service.suffix == ".py":
        return [sys.executable, str(service), *([str(state / started[2])] if started[2] else [])]
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("needs Go: apt-get install golang-go, or put `go` on PATH")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    built = state / "service"
    subprocess.run([go, "build", "-o", str(built), service.name], cwd=service.parent, env=environment, check=True)
    return [str(built)]


def _ran(text: str, state: Path, afterwards: Callable[[int], object]) -> int:
    """The exit status of a run on a new service; what it said is kept beside its state."""
    documented = re.search(r"\b18\d{3}\b", text)
    assert documented is not None, "it names no port"
    port, document = free_port(), state / "example.yaml"
    document.write_text(text.replace(documented[0], str(port)))
    with subprocess.Popen([*_service(text, state), str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listens(process.pid, port), "the service listens")
            with (state / "said").open("w") as said:
                argv = [sys.executable, "-m", "squall", "run", "--quiet", str(document)]
                environment = {**os.environ, "SQUALL_STATE": str(state)}
                status = subprocess.run(
                    argv, stdout=said, stderr=said, env=environment, timeout=RUN_SECONDS_MAX, check=False
                ).returncode
            assert process.poll() is None, "the service lives on"
            afterwards(process.pid)
        finally:
            process.kill()
    return status
