"""The examples of struck packets end as they announce, in a network namespace of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.events import PASSED_BY
from tests.examples.as_announced import FOLDER, run_as_announced

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted(FOLDER.glob("network-*.yaml"))


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    hits = run_as_announced(example, tmp_path)[-1]
    assert sum(count for name, count in hits.items() if name not in PASSED_BY) > 0
