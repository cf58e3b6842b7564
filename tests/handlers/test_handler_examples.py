"""The examples of handlers that fail or are late, run as their first lines say, each on a service of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port, listens
from tests.specimens import needs_root, wait_for

FOLDER = Path(__file__).parents[2] / "examples" / "kernel"
EXAMPLES = sorted([*FOLDER.glob("panic*.yaml"), *FOLDER.glob("degrade*.yaml")])
ATTEMPTS, INCONCLUSIVE = 4, 6
COUNTED = ("panics", "exceptions", "delayed")


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    started = re.search(r"Start it first: +(python3|go run) examples/kernel/(\S+)", text)
    assert announced is not None
    assert started is not None
    for attempt in range(ATTEMPTS):  # a machine that is too busy to tell is asked again
        state = tmp_path / str(attempt)
        state.mkdir()
        status = ran(text, command(FOLDER / started[2], state), state)
        crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        if status == int(announced[2]) or not (status == INCONCLUSIVE or crowded):
            break
    assert status == int(announced[2]), (state / "said").read_text()
    events = max((state / "runs").glob("*/events.jsonl")).read_text().splitlines()
    hits = [one["counters"] for one in map(json.loads, events) if "counters" in one]
    assert sum(hits[-1].get(name, 0) for name in COUNTED) > 2


def command(service: Path, state: Path) -> list[str]:
    """What starts the service; its port comes behind."""
    if service.suffix == ".py":
        return [sys.executable, str(service), str(state / "notes.txt")]
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("needs Go: apt-get install golang-go, or put `go` on PATH")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    built = state / "service"
    subprocess.run([go, "build", "-o", str(built), service.name], cwd=service.parent, env=environment, check=True)
    return [str(built)]


def ran(text: str, service: list[str], state: Path) -> int:
    """The exit status of a run on a new service; what it said is kept beside its state."""
    documented = re.search(r"port: (\d+)", text)
    assert documented is not None
    port, document = free_port(), state / "example.yaml"
    document.write_text(text.replace(documented[1], str(port)))
    with subprocess.Popen([*service, str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listens(process.pid, port), "the service listens")
            with (state / "said").open("w") as said:
                argv = [sys.executable, "-m", "squall", "run", "--quiet", str(document)]
                environment = {**os.environ, "SQUALL_STATE": str(state)}
                status = subprocess.run(
                    argv, stdout=said, stderr=said, env=environment, timeout=180, check=False
                ).returncode
            assert process.poll() is None, "the service lives on"
        finally:
            process.kill()
    return status
