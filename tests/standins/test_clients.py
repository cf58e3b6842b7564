"""Real clients against stand-ins: their retries, time-outs and fallbacks, counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from squall.standins import StandIn, standin

WaitFor = Callable[[Callable[[], bool]], None]


class PriceClient:
    """A client as a service would have it: a time-out, so many tries, and a price of its own when all of them fail."""

    def __init__(self, url: str, tries: int = 3, timeout: float = 0.3) -> None:
        self.url, self.tries, self.timeout = url, tries, timeout

    def price(self, sku: str) -> int:
        with httpx2.Client(base_url=self.url, timeout=self.timeout) as client:
            for _ in range(self.tries):
                try:
                    answer = client.get(f"/prices/{sku}").raise_for_status()
                    return int(answer.json()["price"])
                except (httpx2.HTTPError, ValueError):
                    continue
        return -1


def prices(*answers: dict[str, Any], calls: int) -> list[dict[str, Any]]:
    return [{"match": {"method": "GET", "path": "/prices/{sku}"}, "answers": list(answers), "calls": calls}]


GOOD = {"body": {"price": 5}}


@pytest.mark.parametrize(
    "failing",
    [
        {"status": 503},
        {"failure": "close"},
        {"failure": "reset"},
        {"failure": "cut", "body": {"price": 5}},
        {"failure": "malformed"},
        {"failure": "hang"},
        {"body": {"price": 5}, "delay": "2s"},
        {"body": {"price": 5}, "drip": {"size": "1B", "every": "2s"}},
        {"body": "{not json"},
    ],
    ids=str,
)
def test_a_client_that_retries_gets_its_answer_after_each_kind_of_failure(failing: dict[str, Any]) -> None:
    with standin(prices({**failing, "times": 2}, GOOD, calls=3)) as api:
        assert PriceClient(api.url).price("a1") == 5


def test_a_client_falls_back_after_its_last_try_and_makes_no_further_call() -> None:
    with standin(prices({"status": 500}, calls=3)) as api:
        assert PriceClient(api.url).price("a1") == -1


def test_a_client_without_retries_is_found_out_by_the_count() -> None:
    with pytest.raises(AssertionError, match="expected at least 3 calls, saw 1"), standin(prices(GOOD, calls=3)) as api:
        PriceClient(api.url, tries=1).price("a1")


def test_a_client_that_retries_too_often_is_found_out() -> None:
    with (
        pytest.raises(AssertionError, match=r"unexpected call 3: .* has had its 2 calls"),
        standin(prices({"status": 500}, calls=2)) as api,
    ):
        PriceClient(api.url).price("a1")


def test_a_time_out_is_kept_and_the_stand_in_sees_the_client_leave(wait_for: WaitFor) -> None:
    with standin(prices({"failure": "hang"}, GOOD, calls=2)) as api:
        began = time.monotonic()
        assert PriceClient(api.url, timeout=0.3).price("a1") == 5
        assert 0.3 <= time.monotonic() - began < 10
        wait_for(lambda: [call.gave_up for call in api.calls] == [True, False])


def session(retries: int) -> requests.Session:
    found = requests.Session()
    found.mount("http://", HTTPAdapter(max_retries=Retry(retries, backoff_factor=0, status_forcelist=[503])))
    return found


def test_requests_retries_what_it_is_told_to() -> None:
    first = {"status": 503, "headers": {"Retry-After": 0}, "times": 2}
    with standin(prices(first, GOOD, calls=3)) as api, session(2) as client:
        assert client.get(f"{api.url}/prices/a1", timeout=5).json() == {"price": 5}


def test_requests_gives_up_after_its_retries() -> None:
    with (
        standin(prices({"failure": "reset"}, calls=3)) as api,
        session(2) as client,
        pytest.raises(requests.ConnectionError),
    ):
        client.get(f"{api.url}/prices/a1", timeout=5)


def test_urllib3_does_not_repeat_a_post_that_may_have_been_done() -> None:
    answers = [{"match": {"method": "POST"}, "answer": {"failure": "hang"}, "calls": 1}]
    with standin(answers) as api, urllib3.PoolManager(retries=Retry(3, backoff_factor=0), timeout=0.3) as pool:
        with pytest.raises(urllib3.exceptions.HTTPError):
            pool.request("POST", f"{api.url}/orders", body=b"{}")
        assert len(api.calls) == 1


def test_two_dependencies_stand_in_side_by_side() -> None:
    def buy(stock: StandIn, payment: StandIn) -> str:
        if httpx2.post(f"{payment.url}/payments", json={"sku": "a1"}).status_code == 402:
            return httpx2.delete(f"{stock.url}/reservations/1").text
        return "paid"

    undo = {"match": {"method": "DELETE", "path": "/reservations/{id}"}, "answer": {"body": "undone"}, "calls": 1}
    declined = {"match": {"method": "POST", "json": {"sku": "a1"}}, "answer": {"status": 402}, "calls": 1}
    with standin([undo]) as stock, standin([declined]) as payment:
        assert buy(stock, payment) == "undone"
