"""grpc_delay and grpc_abort hit the calls that they are for, as they say, and no others."""

from __future__ import annotations

import os
import threading
import time
from base64 import b64encode
from typing import Any

import pytest

from tests.proxy.http2.grpc_route import PATIENCE_S, GrpcRoute, ends, fails, grpc, seconds

SLOW_MS = 600
QUICK_S = 0.5


# Delay


def test_a_delayed_call_holds_up_no_other(calls: GrpcRoute) -> None:
    """Neither by its bytes nor by the window that they use up."""
    calls.add("grpc_delay", method="Reserve", delay=SLOW_MS)
    blobs = [os.urandom(300_000) for _ in range(8)]
    began = time.monotonic()
    late = [calls.stub.reserve.future(blob, timeout=PATIENCE_S) for blob in blobs]
    assert seconds(calls.stub.count, b"") < QUICK_S
    assert len(list(calls.stub.numbers(b"2000", timeout=PATIENCE_S))) == 2000
    assert seconds(calls.stub.total, iter([bytes(500_000)])) < QUICK_S
    assert [one.result() for one in late] == blobs
    assert time.monotonic() - began >= SLOW_MS / 1000
    assert calls.hits("grpc_delay") == 8


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_a_call_is_late_and_the_next_is_not(calls: GrpcRoute, stream: str) -> None:
    calls.add("grpc_delay", stream, service="shop.v1.*", method="Re*", headers={"x-who": "a*"}, delay=SLOW_MS)
    for metadata in ((), (("x-who", "b"),)):
        assert calls.stub.reserve(b"q", metadata=metadata, timeout=QUICK_S) == b"q"
    began = time.monotonic()
    assert calls.stub.reserve(b"q", metadata=(("x-who", "ab"),), timeout=PATIENCE_S) == b"q"
    assert time.monotonic() - began >= SLOW_MS / 1000
    assert calls.hits("grpc_delay") == 1


def test_each_message_can_be_late_and_keeps_its_place(calls: GrpcRoute) -> None:
    calls.add("grpc_delay", "downstream", method="Chat", delay=100, jitter=100, each="message")
    sent = [b"%d" % number for number in range(40)]
    began = time.monotonic()
    assert list(calls.stub.chat(iter(sent), timeout=PATIENCE_S)) == sent
    assert time.monotonic() - began >= 0.1
    assert calls.hits("grpc_delay") == 40


def test_a_held_call_follows_what_becomes_of_its_delay(calls: GrpcRoute, bench: Any) -> None:
    calls.add("grpc_delay", delay=60_000)
    first, second = (calls.stub.reserve.future(each, timeout=PATIENCE_S) for each in (b"1", b"2"))
    bench.until(lambda: calls.hits("grpc_delay") == 2, "both are held")
    second.cancel()
    calls.control.update_toxic("grpc_delay", attributes={"delay": 50_000})
    assert calls.inventory.calls == []
    calls.control.remove_toxic("grpc_delay")
    assert first.result() == b"1"
    assert calls.stub.reserve(b"3", timeout=PATIENCE_S) == b"3"
    assert calls.inventory.calls == ["Reserve", "Reserve"]


def test_a_caller_that_gives_up_a_held_call_never_made_it(calls: GrpcRoute, bench: Any) -> None:
    calls.add("grpc_delay", method="Reserve", delay=700)
    with pytest.raises(grpc.RpcError) as caught:
        calls.stub.reserve(os.urandom(100_000), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    calls.settled(bench)
    assert calls.stub.count(b"", timeout=PATIENCE_S) == b"0"
    assert calls.inventory.calls == ["Count"]


# Abort


def test_an_aborted_call_has_its_status_message_details_and_trailers(calls: GrpcRoute) -> None:
    from google.rpc import code_pb2, error_details_pb2
    from grpc_status import rpc_status

    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = 7
    url = "type.googleapis.com/google.rpc.RetryInfo"
    calls.add(
        "grpc_abort", status=8, message="100 % zu viel: ü\n", trailers={"x-left": "3"},
        details={url: b64encode(info.SerializeToString()).decode()},
    )  # fmt: skip
    for request in (b"small", bytes(3_000_000)):
        error = fails(calls.stub.reserve, request)
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "100 % zu viel: ü\n")
        assert dict(error.trailing_metadata())["x-left"] == "3"
        status = rpc_status.from_call(error)
        assert (status.code, status.message) == (code_pb2.RESOURCE_EXHAUSTED, "100 % zu viel: ü\n")
        (packed,) = status.details
        unpacked = error_details_pb2.RetryInfo()
        assert packed.Unpack(unpacked)
        assert unpacked.retry_delay.seconds == 7
    assert calls.inventory.calls == []
    assert calls.hits("grpc_abort") == 2
    calls.control.remove_toxic("grpc_abort")
    assert calls.stub.reserve(b"ok", timeout=PATIENCE_S) == b"ok"


@pytest.mark.parametrize("kind", ["reserve", "numbers", "total", "chat"])
def test_every_kind_of_call_can_be_aborted_before_it_begins(calls: GrpcRoute, kind: str) -> None:
    calls.add("grpc_abort", service="shop.v1.Inventory", status=16)
    stub, more = calls.stub, threading.Event()

    def endless() -> Any:
        while not more.wait(0.001):
            yield bytes(1000)

    call = {
        "reserve": lambda: stub.reserve.future(b"1", timeout=PATIENCE_S), "numbers": lambda: stub.numbers(b"9", timeout=PATIENCE_S),
        "total": lambda: stub.total.future(endless(), timeout=PATIENCE_S), "chat": lambda: stub.chat(endless(), timeout=PATIENCE_S),
    }[kind]()  # fmt: skip
    assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    more.set()
    assert calls.inventory.calls == []


@pytest.mark.parametrize("sent", [1, 3, 10])
def test_a_stream_ends_after_so_many_answers(calls: GrpcRoute, bench: Any, sent: int) -> None:
    calls.add("grpc_abort", "downstream", after_messages=sent, status=15, message="cut")
    assert ends(calls.stub.numbers(b"100000", timeout=PATIENCE_S)) == (
        [b"%d" % number for number in range(sent)], grpc.StatusCode.DATA_LOSS, "cut",
    )  # fmt: skip
    bench.until(lambda: calls.inventory.cancelled == 1, "the service sees that the call is over")
    fewer = ends(calls.stub.numbers(b"%d" % (sent - 1), timeout=PATIENCE_S))
    assert (len(fewer[0]), fewer[1]) == (sent - 1, grpc.StatusCode.OK)
    assert calls.hits("grpc_abort") == 1


@pytest.mark.parametrize("late", [0, 50])
def test_a_call_ends_after_so_many_requests(calls: GrpcRoute, bench: Any, late: int) -> None:
    """Whether the answer has begun or not."""
    if late:
        calls.add("grpc_delay", "downstream", delay=late)
    calls.add("grpc_abort", after_messages=3, status=10)
    stop = threading.Event()

    def endless() -> Any:
        while not stop.wait(0.02):
            yield b"x"

    seen, code, _ = ends(calls.stub.chat(endless(), timeout=PATIENCE_S))
    assert code is grpc.StatusCode.ABORTED
    assert len(seen) <= 3
    bench.until(lambda: calls.inventory.cancelled == 1, "the service sees that the call is over")
    assert fails(calls.stub.total, endless()).code() is grpc.StatusCode.ABORTED
    stop.set()
    assert calls.stub.total(iter([b"ab"]), timeout=PATIENCE_S) == b"2"
    assert calls.hits("grpc_abort") == 2


def test_a_unary_answer_can_be_lost_after_the_work_is_done(calls: GrpcRoute) -> None:
    calls.add("grpc_abort", "downstream", after_messages=1, status=14)
    assert fails(calls.stub.reserve, b"paid").code() is grpc.StatusCode.UNAVAILABLE
    assert calls.inventory.calls == ["Reserve"]


def test_the_share_of_calls_is_drawn_from_the_seed(bench: Any) -> None:
    from tests.proxy.http2.grpc_route import route_of

    def outcomes(seed: int) -> list[bool]:
        with route_of(bench, seed=seed) as route:
            route.add("grpc_abort", percent=30.0)
            return [route.stub.reserve.future(b"", timeout=PATIENCE_S).exception() is None for _ in range(60)]

    first = outcomes(1)
    assert first == outcomes(1)
    assert first != outcomes(2)
    assert 5 < first.count(False) < 35


def test_a_delay_and_an_abort_add_up(calls: GrpcRoute) -> None:
    calls.add("grpc_delay", delay=SLOW_MS)
    calls.add("grpc_abort")
    began = time.monotonic()
    assert fails(calls.stub.reserve, b"").code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began >= SLOW_MS / 1000
    assert calls.inventory.calls == []


def test_http_aborts_reach_grpc_clients_as_their_own_statuses(calls: GrpcRoute) -> None:
    """As gRPC maps them; and a hundred of them cost no connection."""
    calls.add("http_abort", status=429, body="slow down" * 100)
    for _ in range(100):
        assert fails(calls.stub.reserve, b"").code() is grpc.StatusCode.UNAVAILABLE
    calls.control.update_toxic("http_abort", attributes={"status": 401})
    assert fails(calls.stub.reserve, b"").code() is grpc.StatusCode.UNAUTHENTICATED
    calls.control.remove_toxic("http_abort")
    assert calls.stub.reserve(b"ok", timeout=PATIENCE_S) == b"ok"
    assert calls.control.stats()["connections"] == 1
