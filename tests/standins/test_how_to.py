"""The how-to's scripts are scripts, and its Python runs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from squall.documents import load
from squall.standins import StandIn
from squall.standins.script import parse_script

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "stand-ins.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_script_of_the_page_is_one(text: str) -> None:
    assert parse_script(load(text, "page").value).expectations


def test_the_report_on_the_page_is_what_its_script_gives() -> None:
    api = StandIn(load(blocks("yaml")[0], "page").value)
    api.start()
    for path, body in [("/payments/1", b'{"sku": "a1"}')] * 2 + [("/stock/a1", None)]:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(api.url + path, body), timeout=0.2).close()
    api.stop()
    assert str(api.report) == blocks("text")[0].strip()


@pytest.mark.slow
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(blocks("python")[0])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "2 passed" in done.stdout, done.stdout


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(blocks("python")[1])
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, timeout=60, check=True)
