"""The examples of wrong clocks, run as their first lines say, each on a service of its own."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from squall.kernel import process_memory, vdso
from tests.servers import free_port, listens
from tests.specimens import needs_root, wait_for

FOLDER = Path(__file__).parents[2] / "examples" / "kernel"
EXAMPLES = sorted(FOLDER.glob("skew-*.yaml"))
ATTEMPTS, INCONCLUSIVE = 4, 6
PORT = "18097"


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
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
    said = (state / "said").read_text()
    assert status == int(announced[2]), said
    assert announced[1] in said
    events = max((state / "runs").glob("*/events.jsonl")).read_text().splitlines()
    hits = [one["counters"] for one in map(json.loads, events) if "counters" in one]
    assert max(one.get("skewed", 0) for one in hits) == 1


def ran(text: str, service: Path, file: Path, state: Path) -> int:
    """The exit status of a run on a new service, whose clock functions are its own afterwards."""
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
            image = process_memory.read(process.pid, *vdso.located(process.pid))
            assert image[: vdso.own().padding] == vdso.own().image[: vdso.own().padding]
        finally:
            process.kill()
    return status
