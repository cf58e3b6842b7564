"""The pages on policies do what they show, and say what is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall_resilience import ClientSettings
from squall_resilience.policy.order import ORDER
from tests.docs.blocks import run_document
from tests.servers import free_port

PAGES = Path(__file__).resolve().parents[3] / "docs" / "how-to"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["a-policy", "settings-live", "http-clients", "database-pools"])
def test_its_program_prints_what_is_shown(page: str, tmp_path: Path) -> None:
    (tmp_path / "reader").mkdir()
    text = (PAGES / f"{page}.md").read_text()
    (shown,) = run_document(text, tmp_path / "reader", {"8083": free_port()}, 60)  # type: ignore[dict-item]
    assert shown.missing() is None, shown.printed


def test_the_order_on_the_page_is_the_order() -> None:
    text = (PAGES / "a-policy.md").read_text()
    rows = [f"| `{place.kind}` | {place.does} | {place.why} |" for place in ORDER]
    places = [text.find(row) for row in rows]
    assert -1 not in places
    assert places == sorted(places)


def test_the_defaults_on_the_page_are_the_defaults() -> None:
    text, of = (PAGES / "http-clients.md").read_text(), ClientSettings()
    assert (of.connect_timeout, of.read_timeout, of.write_timeout, of.pool_timeout) == (3, 3, 3, 3)
    assert "| `connect_timeout`, `read_timeout`, `write_timeout` | 3 s each |" in text
    assert f"| `connections` (in all) | {of.connections} |" in text
    assert f"| `per_host` | {of.per_host} |" in text
    assert f"| `idle` (how long an unused connection is kept) | {of.idle:g} s |" in text
