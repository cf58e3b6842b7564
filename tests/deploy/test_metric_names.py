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
    assert set(page) == set(seen)


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


SELDOM = {"squall_problems_total", "squall_telemetry_dropped_total", "squall_probe_value"}
"""What there was no occasion for."""


@pytest.mark.slow
def test_a_real_prometheus_has_of_a_run_what_the_page_says(filled: Filled) -> None:
    names = {
        re.sub(r"_(bucket|sum|count)$", "", labels["__name__"])
        for labels, _ in filled.over_time('{job="squall",__name__=~"squall_.+"}', filled.began, filled.ended + 3)
    }
    assert set(documented("Of runs")) - SELDOM == names


@pytest.mark.slow
def test_the_verdict_is_scraped_though_the_run_ends_with_it(filled: Filled) -> None:
    ((labels, _),) = filled.over_time('squall_run_verdict{job="squall"} == 1', filled.fault_ended, filled.ended + 3)
    assert labels["verdict"] in {"passed", "failed", "inconclusive"}


@pytest.mark.slow
def test_exemplars_of_a_probes_latency_are_kept_and_lead_to_the_runs_trace(filled: Filled) -> None:
    asked = urllib.parse.urlencode(
        {"query": 'squall_probe_latency_seconds_bucket{job="squall"}', "start": filled.began, "end": filled.ended}
    )
    with urllib.request.urlopen(f"{filled.prometheus.url}/api/v1/query_exemplars?{asked}", timeout=10) as answer:
        found = [one for series in json.load(answer)["data"] for one in series["exemplars"]]
    ((run, _),) = filled.over_time('squall_run_info{job="squall"}', filled.began, filled.ended)
    assert {one["labels"]["trace_id"] for one in found} == {run["trace_id"]}
    assert len({one["labels"]["span_id"] for one in found}) > 1
    assert max(float(one["value"]) for one in found) > 0.2, "a slow one is among them"
