"""The pages on time-outs and retries, fallbacks and concurrent calls do what they show, with the defaults in force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall_resilience import FallbackSettings, GroupSettings, HedgeSettings, RetrySettings, TimeoutSettings
from tests.docs.blocks import run_document

if TYPE_CHECKING:
    from squall_resilience.settings import Settings

PAGES = Path(__file__).resolve().parents[3] / "docs" / "how-to"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["time-outs-and-retries", "fallbacks", "concurrent-calls"])
def test_its_program_prints_what_is_shown(page: str, tmp_path: Path) -> None:
    (tmp_path / "reader").mkdir()
    (shown,) = run_document((PAGES / f"{page}.md").read_text(), tmp_path / "reader", {}, 60)
    assert shown.missing() is None, shown.printed
    assert len(shown.printed.strip().splitlines()) == len(shown.command.output), shown.printed


@pytest.mark.parametrize(
    ("page", "settings", "said"),
    [
        ("time-outs-and-retries", TimeoutSettings(), {"limit": "`limit` (3 s)"}),
        (
            "time-outs-and-retries",
            RetrySettings(),
            {
                "attempts": "`attempts` 3",
                "base": "`base` 0.1 s",
                "cap": "`cap` 5 s",
                "budget": "`budget` (10 %)",
                "budget_minimum": "`budget_minimum` (10)",
                "window": "`window` (10 s,",
                "retry_after_max": "`retry_after_max` (10 s)",
            },
        ),
        ("fallbacks", FallbackSettings(), {"ttl": "`ttl` (30 s)", "keys": "`keys` (1000)"}),
        (
            "concurrent-calls",
            GroupSettings(),
            {
                "limit": "`limit` (3 s)",
                "concurrency": "`concurrency` (8)",
                "members": "`members` (100)",
                "threads": "`threads` (32)",
            },
        ),
        (
            "concurrent-calls",
            HedgeSettings(),
            {
                "delay_min": "`delay_min` (5 ms)",
                "delay_max": "`delay_max` (1 s)",
                "budget": "`budget` (10 %)",
                "window": "`window` (10 s)",
                "threads": "`threads` (16)",
            },
        ),
    ],
)
def test_its_defaults_are_those_in_force(page: str, settings: Settings, said: dict[str, str]) -> None:
    text = (PAGES / f"{page}.md").read_text()
    for name, shown in said.items():
        value = getattr(settings, name)
        form = {"%": f"{value * 100:g} %", "ms": f"{value * 1000:g} ms", "s": f"{value:g} s"}
        unit = next((unit for unit in form if shown.rstrip("),").endswith(unit)), "")
        assert f" {form.get(unit, str(value))}" in shown.replace("(", " ").replace("),", ""), name
        assert shown in text, name
