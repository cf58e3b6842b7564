"""The examples of failing and slow calls end as they announce."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tests.examples.as_announced import FOLDER, run_as_announced
from tests.specimens import needs_root

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted([*FOLDER.glob("io-*.yaml"), *FOLDER.glob("syscall-*.yaml")])


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    assert run_as_announced(example, tmp_path)[-1]["hits"] > 5
