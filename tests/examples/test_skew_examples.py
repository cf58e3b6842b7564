"""The examples of wrong clocks end as they announce, and leave each service its own clock functions."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from squall.kernel import process_memory, vdso
from tests.examples.as_announced import FOLDER, run_as_announced
from tests.specimens import needs_root

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted(FOLDER.glob("skew-*.yaml"))


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces(example: Path, tmp_path: Path) -> None:
    def has_its_own_functions(pid: int) -> None:
        image = process_memory.read(pid, *vdso.located(pid))
        assert image[: vdso.own().padding] == vdso.own().image[: vdso.own().padding]

    hits = run_as_announced(example, tmp_path, has_its_own_functions)
    assert max(one.get("skewed", 0) for one in hits) == 1
