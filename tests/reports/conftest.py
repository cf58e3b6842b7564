"""Folders of runs, made once a session: reports only read them, or write into a folder of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.reports import synthetic

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of run by its name."""
    root = tmp_path_factory.mktemp("runs")
    makers = (synthetic.healthy, synthetic.failed, synthetic.aborted, synthetic.nothing_injected, synthetic.cut_off)
    folders = {maker.__name__: maker(root / maker.__name__) for maker in makers}
    folders["orphaned"] = synthetic.cut_off(root / "orphaned", recovered=False)
    empty = root / "empty"
    empty.mkdir()
    (empty / "events.jsonl").touch()
    return {**folders, "empty": empty}
