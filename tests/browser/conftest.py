"""A browser for a session: skipped aloud where there is none, a failure where CI should have one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from squall.reports import comparing, write_reports
from tests.browser import chromium
from tests.reports import synthetic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING = "there is no chromium here: `apt-get install chromium` (SQUALL_APT=1 make test does it)"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    """The browser."""
    program = chromium.find()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with chromium.Chromium(program, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports as files, by the kind of run; `comparison` is of the first two."""
    root = tmp_path_factory.mktemp("pages")
    makers = (synthetic.healthy, synthetic.failed, synthetic.cut_off)
    found = {maker.__name__: write_reports(maker(root / maker.__name__), ["html"])["html"] for maker in makers}
    comparison = root / "comparison.html"
    comparison.write_text(comparing.to_html(comparing.load(root / "healthy", root / "failed")), encoding="utf-8")
    return {**found, "comparison": comparison}
