"""docs/how-to/circuit-breaker.md does what it shows, and gives the defaults that are in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall_resilience import BreakerSettings
from tests.docs.blocks import run_document

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "circuit-breaker.md"


@pytest.mark.slow
def test_its_program_prints_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "reader").mkdir()
    (shown,) = run_document(PAGE.read_text(), tmp_path / "reader", {}, 60)
    assert shown.missing() is None, shown.printed
    assert shown.printed.split() == " ".join(shown.command.output).split()


def test_its_defaults_are_those_in_force() -> None:
    of, text = BreakerSettings(), PAGE.read_text()
    assert (of.trip, of.error_rate, of.period, of.periods, of.minimum_calls) == ("any", 0.4, 10, 3, 20)
    assert "| 40 %, 10 s, 3, 20 |" in text
    assert (of.latency, of.window, of.failures_in_a_row) == (None, 300, 20)
    for name, shown in {
        "wait": "15 s",
        "jitter": "10 %",
        "trial_share": "10 %",
        "trials_at_once": "5",
        "trials": "10",
        "trial_error_rate": "20 %",
        "trial_timeout": "30 s",
    }.items():
        value = getattr(of, name)
        expected = f"{value * 100:g} %" if "%" in shown else f"{value:g}" + (" s" if shown.endswith("s") else "")
        assert shown == expected
        assert any(f"`{name}` ({shown}" in line or f"`{name}`, {shown}" in line for line in text.splitlines()), name
