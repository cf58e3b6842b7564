"""Pools by priority before a WSGI application: a real threaded wsgiref, real clients."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import httpx
import pytest

from squall_resilience import deadline
from squall_resilience.errors import Overloaded
from squall_resilience.propagation import outgoing
from squall_resilience.rate_limiter import RateLimiter, RateLimiterSettings
from squall_resilience.server.pools import PoolSettings, PoolsSettings, PriorityPools
from squall_resilience.server.wsgi import PriorityMiddleware
from tests.resilience.server.http_world import gauge, outcomes, raw_request, until, wsgi_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HIGH = {"X-Priority": "high"}


class Shop:
    """A WSGI application whose handlers stay until they are let go, behind pools of one worker each."""

    def __init__(self, *, sla: float = 30.0, waiting: int = 1, **more: Any) -> None:
        self.open = threading.Event()
        self.seen: list[str] = []
        self.closed = 0
        pools = {name: PoolSettings(1, sla, waiting) for name in ("high", "default")}
        self.pools = PriorityPools("shop", PoolsSettings(pools, shedding=False), registry=None)
        self.app = PriorityMiddleware(self.serve, self.pools, **more)

    def serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.seen.append(path)
        if path == "/fails":
            raise ValueError("of the application")
        if path == "/overloaded":
            raise Overloaded("what it calls is", dependency="elsewhere")
        if path == "/stay":
            self.open.wait(20)
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Parts(self)
        body = f"{deadline.remaining()} {outgoing().get('traceparent')}".encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]


class Parts:
    """A streamed body."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.parts = iter([b"first ", b"last"])

    def __iter__(self) -> Iterator[bytes]:
        yield next(self.parts) + str(deadline.remaining() is not None).encode()
        self.shop.open.wait(20)
        yield next(self.parts)

    def close(self) -> None:
        self.shop.closed += 1


@pytest.fixture
def served() -> Iterator[Callable[[Shop], httpx.Client]]:
    with ExitStack() as stack:

        def serve(shop: Shop, **more: Any) -> httpx.Client:
            port = stack.enter_context(wsgi_server(shop.app, **more))
            stack.callback(shop.open.set)
            return stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))

        yield serve


def port_of(client: httpx.Client) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


def test_a_stuck_default_pool_is_shed_and_the_high_one_is_served(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop(waiting=0)
    client = served(shop)
    with raw_request(port_of(client), "/stay") as holder:
        until(lambda: shop.seen == ["/stay"])
        shed = client.get("/left")
        assert (shed.status_code, shed.headers["retry-after"]) == (503, "30")
        assert client.head("/left").status_code == 503
        assert client.get("/left", headers=HIGH).status_code == 200
        shop.open.set()
        assert holder.recv(100).startswith(b"HTTP/1.0 200")
    until(lambda: outcomes(shop.pools) == {"served": 1, "shed": 2, "late": 0})


def test_who_waits_gets_the_slot_or_is_shed_in_time(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop(sla=0.05)
    client = served(shop)
    with raw_request(port_of(client), "/stay"):
        until(lambda: shop.seen == ["/stay"])
        assert client.get("/left").status_code == 503
        shop.pools.configure(
            PoolsSettings({name: PoolSettings(1, 20, 1) for name in ("high", "default")}, shedding=False)
        )
        with raw_request(port_of(client), "/left") as waits:
            until(lambda: gauge(shop.pools, "waiting") == 1)
            shop.open.set()
            assert waits.recv(100).startswith(b"HTTP/1.0 200")


def test_a_stream_has_its_slot_to_its_end_or_until_it_is_closed(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop(waiting=0)
    client = served(shop)
    with client.stream("GET", "/stream", headers={"Grpc-Timeout": "9S"}) as answer:
        parts = answer.iter_text()
        assert next(parts) == "first True"
        assert client.get("/left").status_code == 503
        shop.open.set()
        assert "".join(parts) == "last"
    until(lambda: (gauge(shop.pools, "busy"), shop.closed) == (0, 1))
    shop.open.clear()
    with client.stream("GET", "/stream") as answer:
        next(answer.iter_text())
    shop.open.set()
    until(lambda: (gauge(shop.pools, "busy"), shop.closed) == (0, 2))
    assert client.get("/left").status_code == 200


@pytest.mark.parametrize("path", ["/fails", "/overloaded"])
def test_what_the_application_raises_is_its_own_and_frees_the_slot(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(waiting=0)
    with wsgi_server(shop.app) as port:
        for _ in range(3):
            until(lambda: gauge(shop.pools, "busy") == 0)
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 500
    assert outcomes(shop.pools)["shed"] == 0
    assert "Traceback" in capsys.readouterr().err


def test_deadline_and_trace_reach_the_application(served: Callable[[Shop], httpx.Client]) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    shop = Shop()
    client = served(shop)
    left, parent = client.get("/left", headers={"Grpc-Timeout": "5S", "traceparent": trace}).text.split()
    assert 0 < float(left) <= 5
    assert parent == trace
    assert client.get("/left").text == "None None"
    assert client.get("/left", headers={"Grpc-Timeout": "0m"}).status_code == 504
    with raw_request(port_of(client), "/stay"):
        until(lambda: gauge(shop.pools, "busy") == 1)
        assert client.get("/left", headers={"Grpc-Timeout": "30m"}).status_code == 504


def test_a_rate_by_key_is_answered_with_429(served: Callable[[Shop], httpx.Client]) -> None:
    limiter = RateLimiter("tenants", RateLimiterSettings(rate=1, per=5.0, burst=1), registry=None)
    client = served(Shop(limiter=limiter, key=lambda environ: environ.get("HTTP_X_TENANT")))
    assert [client.get("/left", headers={"X-Tenant": name}).status_code for name in "abab"] == [200, 200, 429, 429]


def test_it_keeps_the_rules_of_wsgi(served: Callable[..., httpx.Client]) -> None:
    shop = Shop(waiting=0)
    shop.open.set()
    shop.app = validator(PriorityMiddleware(validator(shop.serve), shop.pools))  # type: ignore[assignment]
    client = served(shop)
    assert client.get("/stream").text == "first Falselast"
    assert client.get("/left").status_code == 200
    until(lambda: outcomes(shop.pools)["served"] == 2)
