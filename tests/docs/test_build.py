"""The documentation builds without a warning, and holds a page for everything that it should."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from squall.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The built documentation, and how the build ended."""
    if importlib.util.find_spec("sphinx") is None:
        missing = "Sphinx is not here: run tools/setup docs (`make test` does)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", "docs", str(out)]
    return out, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_it_builds_without_a_warning(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    site, done = built
    assert done.returncode == 0, done.stderr
    assert (site / "index.html").is_file()


@pytest.mark.slow
def test_every_fault_has_a_page_with_its_keys(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    site, _ = built
    for tag, fault in FAULTS.items():
        page = (site / f"reference/generated/faults/{tag}.html").read_text()
        fields = fault.model_json_schema(by_alias=True).get("properties", {})
        assert [name for name in fields if f">{name}<" not in page] == [], tag


@pytest.mark.slow
def test_every_command_has_a_section(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    from squall.cli.app import COMMANDS

    site, _ = built
    page = (site / "reference/generated/commands.html").read_text()
    assert [name for name in COMMANDS if f'id="squall-{name}"' not in page] == []
