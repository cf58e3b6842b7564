"""The whole way: `squall inject dns.error --target container:NAME` on a real process in a container's cgroup."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dns.conftest import World

INCONCLUSIVE = 6


@pytest.mark.kernel
@pytest.mark.slow
def test_a_container_that_nobody_prepared(world: World, tmp_path: Path) -> None:
    id_ = os.urandom(32).hex()
    client = world.client("go", f"docker-{id_}.scope")
    state = tmp_path / "docker" / "containers" / id_ / "config.v2.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"ID": id_, "Name": "/shop", "State": {"Running": True}}))
    (tmp_path / "config.toml").write_text(f'[containers]\ndocker = ["{tmp_path / "docker"}"]\n')
    environment = {
        **os.environ, "SQUALL_CONFIG": str(tmp_path / "config.toml"), "SQUALL_STATE": str(tmp_path / "state"),
    }  # fmt: skip
    words = ["dns.error", "--names", "shop.*", "--target", "container:shop", "-d", "3s", "--baseline", "300ms"]
    run = subprocess.Popen(
        [sys.executable, "-m", "squall", "inject", *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip
    with run:
        specimens.wait_for(lambda: client.lookup("shop.test") == "no such name", "the fault is on", 30)
        assert client.lookup("other.test") == "10.1.2.4"
        said, problems = run.communicate(timeout=60)
    assert run.returncode in (0, INCONCLUSIVE), problems
    found = json.loads(said)
    assert found["faults"][0]["hits"]["nxdomain"] >= 1
    assert found["faults"][0]["targets"][0]["title"] == f"container shop ({id_[:12]})"
    assert found["faults"][0]["plans"][0]["recoverability"] == "lease"
    assert client.lookup("shop.test") == "10.1.2.3 fd00::3"
