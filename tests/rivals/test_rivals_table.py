"""The page that compares says of each library what a run against that library shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.rivals.verdicts import LIBRARIES, versions

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/beside-other-libraries.md"

Table = dict[str, dict[str, tuple[str, str]]]


def table_of(text: str) -> Table:
    """The cells of the page's tables, by title and library: the word and its note."""
    found: Table = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        notes = dict(re.findall(r"^(\d+)\. [^:\n]+: (.*)\.$", section, flags=re.MULTILINE))
        rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
        names = [name.strip() for name in rows[0][1:]]
        for title, *cells in rows[2:]:
            found[title.strip()] = {
                name: read_cell(text, notes) for name, text in zip(names, map(str.strip, cells), strict=True)
            }
    return found


def read_cell(text: str, notes: Mapping[str, str]) -> tuple[str, str]:
    word, _, mark = text.partition(" (")
    return word, notes[mark.strip(")")] if mark else ""


@pytest.fixture(scope="module")
def seen() -> Table:
    """Every cell, as a process of its own sees it now (libraries of others warn, and log)."""
    missing = [module for module in LIBRARIES.values() if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: run tools/setup test")
    servers.program("redis-server")  # skips, and says how to get it
    command = [sys.executable, "-W", "ignore", "-m", "tests.rivals.features", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        title: {name: (word, note) for name, (word, note) in row.items()}
        for title, row in json.loads(done.stdout).items()
    }


def test_every_cell_is_what_a_run_shows(seen: Table) -> None:
    written = table_of(PAGE.read_text())
    of_the_page = {title: row for title, row in written.items() if title in seen}
    assert of_the_page == seen, "python -m tests.rivals.features --write puts what is seen into the page"
    assert len(seen) > 50


def test_the_page_has_no_other_rows_but_versions_and_import_times(seen: Table) -> None:
    written = table_of(PAGE.read_text())
    others = [title for title in written if title not in seen]
    assert others == ["import, beyond asyncio (ms)", "version"]
    assert {name: word for name, (word, _) in written["version"].items()} == versions()
    assert all(word.isdigit() for word, _ in written["import, beyond asyncio (ms)"].values())


def test_what_is_said_of_us_alone_is_honest(seen: Table) -> None:
    """What the page lists as ours to lack is seen to be lacking."""
    lacking = {title for title, row in seen.items() if row["squall-resilience"][0] != "yes"}
    assert {
        "… of the last calls",
        "opens on slow calls",
        "time-out of a blocking call",
        "a cache in front: fresh answers are not asked for again",
        "all retries of the process off by one line, for tests",
        "state shared between processes (Redis)",
        "OpenTelemetry: metrics or span events of the patterns",
    } == lacking


def test_a_name_that_speaks_for_a_feature_is_not_passed_over() -> None:
    pytest.importorskip("pybreaker", reason="pybreaker missing: run tools/setup test")
    from tests.rivals.features import cell
    from tests.rivals.verdicts import NO, Row

    with pytest.raises(LookupError, match="listeners"):
        cell(Row("listeners", {}, ("listener",)), "pybreaker", set())
    assert cell(Row("hedging", {}, ("hedg",)), "pybreaker", set()) == NO
    with pytest.raises(LookupError, match="breaker"):
        cell(Row("opens", {}, kind="breaker"), "pybreaker", set())
