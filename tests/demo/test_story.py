"""The story of `squall demo`: each act's settings are taken by the running shop, and an act says what came of it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.cli.story import ACTS, Played, what_did_not_hold
from squall.cli.story.numbers import Numbers, Orders
from squall.errors import SquallError
from squall.events import VerdictReached, decode
from squall.shop import SERVICES, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as running:
        yield running


def order(shop: Shop, **headers: str) -> int:
    connection = http.client.HTTPConnection(shop.urls["gateway"].removeprefix("http://"), timeout=10)
    connection.request("POST", "/orders", json.dumps({"sku": "a1"}), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def metrics(shop: Shop, service: str) -> str:
    with urllib.request.urlopen(f"{shop.urls[service]}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_running_shop_takes_each_act_s_settings_and_sells_on(shop: Shop, act: object) -> None:
    before = shop.pids
    shop.apply(act.settings)  # type: ignore[attr-defined]
    assert order(shop) == 201
    assert order(shop, **{"X-Priority": "high"}) == 201
    assert shop.pids == before
    guarded = 'resilience_breaker_state{dependency="inventory",state="closed"} 1' in metrics(shop, "payment")
    assert guarded == act.guarded  # type: ignore[attr-defined]


def test_settings_that_a_service_cannot_take_are_said_and_not_taken(shop: Shop) -> None:
    wrong = {"shop": {"step": "wrong"}, "payment": {"workers": "many"}}
    with pytest.raises(SquallError, match="shop-payment did not take the settings of step 'wrong'"):
        shop.apply(wrong)
    assert 'resilience_settings_refused_total{dependency="payment"} 1' in metrics(shop, "payment")
    assert order(shop) == 201


def test_every_service_shows_its_requests_and_its_pools(shop: Shop) -> None:
    shop.apply(ACTS[-1].settings)
    assert order(shop, **{"X-Priority": "high"}) == 201
    for service in SERVICES:
        text = metrics(shop, service)
        assert re.search(
            rf'http_server_request_duration_seconds_count{{service="{service}",.*status="20[012]"}} \d', text
        )
        assert f'resilience_pool_workers{{dependency="{service}",pool="default"}}' in text
    assert 'resilience_pool_requests_total{dependency="payment",pool="high",outcome="served"}' in metrics(
        shop, "payment"
    )


@pytest.mark.slow
def test_an_act_is_played_and_told() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "squall", "demo", "--act", "limits", "--stall", "8s"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert played.returncode == 0, played.stderr
    assert re.search(r"\+ limits and priorities +\d", played.stdout)
    assert re.search(r"of \d+ orders of high priority \d+ were saved", played.stdout)
    assert "The books add up" in played.stdout
    (report,) = re.findall(r"\S+/report\.html", played.stdout)
    events = [decode(line).event for line in Path(report).with_name("events.jsonl").read_text().splitlines()]
    (verdict,) = [event for event in events if isinstance(event, VerdictReached)]
    of_patterns = {
        one.expectation.partition(":")[2].strip(): one.outcome
        for one in verdict.findings
        if "of inventory" in one.expectation
    }
    assert of_patterns == {"opens within 5s": "met", "closes within 20s": "met"}
    (fallbacks,) = [one for one in verdict.findings if one.expectation.startswith("fallbacks for inventory")]
    assert fallbacks.outcome == "met"
    assert fallbacks.numbers["during"]["n"] > 100


def _played(name: str, verdict: str, failed: float, high: float, p95_s: float, **ran_out: float) -> Played:
    class Outcome:
        reason = ""

    outcome = Outcome()
    outcome.verdict = verdict  # type: ignore[attr-defined]
    numbers = Numbers(healed_s=1.0)
    numbers.phases["before"] = numbers.phases["after"] = Orders(100, 0, [10**6] * 100)
    numbers.phases["fault"] = Orders(1000, round(1000 * failed), [round(p95_s * 1e9)] * 1000)
    numbers.high = Orders(100, round(100 * high), [])
    act = next(act for act in ACTS if act.name == name)
    return Played(act, outcome, numbers, ran_out, dict.fromkeys(ran_out, 16))  # type: ignore[arg-type]


def _story() -> dict[str, Played]:
    return {
        "bare": _played("bare", "failed", 1.0, 1.0, 2.0, payment=0.6, order=0.9, gateway=1.5),
        "time-outs": _played("time-outs", "failed", 1.0, 1.0, 0.31),
        "breaker": _played("breaker", "failed", 0.7, 0.7, 2.0),
        "limits": _played("limits", "passed", 0.24, 0.0, 0.9),
    }


def test_a_story_that_held_has_nothing_to_complain_of() -> None:
    assert what_did_not_hold(list(_story().values()), []) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (_played("bare", "failed", 0.8, 1.0, 2.0, payment=0.6, gateway=1.5), "not at least 90%"),
        (_played("bare", "passed", 1.0, 1.0, 2.0, payment=0.6, gateway=1.5), "the verdict is passed"),
        (_played("bare", "failed", 1.0, 1.0, 2.0, payment=1.6, gateway=0.5), "did not run out before"),
        (_played("time-outs", "failed", 1.0, 1.0, 1.9), "did not stay answering"),
        (_played("breaker", "failed", 1.0, 0.7, 2.0), "saved no order"),
        (_played("limits", "passed", 0.6, 0.0, 0.9), "not at most 40%"),
        (_played("limits", "passed", 0.2, 0.1, 0.9), "high priority were lost"),
        (_played("limits", "failed", 0.2, 0.0, 0.9), "the verdict is failed"),
    ],
)
def test_what_is_not_as_told_is_said(other: Played, said: str) -> None:
    story = {**_story(), other.act.name: other}
    found = what_did_not_hold(list(story.values()), [])
    assert len(found) == 1
    assert said in found[0]
