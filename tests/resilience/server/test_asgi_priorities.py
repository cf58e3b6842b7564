"""Pools by priority before an ASGI application: a real Starlette behind a real uvicorn, real clients."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from squall_resilience import deadline
from squall_resilience.propagation import outgoing
from squall_resilience.rate_limiter import RateLimiter, RateLimiterSettings
from squall_resilience.server.asgi import PriorityMiddleware
from squall_resilience.server.pools import PoolSettings, PoolsSettings, PriorityPools
from tests.resilience.server.http_world import asgi_server, gauge, outcomes, raw_request, until
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

HIGH = {"X-Priority": "high"}


class Shop:
    """An application whose handlers stay until they are let go, behind pools of one worker each."""

    def __init__(self, *, sla: float = 30.0, waiting: int = 1, **more: Any) -> None:
        self.open = threading.Event()
        self.seen: list[str] = []
        self.lifespan: list[str] = []
        self.pools = PriorityPools("shop", pools_of(sla, waiting), registry=None)
        routes = [
            Route("/stay/{name}", self.stay, methods=["GET", "POST"]),
            Route("/stream", self.stream),
            Route("/left", self.left),
            Route("/fails", self.fails),
            WebSocketRoute("/socket", self.socket),
        ]
        self.app = PriorityMiddleware(Starlette(routes=routes, lifespan=self.live), self.pools, **more)

    @asynccontextmanager
    async def live(self, _: Starlette) -> AsyncIterator[None]:
        self.lifespan.append("begins")
        yield
        self.lifespan.append("ends")

    async def stay(self, request: Request) -> PlainTextResponse:
        self.seen.append(request.path_params["name"])
        body = await request.body()
        await asyncio.to_thread(self.open.wait, 20)
        return PlainTextResponse(f"{len(body)} bytes")

    async def stream(self, _: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "first "
            await asyncio.to_thread(self.open.wait, 20)
            yield "last"

        return StreamingResponse(parts())

    async def left(self, _: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{deadline.remaining()} {outgoing().get('traceparent')}")

    async def fails(self, _: Request) -> PlainTextResponse:
        raise ValueError("of the application")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()


def pools_of(sla: float, waiting: int, workers: int = 1) -> PoolsSettings:
    return PoolsSettings({name: PoolSettings(workers, sla, waiting) for name in ("high", "default")}, shedding=False)


@pytest.fixture
def served() -> Iterator[Callable[[Shop], httpx.Client]]:
    with ExitStack() as stack:

        def serve(shop: Shop) -> httpx.Client:
            port = stack.enter_context(asgi_server(shop.app))
            stack.callback(shop.open.set)
            return stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))

        yield serve


def port_of(client: httpx.Client) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


def test_a_stuck_default_pool_is_shed_and_the_high_one_is_served(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop()
    client = served(shop)
    holders = [raw_request(port_of(client), f"/stay/{number}") for number in range(2)]
    until(lambda: (gauge(shop.pools, "busy"), gauge(shop.pools, "waiting")) == (1, 1))
    shed = client.get("/left")
    assert (shed.status_code, shed.headers["retry-after"]) == (503, "30")
    assert "too busy" in shed.text
    assert client.get("/left", headers=HIGH).status_code == 200
    assert client.head("/left", headers={"X-Priority": "unheard of"}).status_code == 503
    shop.open.set()
    assert [holder.recv(100)[:15] for holder in holders] == [b"HTTP/1.1 200 OK"] * 2
    for holder in holders:
        holder.close()
    until(lambda: outcomes(shop.pools) == {"served": 2, "shed": 2, "late": 0})


def test_who_waits_too_long_is_told_so_while_the_workers_are_still_stuck(
    served: Callable[[Shop], httpx.Client],
) -> None:
    shop = Shop(sla=0.05)
    client = served(shop)
    with raw_request(port_of(client), "/stay/first"):
        until(lambda: shop.seen == ["first"])
        assert client.get("/stay/second").status_code == 503
        assert shop.seen == ["first"]


def test_a_client_that_goes_away_while_it_waits_gives_its_place_back(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop()
    client = served(shop)
    holder = raw_request(port_of(client), "/stay/first")
    until(lambda: shop.seen == ["first"])
    for number in range(3):
        waits = raw_request(port_of(client), f"/stay/gone-{number}", body=b"x" * 10)
        until(lambda: gauge(shop.pools, "waiting") == 1)
        waits.close()
        until(lambda: gauge(shop.pools, "waiting") == 0)
    shop.open.set()
    assert holder.recv(100).startswith(b"HTTP/1.1 200")
    holder.close()
    until(lambda: gauge(shop.pools, "busy") == 0)
    assert client.get("/stay/after").status_code == 200
    assert shop.seen == ["first", "after"]
    until(lambda: outcomes(shop.pools) == {"served": 2, "shed": 0, "late": 0})


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_body_that_came_while_waiting_reaches_the_application_whole(
    served: Callable[[Shop], httpx.Client], size: int
) -> None:
    shop = Shop()
    client = served(shop)
    with raw_request(port_of(client), "/stay/first"):
        until(lambda: shop.seen == ["first"])
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(client.post("/stay/second", content=b"x" * size)))
        thread.start()
        until(lambda: gauge(shop.pools, "waiting") == 1)
        shop.open.set()
        thread.join(20)
    assert [(each.status_code, each.text) for each in answers] == [(200, f"{size} bytes")]


def test_a_stream_has_its_slot_to_its_end_and_a_client_that_leaves_it_frees_it(
    served: Callable[[Shop], httpx.Client],
) -> None:
    shop = Shop(waiting=0)
    client = served(shop)
    with client.stream("GET", "/stream") as answer:
        parts = answer.iter_text()
        assert next(parts) == "first "
        assert client.get("/left").status_code == 503
        shop.open.set()
        assert "".join(parts) == "last"
    until(lambda: gauge(shop.pools, "busy") == 0)
    shop.open.clear()
    with client.stream("GET", "/stream") as answer:
        next(answer.iter_text())
    shop.open.set()
    until(lambda: gauge(shop.pools, "busy") == 0)
    assert client.get("/left").status_code == 200


def test_a_handler_that_raises_frees_its_slot(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop(waiting=0)
    client = served(shop)
    for _ in range(3):
        until(lambda: gauge(shop.pools, "busy") == 0)
        assert client.get("/fails", headers={"Connection": "close"}).status_code == 500
    until(lambda: gauge(shop.pools, "busy") == 0)


class TestDeadlines:
    """What the request says about its own time."""

    def test_an_expired_request_is_answered_at_once(self, served: Callable[[Shop], httpx.Client]) -> None:
        shop = Shop()
        client = served(shop)
        assert client.get("/left", headers={"Grpc-Timeout": "0m"}).status_code == 504
        assert outcomes(shop.pools) == {"served": 0, "shed": 0, "late": 0}

    def test_one_that_expires_while_it_waits_is_too_late(self, served: Callable[[Shop], httpx.Client]) -> None:
        shop = Shop()
        client = served(shop)
        with raw_request(port_of(client), "/stay/first"):
            until(lambda: shop.seen == ["first"])
            assert client.get("/left", headers={"Grpc-Timeout": "30m"}).status_code == 504

    def test_the_application_knows_what_is_left_and_the_trace(self, served: Callable[[Shop], httpx.Client]) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        client = served(Shop())
        left, parent = client.get("/left", headers={"Grpc-Timeout": "5S", "traceparent": trace}).text.split()
        assert 0 < float(left) <= 5
        assert parent == trace
        assert client.get("/left").text == "None None"


def test_a_rate_by_key_is_answered_with_429_and_takes_no_slot(served: Callable[[Shop], httpx.Client]) -> None:
    limiter = RateLimiter("tenants", RateLimiterSettings(rate=1, per=5.0, burst=1), registry=None)
    shop = Shop(limiter=limiter, key=lambda scope: dict(scope["headers"]).get(b"x-tenant"))
    client = served(shop)
    assert [client.get("/left", headers={"X-Tenant": name}).status_code for name in "abab"] == [200, 200, 429, 429]
    refused = client.get("/left", headers={"X-Tenant": "a"})
    assert int(refused.headers["retry-after"]) in {4, 5}
    until(lambda: outcomes(shop.pools)["served"] == 2)


def test_a_priority_can_come_from_elsewhere(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop(priority=lambda scope: "high" if scope["path"] == "/left" else None)
    client = served(shop)
    assert client.get("/left").status_code == 200
    until(lambda: outcomes(shop.pools, "high")["served"] == 1)


def test_the_lifespan_passes(served: Callable[[Shop], httpx.Client]) -> None:
    shop = Shop()
    with asgi_server(shop.app):
        assert shop.lifespan == ["begins"]
    assert shop.lifespan == ["begins", "ends"]
    assert callable(served)


def test_web_sockets_pass_though_every_worker_is_busy() -> None:
    shop, sent = Shop(waiting=0), []
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
    with shop.pools.place():
        asyncio.run(shop.app(scope, receive, send))  # type: ignore[arg-type]
    assert [each["type"] for each in sent] == ["websocket.accept", "websocket.send", "websocket.close"]


class Direct:
    """An application called as a server would, on either library."""

    def __init__(self, world: World, *, waiting: int = 1) -> None:
        self.world, self.calls, self.sent = world, 0, []
        self.pools = PriorityPools("direct", pools_of(30.0, waiting), clock=world.clock, registry=None)
        self.middleware = PriorityMiddleware(self.app, self.pools)

    async def app(self, scope: Any, _: Any, send: Any) -> None:
        self.calls += 1
        await self.world.sleep(scope["seconds"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def request(self, seconds: float, gone_after: float | None = None) -> None:
        asked = 0

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked == 1:
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.world.sleep(1_000 if gone_after is None else gone_after)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "seconds": seconds}
        await self.middleware(scope, receive, send)


async def beside(world: World, first: Any, second: Any) -> None:
    if world.library == "asyncio":
        task = asyncio.create_task(first())
        await asyncio.sleep(0)
        await second()
        await task
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            await second()


class TestBothLibraries:
    """What only the library's own tasks can show, on asyncio and trio."""

    @both
    def test_a_cancelled_request_gives_its_slot_back_once(self, world: World) -> None:
        async def main() -> None:
            direct = Direct(world)
            for _ in range(3):
                assert await world.cancelled_after(1, lambda: direct.request(9))
                assert (gauge(direct.pools, "busy"), gauge(direct.pools, "waiting")) == (0, 0)
            assert outcomes(direct.pools) == {"served": 0, "shed": 0, "late": 0}

        world.run(main)

    @both
    def test_a_request_that_is_cancelled_while_it_waits_gives_its_place_back_once(self, world: World) -> None:
        async def main() -> None:
            direct = Direct(world)

            async def second() -> None:
                ended = await world.cancelled_after(1, lambda: direct.request(9))
                assert ended or world.library == "trio"  # there it ends as a group of what its tasks ended with
                assert world.clock() == pytest.approx(1)
                assert (gauge(direct.pools, "busy"), gauge(direct.pools, "waiting")) == (1, 0)

            await beside(world, lambda: direct.request(5), second)
            assert direct.calls == 1
            assert gauge(direct.pools, "busy") == 0

        world.run(main)

    @both
    def test_a_client_that_goes_away_while_it_waits_is_answered_nothing(self, world: World) -> None:
        async def main() -> None:
            direct = Direct(world)
            await beside(world, lambda: direct.request(5), lambda: direct.request(0, gone_after=1))
            assert direct.calls == 1
            assert len(direct.sent) == 1
            assert gauge(direct.pools, "busy") == 0

        world.run(main)

    @both
    def test_who_waits_gets_the_slot_when_it_is_free(self, world: World) -> None:
        async def main() -> None:
            direct = Direct(world)
            await beside(world, lambda: direct.request(5), lambda: direct.request(0))
            assert direct.calls == 2
            assert world.clock() == pytest.approx(5)
            assert outcomes(direct.pools) == {"served": 2, "shed": 0, "late": 0}

        world.run(main)

    @both
    def test_who_waits_too_long_is_shed(self, world: World) -> None:
        async def main() -> None:
            direct = Direct(world)
            await beside(world, lambda: direct.request(50), lambda: direct.request(0))
            assert [each.get("status") for each in direct.sent] == [503, None, 200]
            assert outcomes(direct.pools) == {"served": 0, "shed": 1, "late": 1}

        world.run(main)
