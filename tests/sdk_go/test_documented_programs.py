"""What the documents show in Go is what can be built, and what is tested."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.sdk_go.go_module import SDK, build_elsewhere

if TYPE_CHECKING:
    from pathlib import Path

ROOT = SDK.parents[1]
DOCUMENTS = ("sdk/go/README.md", "docs/how-to/chaos-in-a-go-service.md")


def go_blocks(document: str) -> list[str]:
    return re.findall(r"^```go\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_documented_program_can_be_built(document: str, tmp_path: Path) -> None:
    programs = [block for block in go_blocks(document) if block.startswith("package main")]
    assert programs
    for number, program in enumerate(programs):
        build_elsewhere(program, tmp_path / str(number))


def test_what_is_shown_of_routers_is_what_is_tested() -> None:
    tested = re.sub(r"\s+", " ", (SDK / "routers" / "routers.go").read_text())
    shown = [block for block in go_blocks("sdk/go/README.md") if not block.startswith("package main")]
    assert len(shown) == 3
    for block in shown:
        assert re.sub(r"\s+", " ", block).strip() in tested
