"""What stands around a library: servers, clients, stores."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import interlock
import interlock.integrations.httpx
import interlock.integrations.otel
import interlock.integrations.redis
import limits
import limits.aio.storage
import limits.aio.strategies
import purgatory
import purgatory.domain.model
import pybreaker
import pyresilience
import pyresilience.contrib.fastapi
import pyresilience.contrib.otel
import pyresilience.contrib.prometheus
import redis
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from squall_resilience import (
    BreakerSettings,
    CircuitBreaker,
    Policy,
)
from squall_resilience.adapters.httpx import ResilientTransport
from squall_resilience.chaos.asgi import ChaosMiddleware
from squall_resilience.chaos.settings import ChaosSettings
from squall_resilience.server.asgi import PriorityMiddleware
from squall_resilience.server.pools import PriorityPools
from squall_resilience.server.settings import PoolSettings, PoolsSettings
from tests import servers
from tests.rivals.breakers import MAKERS, Boom
from tests.rivals.surface import public_names
from tests.rivals.verdicts import Row, Verdict, each, partly, said

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ROWS"]

NO_DATA = MetricsData([])


def opentelemetry(library: str) -> Verdict:
    """A breaker that opens is seen in the metrics or in the span under way."""
    if library == "interlock-cb":
        reader = InMemoryMetricReader()
        meter = MeterProvider([reader]).get_meter("rival")
        MAKERS[library](3, listener=interlock.integrations.otel.OTelEventListener(meter)).fails(4)
        return said("rival" in (reader.get_metrics_data() or NO_DATA).to_json())
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    face = MAKERS[library](3, listeners=[pyresilience.contrib.otel.OpenTelemetryListener()])
    with provider.get_tracer("rival").start_as_current_span("request"):
        face.fails(4)
    (span,) = spans.get_finished_spans()
    return said(any("circuit" in event.name for event in span.events))


def middleware(library: str) -> Verdict:
    """An application behind it answers."""
    if library == "pyresilience":
        app = pyresilience.contrib.fastapi.ResilientMiddleware(_hello)
    elif library == "squall-resilience":
        app = PriorityMiddleware(_hello, PriorityPools("rival", PoolsSettings(), registry=None))
    else:
        assert "integrations.fastapi" in public_names("interlock"), "it has gone"
        return partly("for FastAPI and Litestar, which are not installed here: seen by name only")
    return said(asyncio.run(_asgi(app)) == 200)


async def _asgi(app: Any, headers: list[tuple[bytes, bytes]] | None = None) -> int:
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers or [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


async def _hello(_scope: Any, _receive: Any, send: Any) -> None:
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def priority_pools() -> Verdict:
    """Ten requests at once without a priority: most are turned away. One with high priority: served all the same."""
    tiny = {"default": PoolSettings(workers=1, waiting=0), "high": PoolSettings(workers=1, waiting=0)}
    app = PriorityMiddleware(_hello, PriorityPools("rival", PoolsSettings(tiny), registry=None))

    async def run() -> list[int]:
        others = [_asgi(app) for _ in range(10)]
        return await asyncio.gather(*others, _asgi(app, [(b"x-priority", b"high")]))

    *low, high = asyncio.run(run())
    return said(high == 200 and low.count(200) == 1 and set(low) <= {200, 429, 503})


def chaos() -> Verdict:
    settings = ChaosSettings(
        enabled=True,
        service="rival",
        until=datetime.now(UTC) + timedelta(minutes=5),
        require_header=False,
        sample=1.0,
        abort_status=503,
        abort_share=1.0,
    )
    return said(asyncio.run(_asgi(ChaosMiddleware(_hello, settings))) == 503)


def http_client(library: str) -> Verdict:
    """Three answers 503 of a host; the fourth request is not sent."""
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(503)

    inner = httpx.MockTransport(answer)
    if library == "squall-resilience":
        breaker = CircuitBreaker("rival", BreakerSettings(failures_in_a_row=3), registry=None)
        transport: httpx.BaseTransport = ResilientTransport(Policy("rival", links=[breaker], registry=None), inner)
    else:
        config = interlock.Config(window_size=3, minimum_number_of_calls=3)
        transport = interlock.integrations.httpx.CircuitBreakerTransport(inner, config=config)
    with httpx.Client(transport=transport) as client:
        for _ in range(6):
            with contextlib.suppress(Exception):
                client.get("http://rival/")
    return said(len(sent) == 3)


def shared_state(library: str) -> Verdict:
    """What one process has seen, another one goes by: two of them on one Redis."""
    with tempfile.TemporaryDirectory() as folder, servers.redis(Path(folder)) as server:
        client = redis.Redis(server.host, server.port)
        try:
            url = f"redis://{server.host}:{server.port}"
            shares = _SHARED[library](client, url)
            if library == "purgatory" and shares and not _purgatory_blocking(url):
                return partly("its blocking store fails: it is made with an asynchronous client")
            return said(shares)
        finally:
            client.close()


def _shared_pybreaker(client: Any, _: str) -> bool:
    first, second = (
        MAKERS["pybreaker"](3, state_storage=pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client))
        for _ in "12"
    )
    first.it.reset_timeout = second.it.reset_timeout = 60
    first.fails(3)
    return not second.admits()


def _shared_purgatory(_: Any, url: str) -> bool:
    async def run() -> bool:
        first, second = (
            purgatory.AsyncCircuitBreakerFactory(3, 60.0, uow=purgatory.AsyncRedisUnitOfWork(url)) for _ in "12"
        )
        await first.initialize()
        await second.initialize()
        for _ in range(3):
            with contextlib.suppress(Boom):
                async with await first.get_breaker("rival"):
                    raise Boom
        try:
            async with await second.get_breaker("rival"):
                return False
        except purgatory.domain.model.OpenedState:
            return True

    return asyncio.run(run())


def _purgatory_blocking(url: str) -> bool:
    maker = purgatory.SyncCircuitBreakerFactory(3, 60.0, uow=purgatory.SyncRedisUnitOfWork(url))
    try:
        maker.get_breaker("rival")
    except TypeError:
        return False
    return True


def _shared_limits(_: Any, url: str) -> bool:
    one, other = (limits.strategies.FixedWindowRateLimiter(limits.storage.storage_from_string(url)) for _ in range(2))
    return one.hit(limits.parse("1/day"), "key") and not other.hit(limits.parse("1/day"), "key")


def _shared_interlock(client: Any, _: str) -> bool:
    config = {"wait_duration_in_open": 60.0}
    first, second = (
        MAKERS["interlock-cb"](
            3, config=config, storage=interlock.integrations.redis.RedisStorage(client, poll_interval=0.02)
        )
        for _ in "12"
    )
    second.admits()
    first.fails(3)
    until = time.monotonic() + 5
    while refused := second.admits():
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    for each_one in (first, second):
        each_one.it.close()
    return not refused


_SHARED: dict[str, Callable[[Any, str], bool]] = {
    "pybreaker": _shared_pybreaker,
    "purgatory": _shared_purgatory,
    "limits": _shared_limits,
    "interlock-cb": _shared_interlock,
}

ROWS = [
    Row(
        "OpenTelemetry: metrics or span events of the patterns",
        each(opentelemetry, "interlock-cb", "pyresilience"),
        ("otel", "opentelemetry"),
    ),
    Row(
        "middleware for server applications",
        each(middleware, "squall-resilience", "pyresilience", "interlock-cb"),
        ("asgi", "wsgi", "middleware", "fastapi", "flask", "django"),
    ),
    Row(
        "requests by priority, each with its own pool (ASGI, WSGI)",
        {"squall-resilience": priority_pools},
        ("priority",),
    ),
    Row("chaos middleware", {"squall-resilience": chaos}, ("chaos", "faultinject", "injectdelay")),
    Row("a transport for httpx", each(http_client, "squall-resilience", "interlock-cb"), ("httpx",)),
    Row("state shared between processes (Redis)", each(shared_state, *_SHARED), ("redis", "memcached")),
]
