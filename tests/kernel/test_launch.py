"""Modules of Squall run in a bare interpreter, where nothing that is installed can be in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from squall.kernel import launch
from squall.kernel.memory import machine_memory

BARE = """
import json, sys

def main():
    print(json.dumps({"argv": sys.argv, "isolated": sys.flags.isolated, "site": "site" in sys.modules, "path": sys.path}))
    return 7
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    """A module with a `main` that says how it was started, beside a copy of the launcher."""
    package = tmp_path / "squall" / "kernel"
    package.mkdir(parents=True)
    (package / "launch.py").write_text(Path(launch.__file__).read_text())
    (tmp_path / "squall" / "told.py").write_text(BARE)
    return str(package / "launch.py")


def test_a_module_runs_without_site_packages_and_with_its_arguments(module: str) -> None:
    flags, rest = launch.command("squall.told", "one", "{}")[1:3], launch.command("squall.told", "one", "{}")[4:]
    ran = subprocess.run([sys.executable, *flags, module, *rest], capture_output=True, text=True, check=False)
    told = json.loads(ran.stdout)
    assert ran.returncode == 7
    assert told["argv"] == ["squall.told", "one", "{}"]
    assert told["isolated"] == 1
    assert told["site"] is False
    assert not any("site-packages" in place for place in told["path"])


def test_site_packages_are_there_only_for_who_asks() -> None:
    assert "-S" in launch.command("a.b")
    assert "-S" not in launch.command("a.b", site=True)
    assert launch.command("a.b")[0] == sys.executable


def test_the_memory_of_the_machine_is_read() -> None:
    memory = machine_memory()
    assert 0 < memory.available <= memory.total
    assert memory.total == int(Path("/proc/meminfo").read_text().split()[1]) * 1024
