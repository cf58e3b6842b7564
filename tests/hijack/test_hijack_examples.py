"""The examples of connections that are led to the proxy, run on a real shop in a network of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from squall.experiment.document import read_experiment
from squall.shop import Shop

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "kernel").glob("hijack-*.yaml"))
DOCUMENTED = {"gateway": 8080, "inventory": 8083}
ATTEMPTS, INCONCLUSIVE = 4, 6
"""A machine that is too busy to tell is asked again."""


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    announced = re.search(r"Verdict: (\w+) \(exit status (\d)\)", text)
    assert announced is not None
    assert read_experiment(example).name == example.stem
    with Shop() as shop:
        for name, documented in DOCUMENTED.items():
            text = re.sub(rf"\b{documented}\b", shop.urls[name].rpartition(":")[2], text)
        for name, pid in shop.pids.items():
            text = text.replace(f"{{command: shop-{name}}}", f"{{pid: {pid}}}")
        document = tmp_path / example.name
        document.write_text(text)
        for attempt in range(ATTEMPTS):
            done = subprocess.run(
                [sys.executable, "-m", "squall", "run", "--quiet", str(document)], capture_output=True, text=True,
                env={**os.environ, "SQUALL_STATE": str(tmp_path / f"state-{attempt}")}, timeout=120, check=False,
            )  # fmt: skip
            crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
            if done.returncode != INCONCLUSIVE and not (crowded and done.returncode != int(announced[2])):
                break
        assert done.returncode == int(announced[2]), done.stdout + done.stderr
        assert announced[1] in done.stdout + done.stderr
