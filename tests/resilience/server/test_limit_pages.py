"""The pages about limits and priorities do what they show, and give the defaults that are in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall_resilience import AdaptiveSettings, BulkheadSettings, RateLimiterSettings
from squall_resilience.server.pools import PoolsSettings
from tests.docs.blocks import run_document
from tests.servers import free_port

PAGES = Path(__file__).resolve().parents[3] / "docs" / "how-to"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["limits", "priorities"])
def test_its_programs_print_what_is_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / "reader").mkdir()
    shown = run_document((PAGES / f"{name}.md").read_text(), tmp_path / "reader", {"8080": free_port()}, 60)
    assert [(each.missing(), each.printed) for each in shown if each.missing() is not None] == []
    assert len(shown) == {"limits": 1, "priorities": 4}[name]


def test_their_defaults_are_those_in_force() -> None:
    bulkhead, rate, adaptive = BulkheadSettings(), RateLimiterSettings(), AdaptiveSettings()
    assert (bulkhead.limit, bulkhead.waiting, bulkhead.wait) == (100, 100, 0.5)
    assert (rate.rate, rate.per, rate.burst, rate.wait, rate.keys_max) == (100, 1.0, None, 0.0, 10_000)
    assert (adaptive.window, adaptive.calls_min, adaptive.probe_every) == (0.5, 20, 30.0)
    pools = {name: (each.workers, each.sla) for name, each in PoolsSettings().pools.items()}
    assert pools == {"high": (50, 0.1), "default": (200, 0.5)}
