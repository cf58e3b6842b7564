"""The pages on moving from other libraries do what they show: the old and the new side by side."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, commands_of, run_document

HOW_TO = Path(__file__).resolve().parents[2] / "docs/how-to"
PAGES = {
    "moving-from-pybreaker.md": ("pybreaker",),
    "moving-from-tenacity.md": ("tenacity", "stamina"),
    "moving-from-other-languages.md": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_shows(name: str, tmp_path: Path) -> None:
    missing = [library for library in PAGES[name] if find_spec(library) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: run tools/setup test")
    folder = tmp_path / "reader"
    folder.mkdir()
    shown = run_document((HOW_TO / name).read_text(), folder, {}, 60)
    assert len(shown) == len(commands_of(blocks_of((HOW_TO / name).read_text()))) > 0
    for each in shown:
        assert each.missing() is None, f"should print: {each.missing()}\nprinted:\n{each.printed}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_what_there_is(name: str) -> None:
    """Every setting, class and method that the right-hand columns name is there."""
    from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveSettings
    from tests.rivals.surface import public_names

    assert AdaptiveConcurrency.kind, AdaptiveSettings
    there = public_names("squall_resilience")
    text = (HOW_TO / name).read_text()
    called = {
        word
        for cell in re.findall(r"^\|.*\|([^|]*)\|$", text, flags=re.MULTILINE)
        for code in re.findall(r"`([^`]+)`", cell)
        for made, given in re.findall(r"\b([A-Z][a-zA-Z]+)\(|\b([a-z_]+)=", code)
        for word in (made, given)
        if word
    }
    assert called, "nothing is named"
    assert called - there == set()
