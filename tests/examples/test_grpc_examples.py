"""The examples of gRPC end as they announce, on real clients and services; what the proxy hit is in the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from squall.experiment.document import read_experiment
from tests.servers import free_port, listens
from tests.specimens import wait_for

FOLDER = Path(__file__).parents[2] / "examples" / "grpc"
DOCUMENTED = {"orders": 18091, "inventory": 18092, "through": 18093}
ATTEMPTS, INCONCLUSIVE = 4, 6


def run(text: str, folder: Path) -> tuple[int, str, int]:
    """Run it on a shop of its own: exit status, what was said, how many calls were hit."""
    pytest.importorskip("grpc", reason="needs grpcio: pip install grpcio")
    ports = {name: free_port() for name in DOCUMENTED}
    for name, documented in DOCUMENTED.items():
        text = re.sub(rf"\b{documented}\b", str(ports[name]), text)
    document, environment = folder / "example.yaml", {**os.environ, "SQUALL_STATE": str(folder / "state")}
    document.write_text(text)
    shop = [sys.executable, str(FOLDER / "shop.py"), *map(str, ports.values())]
    with subprocess.Popen(shop) as process:
        try:
            wait_for(lambda: listens(process.pid, ports["orders"]), "the shop listens")
            done = subprocess.run(
                [sys.executable, "-m", "squall", "run", "--quiet", str(document)],
                env=environment, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
        finally:
            process.kill()
    (path,) = (folder / "state").glob("runs/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return done.returncode, done.stdout + done.stderr, max((hits(one) for one in events), default=0)


def hits(event: dict[str, Any]) -> int:
    """The calls hit that an event tells of."""
    counters = event.get("counters") or {}
    return int(counters.get("requests", 0))


def judged(text: str, folder: Path, wanted: int) -> tuple[int, str, int]:
    """Run until the machine is quiet enough to judge."""
    for attempt in range(ATTEMPTS):
        (folder / str(attempt)).mkdir()
        ran = run(text, folder / str(attempt))
        crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        if ran[0] == wanted or not (ran[0] == INCONCLUSIVE or crowded):
            break
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    assert announced is not None
    assert read_experiment(example).name == example.stem
    status, said, hit = judged(text, tmp_path, int(announced[2]))
    assert (status, announced[1] in said) == (int(announced[2]), True), said
    assert 10 <= hit <= 70  # about a third of 100


@pytest.mark.slow
def test_without_after_messages_the_retries_of_grpc_ride_it_out(tmp_path: Path) -> None:
    """As the example says."""
    text = (FOLDER / "grpc-abort.yaml").read_text()
    status, said, hit = judged(text.replace("      afterMessages: 1\n", ""), tmp_path, 0)
    assert status == 0, said
    assert hit >= 10
