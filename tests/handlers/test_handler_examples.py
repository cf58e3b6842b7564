"""The examples of handlers that fail or are late end as they announce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.examples.as_announced import FOLDER, run_as_announced
from tests.specimens import needs_root

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted([*FOLDER.glob("panic*.yaml"), *FOLDER.glob("degrade*.yaml")])
COUNTED = ("panics", "exceptions", "delayed")


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    hits = run_as_announced(example, tmp_path)[-1]
    assert sum(hits.get(name, 0) for name in COUNTED) > 2
