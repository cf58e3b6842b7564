"""The middleware in gRPC servers, blocking and asyncio, with every kind of method and real calls."""

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

from squall_resilience.chaos import Chaos, ChaosSettings
from squall_resilience.chaos.grpc import AioChaosInterceptor, ChaosInterceptor, status_of
from squall_resilience.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.resilience.chaos.conftest import Driver

HEADER = (("x-chaos-enabled", "1"), ("x-other", "2"))
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
UNTIL = "2999-01-01T00:00:00Z"
ALL = ChaosSettings(service="shop", enabled=True, until=UNTIL, sample=1.0, delay_min=0.1, delay_max=0.1)


class Blocking(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers with what it was sent, and the names of the metadata."""

    def service(self, details: Any) -> Any:
        kind = details.method.rpartition("/")[2]
        make = getattr(grpc, f"{kind}_rpc_method_handler", None)
        return make(getattr(self, kind)) if make else None

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        return request + names(context)

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield request
        yield names(context)

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b"".join(requests) + names(context)

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests
        yield names(context)


class Asynchronous(Blocking):
    async def unary_unary(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        return request + names(context)

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        yield request
        yield names(context)

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:  # type: ignore[override]
        return b"".join([one async for one in requests]) + names(context)

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> None:  # type: ignore[override]
        async for one in requests:
            await context.write(one)
        await context.write(names(context))


def names(context: Any) -> bytes:
    return b" " + b",".join(sorted(key.encode() for key, _ in context.invocation_metadata() if key.startswith("x-")))


@contextlib.contextmanager
def serving(chaos: Chaos, *, aio: bool) -> Iterator[str]:
    """A server in this process; the address."""
    with _serving_aio(chaos) if aio else _serving_blocking(chaos) as address:
        yield address


@contextlib.contextmanager
def _serving_blocking(chaos: Chaos) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[Blocking()], interceptors=[ChaosInterceptor(chaos=chaos)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def _serving_aio(chaos: Chaos) -> Iterator[str]:
    port, stop, loops = [0], asyncio.Event(), []
    started = threading.Event()

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        server = grpc.aio.server(handlers=[Asynchronous()], interceptors=[AioChaosInterceptor(chaos=chaos)])
        port[0] = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield f"127.0.0.1:{port[0]}"
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


def call(address: str, kind: str, metadata: Any = HEADER) -> tuple[bytes, float]:
    """What it answers, joined, and how long it took."""
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(10)
        method = getattr(channel, kind)(f"/shop.Stock/{kind}")
        began = time.monotonic()
        answer = method(iter([b"a", b"b"]) if kind.startswith("stream") else b"ab", metadata=metadata, timeout=10)
        whole = answer if isinstance(answer, bytes) else b"".join(answer)
        return whole, time.monotonic() - began


@pytest.mark.parametrize("aio", [False, True], ids=["blocking", "aio"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_call_is_delayed_and_answered(kind: str, *, aio: bool) -> None:
    registry = Registry()
    with serving(Chaos(ALL, grpc=True, registry=registry), aio=aio) as address:
        answer, seconds = call(address, kind)
        assert (answer, seconds >= 0.1) == (b"ab x-chaos-enabled,x-other", True)
        call(address, kind, ())  # unmarked: it is not hit
        assert 'http_chaos_injected_total{service="shop",reason="delay"} 1' in registry.render()


@pytest.mark.parametrize("aio", [False, True], ids=["blocking", "aio"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_call_is_aborted(kind: str, driver: Driver, *, aio: bool) -> None:
    settings = ChaosSettings(service="shop", driven=True, edge="strip")
    driver.switch_on(abort_status=404, abort_body="no such thing", abort_headers={"X-Why": "chaos"}, path=f"/*/{kind}")
    chaos = Chaos(settings, grpc=True, registry=None, folder=driver.folder)
    with serving(chaos, aio=aio) as address:
        with pytest.raises(grpc.RpcError) as caught:
            call(address, kind)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == "no such thing"
        assert ("x-why", "chaos") in [tuple(pair) for pair in caught.value.trailing_metadata()]
        (driver.folder / "HALT").touch()
        time.sleep(0.03)  # longer than the middleware goes without looking
        assert call(address, kind)[0] == b"ab x-other"  # the edge has taken the header away


@pytest.mark.parametrize("aio", [False, True], ids=["blocking", "aio"])
def test_its_own_statuses_and_unknown_methods(*, aio: bool) -> None:
    settings = ChaosSettings(service="shop", enabled=True, until=UNTIL, sample=1.0, abort_status=8, abort_share=1.0)
    with (
        serving(Chaos(settings, grpc=True, registry=None), aio=aio) as address,
        grpc.insecure_channel(address) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/shop.Stock/unary_unary")(b"", metadata=HEADER, timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "chaos injected"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/shop.Stock/nothing")(b"", metadata=HEADER, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_delay_does_not_hold_the_others_of_a_blocking_server() -> None:
    slow = ChaosSettings(service="shop", enabled=True, until=UNTIL, sample=1.0, delay_min=2.0, delay_max=2.0)
    with serving(Chaos(slow, grpc=True, registry=None), aio=False) as address, ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, address, "unary_unary")
        time.sleep(0.1)
        assert call(address, "unary_unary", ())[1] < 1.5
        assert first.result()[1] >= 2.0


MAPPED = {
    400: "INTERNAL", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "UNIMPLEMENTED", 429: "UNAVAILABLE",
    503: "UNAVAILABLE", 500: "UNKNOWN", 418: "UNKNOWN", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED",
}  # fmt: skip


@pytest.mark.parametrize(("number", "code"), MAPPED.items())
def test_statuses_are_mapped_as_grpc_does(number: int, code: str) -> None:
    assert status_of(number) is grpc.StatusCode[code]
