"""The examples of struck packets, run as their first lines say, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port, listens
from tests.specimens import wait_for

FOLDER = Path(__file__).parents[2] / "examples" / "kernel"
EXAMPLES = sorted(FOLDER.glob("network-*.yaml"))
ATTEMPTS, INCONCLUSIVE = 4, 6
PORT = "18096"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    started = re.search(r"Start it first: +python3 examples/kernel/(\S+) (\S+)", text)
    assert announced is not None
    assert started is not None
    for attempt in range(ATTEMPTS):  # a machine that is too busy to tell is asked again
        state = tmp_path / str(attempt)
        status = ran(text, FOLDER / started[1], state / started[2], state)
        crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        if status == int(announced[2]) or not (status == INCONCLUSIVE or crowded):
            break
    assert status == int(announced[2]), (state / "said").read_text()
    events = max((state / "runs").glob("*/events.jsonl")).read_text().splitlines()
    hits = [one["counters"] for one in map(json.loads, events) if "counters" in one]
    assert sum(count for name, count in hits[-1].items() if name not in ("missed", "unfollowed")) > 0


def ran(text: str, service: Path, file: Path, state: Path) -> int:
    """The exit status of a run on a new service; what it said is kept beside its state."""
    state.mkdir()
    port, document = free_port(), state / "example.yaml"
    document.write_text(text.replace(PORT, str(port)))
    with subprocess.Popen([sys.executable, str(service), str(file), str(port)]) as process:
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
