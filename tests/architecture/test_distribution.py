"""What is shipped is whole: a wheel holds the package, its types and the demonstration shop, and nothing of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel of this checkout installs."""
    built, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, code: str) -> str:
    """Run some Python that finds squall in the folder, not in the checkout."""
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }  # it is a copy that runs
    env = {**bare, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_the_package_and_the_shop(root: Path, installed: Path) -> None:
    assert (installed / "squall" / "py.typed").is_file()
    for path in (root / "demo" / "shop").iterdir():
        if path.is_file():
            assert (installed / "squall" / "demo_shop" / path.name).read_bytes() == path.read_bytes()
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"squall"}


def test_an_installed_squall_runs_its_shop(installed: Path) -> None:
    code = "import squall; from squall.shop import Shop; print(squall.__file__)\nwith Shop() as shop: print(shop.pool('gateway').total)"
    where, workers = run(installed, code).splitlines()
    assert where.startswith(str(installed))
    assert int(workers) > 0
