"""The examples of name faults, run as their first lines say, in a network of the test's own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    from tests.dns.conftest import World

FOLDER = Path(__file__).parents[2] / "examples" / "kernel"
ATTEMPTS, INCONCLUSIVE = 4, 6
"""A machine that is too busy to tell is asked again."""
EXAMPLES = sorted(FOLDER.glob("dns-*.yaml"))


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(world: World, example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    started = re.search(r"Start it first: +python3 examples/kernel/(\S+) (\S+)", text)
    assert announced is not None
    assert started is not None
    world.server.add(started[2], "10.1.2.3", "fd00::3")
    service = world.run("target", sys.executable, str(FOLDER / started[1]), started[2])
    specimens.wait_for(lambda: _listens(18095), "the service listens")
    environment = {**os.environ, "SQUALL_STATE": str(tmp_path / "state")}
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [sys.executable, "-m", "squall", "run", "--json", str(example)], capture_output=True, text=True,
            env=environment, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != INCONCLUSIVE:
            break
    assert done.returncode == int(announced[2]), done.stderr
    events = max((tmp_path / "state" / "runs").glob("*/events.jsonl")).read_text().splitlines()
    hits = [one["counters"] for one in map(json.loads, events) if "counters" in one]
    assert sum(count for name, count in hits[-1].items() if name != "missed") > 20
    assert service.poll() is None


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
