"""Each query of each board finds something, and moves in a fault as its title says."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.queries import Query, board_queries, boards

if TYPE_CHECKING:
    from tests.deploy.conftest import Filled, Series

UP, DOWN, STEP, NEW, THERE = "up", "down", "step", "new", "there"
"""Higher in the fault than ever before it; lower; another value afterwards; a series that there was not; simply there.

A queue that empties between two scrapes is only there: its length at those moments is a matter of chance."""

MOVES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "latency-and-errors.json": {
        "Faults that are on": UP, "Error rate": UP, "p95": UP, "Last configuration change": STEP, "Latency": UP,
        "Faults": UP, "Percentiles of latency": UP, "Requests by status": NEW, "Errors that the probes met": UP,
        "Latency that the probes met": UP, "What the faults hit": UP, "Chaos from inside the services": THERE,
        "annotation: Faults": UP, "annotation: Configuration changes": STEP,
    },
    "resilience-health.json": {
        "Breakers that are open": UP, "Answered from elsewhere": UP, "Retry amplification": UP,
        "Last configuration change": STEP, "State of the breakers": UP, "Breakers: how often they open": UP,
        "Breakers: calls cut off": UP, "Breakers: error rate": UP, "Breakers: p95": UP, "Fallbacks": UP, "Time-outs": UP,
        "Retries given up": UP, "Limiter rejections": UP, "Bulkhead rejections": UP, "Bulkhead use": UP,
        "Adaptive limits": (DOWN, THERE), "Pool use": UP, "Requests that wait for a worker": THERE, "Shedding": UP,
        "Where faults stop": UP, "Hedges": UP, "Groups": UP,
        "Generations of the settings": STEP, "annotation: Faults": UP, "annotation: Configuration changes": STEP,
    },
}  # fmt: skip
QUERIES = board_queries()


def highest(series: list[Series]) -> float:
    """The highest value of any series; -1 where there is none."""
    return max((value for _, values in series for _, value in values), default=-1.0)


def latest(series: list[Series]) -> set[tuple[str, float]]:
    """The last value of each series."""
    return {(json.dumps(labels, sort_keys=True), values[-1][1]) for labels, values in series}


def lowest(series: list[Series]) -> float:
    """The lowest value of any series."""
    return min(value for _, values in series for _, value in values)


def slower_than(query: Query, bound: str) -> Query:
    """The requests that a heat map shows above a bound: its buckets are added up from below."""
    whole = query.expression.replace("sum by (le)", "sum")
    of = {le: whole.replace('service=~"$service"', f'service=~"$service",le="{le}"') for le in (bound, "+Inf")}
    return Query(query.board, query.title, query.number, f"{of['+Inf']} - {of[bound]}")


def test_every_query_says_how_it_moves() -> None:
    assert {name: {one.title for one in QUERIES if one.board == name} for name in MOVES} == {
        name: set(moves) for name, moves in MOVES.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES, ids=[f"{one.board}: {one.title} {one.number}" for one in QUERIES])
def test_a_query_finds_something_and_moves(query: Query, filled: Filled) -> None:
    moves = MOVES[query.board][query.title]
    move = moves if isinstance(moves, str) else moves[query.number]
    if query.title == "Latency":
        assert filled.during(query.scaled)
        query = slower_than(query, "0.2")
    before, during = filled.before(query.scaled), filled.during(query.scaled)
    assert during, "it finds nothing while the fault is on"
    assert any(values for _, values in during), "it finds nothing but gaps"
    if move == UP:
        assert highest(during) > max(highest(before) * 1.2, 0), (before, during)
    elif move == DOWN:
        assert lowest(during) < lowest(before), (before, during)
    elif move == NEW:
        assert len(during) > len(before), (before, during)
    elif move == STEP:
        assert latest(during) != latest(before), (before, during)


AT_THE_SHOP = {
    "Latency": UP, "Percentiles of latency": UP, "p95": UP, "Requests by status": THERE, "Errors that the probes met": THERE,
    "Breakers that are open": UP, "State of the breakers": UP, "Breakers: how often they open": UP,
    "Breakers: calls cut off": UP, "Answered from elsewhere": UP, "Fallbacks": UP, "Time-outs": UP, "Pool use": UP,
    "Where faults stop": UP, "Last configuration change": THERE,
}  # fmt: skip
"""What of it the demonstration's shop shows, by its own settings of the act with breaker and fallback."""


@pytest.mark.slow
@pytest.mark.parametrize("title", AT_THE_SHOP)
def test_the_shop_moves_it_too(title: str, filled: Filled) -> None:
    for query in (one for one in QUERIES if one.title == title):
        asked = slower_than(query, "0.2") if title == "Latency" else query
        expression = asked.chosen("gateway|payment|inventory")
        during = filled.during(expression)
        assert during
        if AT_THE_SHOP[title] == UP:
            assert highest(during) > max(highest(filled.before(expression)) * 1.2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVES)
def test_the_values_of_variables_are_found(name: str, filled: Filled) -> None:
    for one in boards()[name]["templating"]["list"]:
        if one["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", one["definition"])
        assert found is not None
        asked = urllib.parse.urlencode({"match[]": found[1]})
        address = f"{filled.prometheus.url}/api/v1/label/{found[2]}/values?{asked}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            values = set(json.load(answer)["data"])
        assert {"service": {"order"}, "dependency": {"stock", "order"}}[found[2]] <= values


@pytest.mark.slow
@pytest.mark.parametrize(("service", "run"), [('job="order"', "squall"), ('job="shop"', "squall-at-the-shop")])
def test_a_service_has_exemplars_of_the_runs_trace(service: str, run: str, filled: Filled) -> None:
    asked = urllib.parse.urlencode({
        "query": f"http_server_request_duration_seconds_bucket{{{service}}}", "start": filled.began, "end": filled.ended,
    })  # fmt: skip
    with urllib.request.urlopen(f"{filled.prometheus.url}/api/v1/query_exemplars?{asked}", timeout=10) as answer:
        found = json.load(answer)["data"]
    traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
    (told,) = {
        labels["trace_id"]
        for labels, _ in filled.over_time(f'squall_run_info{{job="{run}"}}', filled.began, filled.ended)
    }
    assert traces == {told}, "what the load asked for leads from the service's histogram to the run's trace"


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(name, panel) for name, board in boards().items() for panel in board["panels"]]


@pytest.mark.parametrize(("name", "panel"), panels(), ids=[f"{name}: {panel['title']}" for name, panel in panels()])
def test_a_panel_is_as_grafana_takes_it(name: str, panel: dict[str, Any]) -> None:
    assert panel["type"] in {"heatmap", "timeseries", "state-timeline", "stat"}, name
    assert panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["instant"] != target["range"]
        assert (target.get("format") == "heatmap") == (panel["type"] == "heatmap")
    place = panel["gridPos"]
    assert 0 <= place["x"] <= 24 - place["w"]


@pytest.mark.parametrize("name", MOVES)
def test_a_board_is_whole(name: str) -> None:
    board = boards()[name]
    assert board["schemaVersion"] == 42
    assert "id" not in board, "an id is the database's"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "two panels in one place"
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(board))) - {"__rate_interval", "__all"}
    assert used == {one["name"] for one in board["templating"]["list"]}


def test_uids_differ() -> None:
    uids = [board["uid"] for board in boards().values()]
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch(r"[a-z-]{1,40}", uid) for uid in uids)
