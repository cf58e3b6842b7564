"""Every client library through a policy: the same faults, the same links, the library's own answers and errors."""

from __future__ import annotations

import asyncio
import http.client
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.adapters.http_rules import NotSent
from squall_resilience.breaker import BreakerSettings
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.client import ClientSettings
from squall_resilience.errors import BreakerOpen, DeadlineExceeded
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.trace import trace_of
from squall_resilience.propagation import carrying
from squall_resilience.retry import Retry, RetrySettings
from squall_resilience.timeout import TimeoutSettings
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from squall_resilience.adapters.policies import PolicyFor
    from tests.resilience.adapters.conftest import Script

QUICK = RetrySettings(attempts=3, base=0.001, cap=0.002)


@dataclass(frozen=True)
class Got:
    """What a caller got."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Library:
    """One client library: how a request is made with it, through policies."""

    name: str
    ask: Callable[..., Got]
    refused: Callable[[], type[Exception]]
    timed_out: Callable[[], type[Exception]]


def of_http_client(
    policies: PolicyFor, method: str, url: str, headers: Mapping[str, str], body: bytes | None, settings: ClientSettings
) -> Got:
    from squall_resilience.adapters.http_client import HttpClient

    with HttpClient(policies, settings) as client:
        answer = client.request(method, url, headers=headers, body=body)
        return Got(answer.status, answer.body)


def of_requests(
    policies: PolicyFor, method: str, url: str, headers: Mapping[str, str], body: bytes | None, settings: ClientSettings
) -> Got:
    from squall_resilience.adapters.requests import session

    with session(policies, settings) as made:
        response = made.request(method, url, headers=dict(headers), data=body)
        return Got(response.status_code, response.content)


def of_httpx(name: str) -> Callable[..., Got]:
    def ask(policies: PolicyFor, method: str, url: str, headers: Any, body: bytes | None, settings: Any) -> Got:
        adapter = pytest.importorskip(f"squall_resilience.adapters.{name}")
        with adapter.client(policies, settings) as client:
            response = client.request(method, url, headers=headers, content=body)
            return Got(response.status_code, response.content)

    return ask


def of_async_httpx(name: str, run: Callable[[Any], Got]) -> Callable[..., Got]:
    def ask(policies: PolicyFor, method: str, url: str, headers: Any, body: bytes | None, settings: Any) -> Got:
        adapter = pytest.importorskip(f"squall_resilience.adapters.{name}")

        async def main() -> Got:
            async with adapter.async_client(policies, settings) as client:
                response = await client.request(method, url, headers=headers, content=body)
                return Got(response.status_code, response.content)

        return run(main)

    return ask


def of_aiohttp(
    policies: PolicyFor, method: str, url: str, headers: Mapping[str, str], body: bytes | None, settings: ClientSettings
) -> Got:
    from squall_resilience.adapters.aiohttp import session

    async def main() -> Got:
        async with (
            session(policies, settings) as made,
            made.request(method, url, headers=headers, data=body) as response,
        ):
            return Got(response.status, await response.read())

    return asyncio.run(main())


def on_trio(main: Any) -> Got:
    got: Got = pytest.importorskip("trio").run(main)
    return got


def from_library(name: str, *path: str) -> Callable[[], type[Exception]]:
    def find() -> type[Exception]:
        found = pytest.importorskip(name)
        for each in path:
            found = getattr(found, each)
        return found  # type: ignore[no-any-return]

    return find


LIBRARIES = [
    Library("http.client", of_http_client, lambda: ConnectionRefusedError, lambda: TimeoutError),
    Library(
        "requests",
        of_requests,
        from_library("requests", "exceptions", "ConnectionError"),
        from_library("requests", "exceptions", "ReadTimeout"),
    ),
    *(
        Library(f"{name}{how}", ask, from_library(name, "ConnectError"), from_library(name, "ReadTimeout"))
        for name in ("httpx", "httpx2")
        for how, ask in (
            ("", of_httpx(name)),
            ("-asyncio", of_async_httpx(name, lambda main: asyncio.run(main()))),
            ("-trio", of_async_httpx(name, on_trio)),
        )
    ),
    Library(
        "aiohttp",
        of_aiohttp,
        from_library("aiohttp", "ClientConnectorError"),
        from_library("aiohttp", "ServerTimeoutError"),
    ),
]


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    return request.param  # type: ignore[no-any-return]


def policy_of(**links: Any) -> Policy:
    return Policy("inventory", PolicySettings(**links), registry=None)


def ask(
    library: Library,
    policies: PolicyFor,
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    settings: ClientSettings | None = None,
) -> Got:
    return library.ask(policies, method, url, headers or {}, body, settings or ClientSettings())


def test_an_answer_comes_through(library: Library, script: Script) -> None:
    assert ask(library, policy_of(), script.url, "POST", body=b"order") == Got(200, b'{"left": 7}')
    assert [(seen.method, seen.path, seen.body) for seen in script.seen] == [("POST", "/stock/a1", b"order")]


def test_an_origin_without_a_policy_is_called_straight(library: Library, script: Script) -> None:
    script.statuses = [503]
    opened = policy_of(breaker=BreakerSettings(forced="open"))
    assert ask(library, {"elsewhere": opened}, script.url).status == 503
    with pytest.raises(BreakerOpen):
        ask(library, {f"127.0.0.1:{script.port}": opened}, script.url)
    with pytest.raises(BreakerOpen):
        ask(library, {"127.0.0.1": opened}, script.url)
    with pytest.raises(BreakerOpen):
        ask(library, lambda origin: opened if origin == f"http://127.0.0.1:{script.port}" else None, script.url)


def test_a_failed_answer_is_asked_for_again(library: Library, script: Script) -> None:
    script.statuses = [503, 500, 200]
    policy = policy_of(retry=QUICK)
    assert ask(library, policy, script.url).status == 200
    assert len(script.seen) == 3
    assert [(trace.origin, trace.stopped_at, trace.reached_caller) for trace in policy.traces] == [
        ("transport", "retry", False)
    ]


def test_what_changes_something_is_sent_once_and_its_answer_is_the_callers(library: Library, script: Script) -> None:
    script.statuses = [503]
    script.body = b"busy"
    assert ask(library, policy_of(retry=QUICK), script.url, "POST", body=b"order") == Got(503, b"busy")
    assert len(script.seen) == 1


def test_an_idempotency_key_makes_it_safe_to_send_again(library: Library, script: Script) -> None:
    script.statuses = [503, 201]
    assert ask(library, policy_of(retry=QUICK), script.url, "POST", {"Idempotency-Key": "7"}, b"order").status == 201
    assert [seen.body for seen in script.seen] == [b"order", b"order"]


def test_who_asks_for_a_longer_wait_than_there_is_is_not_asked_again(library: Library, script: Script) -> None:
    script.statuses, script.headers = [429], {"Retry-After": "3600"}
    assert ask(library, policy_of(retry=QUICK), script.url).status == 429
    assert len(script.seen) == 1


@pytest.mark.parametrize("library", LIBRARIES[:3], ids=lambda library: library.name)
def test_the_wait_that_a_service_asks_for_is_kept(library: Library, script: Script) -> None:
    script.statuses, script.headers = [429, 200], {"Retry-After": "7"}
    waits: list[float] = []
    retry = Retry("inventory", RetrySettings(base=0.001, cap=0.002), sleeps=waits.append, registry=None)
    assert ask(library, Policy("inventory", links=[retry], registry=None), script.url).status == 200
    assert len(waits) == 1
    assert 7 <= waits[0] < 10


def test_failed_answers_open_the_breaker(library: Library, script: Script) -> None:
    script.statuses = [500]
    policy = policy_of(breaker=BreakerSettings(failures_in_a_row=2))
    assert [ask(library, policy, script.url).status for _ in range(2)] == [500, 500]
    with pytest.raises(BreakerOpen) as refusal:
        ask(library, policy, script.url)
    assert len(script.seen) == 2
    assert trace_of(refusal.value).stopped_at == "breaker"  # type: ignore[union-attr]


def test_what_the_client_did_wrong_is_no_failure_of_the_service(library: Library, script: Script) -> None:
    script.statuses = [404]
    policy = policy_of(breaker=BreakerSettings(failures_in_a_row=1), retry=QUICK)
    assert [ask(library, policy, script.url).status for _ in range(3)] == [404] * 3


def test_a_refused_connection_is_the_librarys_own_error_and_is_tried_again(library: Library) -> None:
    policy = policy_of(retry=QUICK)
    with pytest.raises(library.refused()) as refusal:
        ask(library, policy, f"http://127.0.0.1:{free_port()}/", "POST", body=b"order")
    assert isinstance(refusal.value, ConnectionRefusedError)
    trace = trace_of(refusal.value)
    assert trace is not None
    assert (trace.origin, trace.stopped_at, trace.attempts) == ("transport", "retry", 3)


@pytest.mark.parametrize("stalls", ["head", "body"])
def test_a_service_that_hangs_is_left_at_the_time_out(library: Library, script: Script, stalls: str) -> None:
    script.hangs_before = stalls
    policy = policy_of(timeout=TimeoutSettings(0.15), breaker=BreakerSettings(failures_in_a_row=1))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as error:
        ask(library, policy, script.url)
    assert time.monotonic() - began < 3
    assert trace_of(error.value).stopped_at == "timeout"  # type: ignore[union-attr]
    with pytest.raises(BreakerOpen):
        ask(library, policy, script.url)


def test_without_a_time_out_link_the_clients_own_holds(library: Library, script: Script) -> None:
    script.hangs_before = "head"
    began = time.monotonic()
    with pytest.raises(library.timed_out()) as error:
        ask(library, policy_of(), script.url, settings=ClientSettings(read_timeout=0.15))
    assert isinstance(error.value, TimeoutError)
    assert time.monotonic() - began < 3


def test_the_time_that_is_left_and_the_trace_go_along(library: Library, script: Script) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    policy = policy_of(timeout=TimeoutSettings(5))
    with carrying({"Traceparent": parent, "X-Other": "1", "Grpc-Timeout": "2S"}):
        ask(library, policy, script.url)
    headers = script.seen[0].headers
    assert headers["traceparent"] == parent
    assert "x-other" not in headers
    assert 1000 <= int(headers["grpc-timeout"].removesuffix("m")) <= 2000


def test_what_the_caller_says_himself_is_not_written_over(library: Library, script: Script) -> None:
    with carrying({"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        ask(library, policy_of(), script.url, headers={"traceparent": "mine"})
    assert script.seen[0].headers["traceparent"] == "mine"


def test_http_errors_are_still_http(library: Library, script: Script) -> None:
    """A status below 400 and one above are both answers, whatever the chain made of them."""
    script.statuses, script.headers = [502], {"X-From": "proxy"}
    policy = policy_of(timeout=TimeoutSettings(5), breaker=BreakerSettings(), retry=QUICK)
    assert ask(library, policy, script.url).status == 502
    assert len(script.seen) == 3
    assert policy.traces[-1].stopped_at == "retry"


def test_a_links_slot_is_free_once_the_call_has_ended(library: Library, script: Script) -> None:
    policy = policy_of(bulkhead=BulkheadSettings(limit=1, waiting=0))
    for _ in range(3):
        ask(library, policy, script.url)
    samples = {sample.name: sample.value for sample in policy.link("bulkhead").samples()}  # type: ignore[union-attr]
    assert samples["resilience_bulkhead_in_use"] == 0


def test_not_sent_says_so_in_two_languages() -> None:
    assert issubclass(NotSent, TimeoutError)
    assert issubclass(http.client.RemoteDisconnected, ConnectionResetError)
