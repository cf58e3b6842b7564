"""A service with everything between it and its dependency, `python order_service.py STOCK_URL SETTINGS_FILE`; says its port.

GET /orders asks STOCK_URL through a whole policy; GET /metrics are its numbers. Settings are sized so that a stock that is
slow for a while makes everything move that a board shows.
"""

from __future__ import annotations

import itertools
import sys
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from squall_resilience.adapters.http_client import HttpClient
from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveSettings
from squall_resilience.breaker import BreakerSettings
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.chaos import ChaosSettings
from squall_resilience.chaos.wsgi import ChaosMiddleware
from squall_resilience.errors import Overloaded, Rejected
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.group import Group, GroupSettings
from squall_resilience.hedge import Hedge, HedgeSettings
from squall_resilience.metrics import registry
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.watching import watch
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import RetrySettings
from squall_resilience.server.durations import RequestDurations
from squall_resilience.server.pools import PoolSettings, PoolsSettings, PriorityPools
from squall_resilience.timeout import Timeout, TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse

STOCK, SETTINGS = sys.argv[1:]
OPENMETRICS = "application/openmetrics-text"

client = HttpClient(None)
policy = Policy(
    "stock",
    PolicySettings(
        timeout=TimeoutSettings(0.3),
        breaker=BreakerSettings(
            failures_in_a_row=None, period=1.0, periods=3, minimum_calls=3, wait=2.0, jitter=0.0, window=5.0, trials=3
        ),
        bulkhead=BulkheadSettings(limit=6, waiting=3, wait=0.15),
        rate_limiter=RateLimiterSettings(rate=50, burst=5),
        retry=RetrySettings(attempts=3, base=0.05, idempotent=True, budget=1.0),
        deadline=TimeoutSettings(3.0),
    ),
    # a good answer stands in for half a second only, so that a fault of seconds leaves some calls without any
    links=[Fallback("stock", FallbackSettings(ttl=0.5))],
)
pools = PriorityPools("order", PoolsSettings(pools={"default": PoolSettings(workers=11, sla=0.2, waiting=2)}))
adaptive = AdaptiveConcurrency("reviews", AdaptiveSettings(initial=2, low=1, high=4, window=1.0, calls_min=3))
hedge = Hedge("reviews", HedgeSettings(idempotent=True, delay=0.1))
reviews_limit = Timeout("reviews", TimeoutSettings(0.4))
page = Group("page", GroupSettings(limit=1.5))
every_fifth = itertools.cycle((True, False, False, False, False))
durations = RequestDurations("order")
live = LiveSettings("order")
live.add(policy)


@policy
def ask_stock() -> bytes:
    """How many there are."""
    return client.request("GET", STOCK).body


def order() -> int:
    """One order; its status."""
    try:
        ask_stock()
    except (Rejected, TimeoutError, OSError):
        return 503
    return 200


@hedge
@adaptive
@reviews_limit
def ask_reviews() -> bytes:
    """What can be done without."""
    return client.request("GET", STOCK).body


def show_page() -> None:
    """With reviews, if there are any in time."""
    with page.called() as calls:
        calls.optional("reviews", b"", ask_reviews)


def handle() -> int:
    """One request, if there is a worker for it."""
    try:
        with pools.place():
            return order()
    except Overloaded:
        return 503


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answers."""
    if environ["PATH_INFO"] == "/metrics":
        openmetrics = OPENMETRICS in environ.get("HTTP_ACCEPT", "")
        kind = f"{OPENMETRICS}; version=1.0.0; charset=utf-8" if openmetrics else "text/plain; version=0.0.4"
        start_response("200 OK", [("Content-Type", kind)])
        return [registry.render(openmetrics=openmetrics).encode()]
    began = time.perf_counter()
    status = handle()
    if next(every_fifth):
        show_page()
    durations.observe("/orders", status, time.perf_counter() - began, traceparent=environ.get("HTTP_TRACEPARENT", ""))
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Length", "0")])
    return []


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True
    request_queue_size = 128


class Silent(WSGIRequestHandler):
    """Says nothing of requests."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


chaos = ChaosSettings(
    enabled=True, service="order", require_header=False, sample=0.2, delay_max=0.002, path="/orders",
    until=datetime.now(UTC) + timedelta(hours=1),
)  # fmt: skip
with (
    watch(SETTINGS, live, period=0.1),
    make_server("127.0.0.1", 0, ChaosMiddleware(app, chaos), Server, Silent) as server,
):
    print(server.server_port, flush=True)  # noqa: T201 - it is what the test waits for
    server.serve_forever()
