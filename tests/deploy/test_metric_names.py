"""docs/reference/resilience-metrics.md says of the metrics what a real Prometheus has scraped."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest

from squall.telemetry.figures import FAMILIES
from tests.deploy.conftest import ROOT
from tests.deploy.queries import board_queries, rules

if TYPE_CHECKING:
    from tests.deploy.conftest import Filled

PAGE = (ROOT / "docs" / "reference" / "resilience-metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \| (.+) \|$", re.MULTILINE)
LATER = {
    "resilience_hedge_calls_total", "resilience_concurrency_limit", "resilience_concurrency_in_use",
    "resilience_concurrency_calls_total", "resilience_group_members_total", "resilience_deadline_calls_total",
}  # fmt: skip
OF_PROMETHEUS = {"__name__", "job", "instance", "le"}


def documented(section: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Kind and labels by name."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in ROW.findall(text)}


def scraped(filled: Filled) -> dict[str, tuple[str, set[str]]]:
    """Kind and labels by name, of the service."""
    asked = urllib.parse.urlencode({"match[]": '{job="order",__name__=~"resilience_.+|http_.+"}'})
    with urllib.request.urlopen(f"{filled.prometheus.url}/api/v1/series?{asked}", timeout=10) as answer:
        series = json.load(answer)["data"]
    with urllib.request.urlopen(f"{filled.prometheus.url}/api/v1/metadata", timeout=10) as answer:
        kinds = {name: one[0]["type"] for name, one in json.load(answer)["data"].items()}
    found: dict[str, tuple[str, set[str]]] = {}
    for one in series:
        name = re.sub(r"_(bucket|sum|count)$", "", one["__name__"])
        kind = kinds.get(name) or kinds[name.removesuffix("_total")]
        found.setdefault(name, (kind, set()))[1].update(set(one) - OF_PROMETHEUS)
    return found


@pytest.mark.slow
def test_what_services_say_is_what_the_page_says(filled: Filled) -> None:
    page = {name: (kind, set(labels)) for name, (kind, labels) in documented("Of services").items()}
    seen = scraped(filled)
    assert {name: page.get(name) for name in seen} == seen
    assert set(page) - set(seen) - LATER == set()


def test_what_runs_say_is_what_the_page_says() -> None:
    assert documented("Of runs") == {family.name: (family.kind, family.labels) for family in FAMILIES}


def test_boards_and_alerts_ask_for_what_there_is() -> None:
    known = set(documented("Of services")) | set(documented("Of runs"))
    asked = [query.expression for query in board_queries()] + [rule["expr"] for rule in rules().values()]
    names = {name for text in asked for name in re.findall(r"\b(?:resilience|squall|http)_\w+", text)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in names} <= known


def test_the_first_label_is_whose_it_is() -> None:
    for name, (_, labels) in documented("Of services").items():
        assert labels[0] == ("dependency" if name.startswith("resilience_") else "service"), name
