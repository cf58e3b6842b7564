"""gRPC through the proxy is gRPC: what no rule hits is as it would be without it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from typing import Any

import pytest

from tests.programs.grpc_service import SERVICE
from tests.proxy.http2.grpc_route import ANY_SIZE, PATIENCE_S, GrpcRoute, ends, fails, grpc

ELSEWHERE = {"service": "shop.v1.Payment", "delay": 60_000}


@pytest.fixture(params=["no rule", "elsewhere", "latency", "slicer"])
def route(request: pytest.FixtureRequest, calls: GrpcRoute) -> GrpcRoute:
    """The service, with nothing on the way, or with what should not hurt."""
    if request.param == "elsewhere":
        calls.add("grpc_delay", **ELSEWHERE)
        calls.add("http_patch", "downstream", path="/else/*", body={"a": 1})
    for stream in ("upstream", "downstream"):
        if request.param == "latency":
            calls.add("latency", stream, name=f"l-{stream}", latency=1)
        if request.param == "slicer":
            calls.add("slicer", stream, name=f"s-{stream}", average_size=700, size_variation=650)
    return calls


def test_every_kind_of_call(route: GrpcRoute) -> None:
    """Unary and streams, metadata and trailers with binary values, compression, an error of the service's own."""
    stub = route.stub
    answer, call = stub.reserve.with_call(
        b"one",
        metadata=(("x-who", "me"), ("x-raw-bin", b"\x00\x80\xff")),
        timeout=PATIENCE_S,
        compression=grpc.Compression.Gzip,
    )
    assert answer == b"one"
    assert dict(call.initial_metadata())["x-first-bin"] == b"\x00\xff"
    trailers = dict(call.trailing_metadata())
    assert (trailers["x-last-bin"], trailers["echo-x-raw-bin"], trailers["echo-x-who"]) == (
        b"\x00\x01\xfe",
        b"\x00\x80\xff",
        "me",
    )
    assert list(stub.numbers(b"500", timeout=PATIENCE_S)) == [b"%d" % number for number in range(500)]
    assert stub.total((b"x" * 1000 for _ in range(300)), timeout=PATIENCE_S) == b"300000"
    assert list(stub.chat((b"%d" % number for number in range(300)), timeout=PATIENCE_S)) == [
        b"%d" % n for n in range(300)
    ]
    error = fails(stub.reserve, b"fail")
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not 100% here")
    assert fails(route.stub.channel.unary_unary("/shop.v1.Nowhere/No"), b"").code() is grpc.StatusCode.UNIMPLEMENTED


def test_large_messages_are_byte_exact_both_ways(calls: GrpcRoute, bench: Any) -> None:
    """Eight megabytes under flow control, several at once; and with a window that is passed on, not made larger."""
    blobs = [os.urandom(8 << 20) for _ in range(3)]
    futures = [calls.stub.reserve.future(blob, timeout=PATIENCE_S) for blob in blobs]
    assert [hashlib.sha256(one.result()).digest() for one in futures] == [hashlib.sha256(one).digest() for one in blobs]
    calls.settled(bench)


def test_a_deadline_and_a_cancellation_reach_the_service(calls: GrpcRoute, bench: Any) -> None:
    hold = threading.Event()

    def forever() -> Any:
        yield b"first"
        hold.wait(PATIENCE_S)

    for end in ("cancel", "deadline"):
        before = calls.inventory.cancelled
        call = calls.stub.chat(forever(), timeout=PATIENCE_S if end == "cancel" else 0.3)
        assert next(call) == b"first"
        if end == "cancel":
            call.cancel()
        else:
            assert ends(call)[1] is grpc.StatusCode.DEADLINE_EXCEEDED
        bench.until(lambda before=before: calls.inventory.cancelled > before, "the service sees that the call is over")
    hold.set()


@pytest.mark.parametrize("rule", [False, True])
def test_a_thousand_streams_at_once(calls: GrpcRoute, *, rule: bool) -> None:
    if rule:
        calls.add("grpc_delay", delay=200, jitter=150)
    futures = [calls.stub.reserve.future(b"%d" % number, timeout=PATIENCE_S) for number in range(1000)]
    assert [int(one.result()) for one in futures] == list(range(1000))
    assert calls.control.stats()["connections"] == 1


def test_pings_keep_a_connection_alive(calls: GrpcRoute) -> None:
    stub = calls.connect(
        ("grpc.keepalive_time_ms", 200), ("grpc.keepalive_timeout_ms", 2000), ("grpc.http2.max_pings_without_data", 0)
    )
    done = threading.Event()

    def slowly() -> Any:
        yield b"1"
        done.wait(1.2)
        yield b"2"

    assert list(stub.chat(slowly(), timeout=PATIENCE_S)) == [b"1", b"2"]


def test_a_service_that_goes_away_says_so_and_finishes_what_it_has(calls: GrpcRoute, bench: Any) -> None:
    """GOAWAY: calls under way end well, also while others are held; a held one that it will never see fails as unavailable."""
    go_on, begun = threading.Event(), threading.Event()

    def under_way() -> Any:
        yield b"1"
        begun.set()
        go_on.wait(PATIENCE_S)
        yield b"2"

    calls.add("grpc_delay", method="Reserve", delay=1500)
    call = calls.stub.chat(under_way(), timeout=PATIENCE_S)
    assert next(call) == b"1"
    held = calls.stub.reserve.future(b"late", timeout=PATIENCE_S)
    bench.until(lambda: calls.hits("grpc_delay") == 1, "it is held")
    stopping = calls.server.stop(10)
    time.sleep(0.2)  # GOAWAY is on its way; nothing tells when the client has taken it
    go_on.set()
    assert ends(call)[0] == [b"2"]
    assert held.exception().code() is grpc.StatusCode.UNAVAILABLE
    stopping.wait(PATIENCE_S)


def test_asynchronous_calls(calls: GrpcRoute) -> None:
    calls.add("grpc_delay", method="Count", delay=150)

    async def all_at_once() -> tuple[list[bytes], float]:
        began = time.monotonic()
        async with grpc.aio.insecure_channel(calls.address, options=ANY_SIZE) as channel:
            path = f"/{SERVICE}/"
            reserve, chat = channel.unary_unary(path + "Reserve"), channel.stream_stream(path + "Chat")
            count = channel.unary_unary(path + "Count")

            async def talk(number: int) -> bytes:
                call = chat()
                await call.write(b"%d" % number)
                said = await call.read()
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
                return bytes(said)

            answers = await asyncio.gather(*(talk(n) for n in range(50)), *(reserve(b"%d" % n) for n in range(50, 100)))
            await asyncio.gather(*(count(b"") for _ in range(20)))
        return answers, time.monotonic() - began

    answers, took = asyncio.run(all_at_once())
    assert answers == [b"%d" % number for number in range(100)]
    assert 0.15 <= took < 10


class Talk(threading.Thread):
    """A stream whose messages are compared as they come back, until it is told to stop."""

    def __init__(self, calls: GrpcRoute) -> None:
        super().__init__(daemon=True)
        self.stop, self.wrong, self.count = threading.Event(), "", 0
        self._stub, self._sent = calls.stub, []
        self.start()

    def _messages(self) -> Any:
        while not self.stop.is_set():
            self._sent.append(b"%d:" % len(self._sent) + os.urandom(len(self._sent) % 5000))
            yield self._sent[-1]

    def run(self) -> None:
        for answer in self._stub.chat(self._messages(), timeout=60):
            if answer != self._sent[self.count]:
                self.wrong = f"message {self.count}"
                return
            self.count += 1


def test_rules_that_come_and_go_lose_nothing_of_what_streams(calls: GrpcRoute) -> None:
    """Streams run while delays, aborts elsewhere and byte toxics are toggled; each message arrives once and in order."""
    talks = [Talk(calls) for _ in range(4)]
    for round_ in range(30):
        calls.add("grpc_delay", "downstream", name="d", delay=3, jitter=3, each="message")
        calls.add("grpc_delay", name="u", delay=20)
        calls.add("grpc_abort", name="a", method="Reserve")
        calls.add("latency", "upstream", name="l", latency=1)
        assert fails(calls.stub.reserve, b"%d" % round_).code() is grpc.StatusCode.UNAVAILABLE
        calls.control.update_toxic("u", attributes={"delay": 1})
        assert calls.stub.count(b"", timeout=PATIENCE_S) == b"0"
        for name in ("u", "a", "l", "d"):
            calls.control.remove_toxic(name)
        assert calls.stub.reserve(b"ok", timeout=PATIENCE_S) == b"ok"
    for talk in talks:
        talk.stop.set()
        talk.join(PATIENCE_S)
    assert [(talk.wrong, talk.count == len(talk._sent)) for talk in talks] == [("", True)] * 4
    assert min(talk.count for talk in talks) > 50
    assert calls.control.stats()["connections"] == 1
