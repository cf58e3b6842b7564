"""gRPC calls through a policy, and servers that take over deadline, priority and trace: real servers, all kinds of calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from squall_resilience import deadline
from squall_resilience.adapters.grpc import ResilientInterceptor, aio_interceptors
from squall_resilience.adapters.grpc_rules import GrpcRules
from squall_resilience.adapters.grpc_server import AioServingInterceptor, ServingInterceptor
from squall_resilience.breaker import BreakerSettings
from squall_resilience.errors import BreakerOpen, DeadlineExceeded, RateLimited
from squall_resilience.fallback import Fallback
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.retry import RetrySettings
from squall_resilience.server.pools import PriorityPools
from squall_resilience.server.settings import PoolSettings, PoolsSettings
from squall_resilience.timeout import TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = GrpcRules(idempotent=("/shop.Stock/get*",))
BOTH = pytest.mark.parametrize("aio", [False, True], ids=["blocking", "aio"])
RETRY = PolicySettings(retry=RetrySettings(attempts=3, base=0.001, cap=0.001))


class Stock(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Fails as often as it is told, and notes what comes in."""

    def __init__(self) -> None:
        self.fails = 0
        self.code = grpc.StatusCode.UNAVAILABLE
        self.pushback = ""
        self.seen: list[dict[str, Any]] = []
        self.slow_s = 0.0
        self.inside: Any = lambda: None

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name.endswith("_stream"):
            return grpc.unary_stream_rpc_method_handler(self.many)
        if name.endswith("_upload"):
            return grpc.stream_unary_rpc_method_handler(self.upload)
        return (
            grpc.stream_stream_rpc_method_handler(self.both)
            if name == "both"
            else grpc.unary_unary_rpc_method_handler(self.one)
        )

    def note(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.seen.append({"left": context.time_remaining(), "here": deadline.remaining(), **metadata})
        time.sleep(self.slow_s)
        self.inside()
        if self.fails:
            self.fails -= 1
            if self.pushback:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback),))
            context.abort(self.code, "no luck")

    def one(self, request: bytes, context: Any) -> bytes:
        self.note(context)
        return request

    def many(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.note(context)
        yield request
        yield request

    def upload(self, requests: Iterator[bytes], context: Any) -> bytes:
        whole = b"".join(requests)  # grpc.aio's clients take an answer before its end for an error of their own
        self.note(context)
        return whole

    def both(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.note(context)
        yield from requests


@pytest.fixture
def stock() -> Stock:
    return Stock()


@contextlib.contextmanager
def serving(stock: Stock, *interceptors: Any) -> Iterator[str]:
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[stock], interceptors=interceptors)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@pytest.fixture
def address(stock: Stock) -> Iterator[str]:
    with serving(stock, ServingInterceptor()) as found:
        yield found


def call(address: str, method: str, policy: Any, *, aio: bool, **more: Any) -> Any:
    """What the caller gets: an answer, a list of them, or what is raised."""
    kind = (
        "unary_stream"
        if method.endswith("_stream")
        else "stream_unary"
        if method.endswith("_upload")
        else "unary_unary"
    )
    request = iter([b"a", b"b"]) if kind == "stream_unary" else b"ab"
    path, more = f"/shop.Stock/{method}", {"timeout": 10, **more}
    if not aio:
        with grpc.insecure_channel(address) as plain:
            channel = grpc.intercept_channel(plain, ResilientInterceptor(policy, rules=RULES))
            answer = getattr(channel, kind)(path)(request, **more)
            return list(answer) if kind == "unary_stream" else answer

    async def asynchronous() -> Any:
        async with grpc.aio.insecure_channel(address, interceptors=aio_interceptors(policy, rules=RULES)) as channel:
            answer = getattr(channel, kind)(path)(request, **more)
            return [one async for one in answer] if kind == "unary_stream" else await answer

    return asyncio.run(asynchronous())


def policy(settings: PolicySettings, **more: Any) -> Policy:
    return Policy("stock", settings, registry=None, **more)


@BOTH
@pytest.mark.parametrize("method", ["get", "get_stream"])
def test_what_may_be_repeated_is_retried(stock: Stock, address: str, method: str, *, aio: bool) -> None:
    stock.fails = 2
    assert call(address, method, policy(RETRY), aio=aio) == ([b"ab", b"ab"] if method == "get_stream" else b"ab")
    assert len(stock.seen) == 3


@BOTH
@pytest.mark.parametrize("method", ["put", "put_stream", "get_upload"])
def test_what_may_not_be_repeated_is_grpcs_own_error(stock: Stock, address: str, method: str, *, aio: bool) -> None:
    stock.fails = 1
    with pytest.raises(grpc.RpcError) as caught:
        call(address, method, policy(RETRY), aio=aio)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "no luck")
    assert len(stock.seen) == 1
    assert call(address, method, policy(RETRY), aio=aio) in (b"ab", [b"ab", b"ab"])


@BOTH
@pytest.mark.parametrize("method", ["get", "get_stream", "get_upload"])
def test_failures_open_the_breaker_and_answers_do_not(stock: Stock, address: str, method: str, *, aio: bool) -> None:
    chain = policy(PolicySettings(breaker=BreakerSettings(failures_in_a_row=2)))
    stock.code, stock.fails = grpc.StatusCode.NOT_FOUND, 5
    for _ in range(5):
        with pytest.raises(grpc.RpcError):
            call(address, method, chain, aio=aio)
    stock.code, stock.fails = grpc.StatusCode.INTERNAL, 2
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            call(address, method, chain, aio=aio)
    with pytest.raises(BreakerOpen):
        call(address, method, chain, aio=aio)
    assert len(stock.seen) == 7


@pytest.mark.parametrize(("method", "aio"), [("get", False), ("get_stream", False), ("get", True)])
def test_a_fallback_answers(stock: Stock, address: str, method: str, *, aio: bool) -> None:
    stock.fails = 1
    preset: Any = [b"none"] if method == "get_stream" else b"none"
    chain = policy(PolicySettings(), links=(Fallback("stock", preset=preset, registry=None),))
    assert call(address, method, chain, aio=aio) == preset


@BOTH
@pytest.mark.parametrize("method", ["get", "get_stream", "get_upload"])
def test_the_deadline_goes_along_natively(stock: Stock, address: str, method: str, *, aio: bool) -> None:
    with deadline.within(2.0):
        call(address, method, policy(PolicySettings(timeout=TimeoutSettings(5.0))), aio=aio)
    (seen,) = stock.seen
    assert 0 < seen["left"] <= 2.1
    assert 0 < seen["here"] <= 2.1  # the handler's own calls have no more
    assert "grpc-timeout" not in seen
    with deadline.within(0.0), pytest.raises(DeadlineExceeded):
        call(address, method, None, aio=aio)


@BOTH
@pytest.mark.parametrize("method", ["get", "get_stream"])
def test_a_time_out_bounds_an_answer_and_the_beginning_of_a_stream(
    stock: Stock, address: str, method: str, *, aio: bool
) -> None:
    stock.slow_s = 0.5
    chain = policy(PolicySettings(timeout=TimeoutSettings(0.1)))
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, grpc.RpcError)):
        call(address, method, chain, aio=aio)
    assert time.monotonic() - began < 0.45


@BOTH
def test_each_service_has_its_policy(stock: Stock, address: str, *, aio: bool) -> None:
    stock.fails = 1
    assert call(address, "get", {"shop.Stock": policy(RETRY)}, aio=aio) == b"ab"
    stock.fails = 1
    with pytest.raises(grpc.RpcError):
        call(address, "get", {"shop.Other": policy(RETRY)}, aio=aio)


def test_the_pushback_is_honoured(stock: Stock, address: str) -> None:
    stock.fails, stock.pushback = 1, "150"
    began = time.monotonic()
    assert call(address, "get", policy(RETRY), aio=False) == b"ab"
    assert time.monotonic() - began >= 0.15


def test_a_stream_both_ways_carries_the_deadline(stock: Stock, address: str) -> None:
    with deadline.within(2.0), grpc.insecure_channel(address) as plain:
        channel = grpc.intercept_channel(plain, ResilientInterceptor(policy(RETRY), rules=RULES))
        assert list(channel.stream_stream("/shop.Stock/both")(iter([b"a", b"b"]))) == [b"a", b"b"]
    assert 0 < stock.seen[0]["left"] <= 2.1


def test_priority_and_trace_go_on_to_what_a_handler_calls(stock: Stock, address: str) -> None:
    front = Stock()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    front.inside = lambda: call(address, "get", None, aio=False)
    with serving(front, ServingInterceptor()) as first:
        call(first, "get", None, aio=False, metadata=(("x-priority", "high"), ("traceparent", trace)), timeout=3)
    (seen,) = stock.seen
    assert (seen["x-priority"], seen["traceparent"]) == ("high", trace)
    assert 0 < seen["left"] <= 3.1  # gRPC rounds up


def test_a_full_pool_sheds_with_a_pushback(stock: Stock) -> None:
    settings = PoolsSettings(pools={"high": PoolSettings(1, 0.5, 1), "default": PoolSettings(1, 0.05, 0)})
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        assert leave.wait(10)

    stock.inside = stay
    pools = PriorityPools("stock", settings, registry=None)
    with serving(stock, ServingInterceptor(pools)) as address, ThreadPoolExecutor(1) as other:
        first = other.submit(call, address, "get", None, aio=False)
        assert entered.wait(10)
        with pytest.raises(grpc.RpcError) as caught:
            call(address, "get", None, aio=False)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stock.inside = lambda: None
        assert call(address, "get", None, aio=False, metadata=(("x-priority", "high"),)) == b"ab"
        leave.set()
        assert first.result() == b"ab"
    pools.close()


def test_what_a_handlers_patterns_reject_is_a_status(stock: Stock, address: str) -> None:
    def limited() -> None:
        raise RateLimited("too many", retry_after=0.25)

    def late() -> None:
        raise DeadlineExceeded("late")

    for inside, code in ((limited, grpc.StatusCode.UNAVAILABLE), (late, grpc.StatusCode.DEADLINE_EXCEEDED)):
        stock.inside = inside
        with pytest.raises(grpc.RpcError) as caught:
            call(address, "get", None, aio=False)
        assert caught.value.code() is code
        pushed = dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms")
        assert pushed == ("250" if inside is limited else None)


def test_an_asyncio_server_gives_the_same() -> None:
    seen: list[float | None] = []

    async def one(request: bytes, _: Any) -> bytes:
        seen.append(deadline.remaining())
        if request == b"shed":
            raise RateLimited("too many", retry_after=0.25)
        return request

    async def many(request: bytes, _: Any) -> Any:
        seen.append(deadline.remaining())
        yield request

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            if details.method.endswith("many"):
                return grpc.unary_stream_rpc_method_handler(many)
            return grpc.unary_unary_rpc_method_handler(one)

    async def main() -> None:
        pools = PriorityPools("aio-stock", registry=None)
        server = grpc.aio.server(handlers=[Handler()], interceptors=[AioServingInterceptor(pools)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await channel.unary_unary("/shop.Stock/one")(b"a", timeout=2) == b"a"
            assert [each async for each in channel.unary_stream("/shop.Stock/many")(b"a", timeout=2)] == [b"a"]
            assert await channel.unary_unary("/shop.Stock/one")(b"b") == b"b"
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary("/shop.Stock/one")(b"shed")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(caught.value.trailing_metadata()) == {"grpc-retry-pushback-ms": "250"}
        await server.stop(None)
        pools.close()

    asyncio.run(main())
    assert [left is not None and 0 < left <= 2.1 for left in seen] == [True, True, False, False]
