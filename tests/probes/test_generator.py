"""The generator's loop in this process, on real sockets, and the pipe that hands its samples on."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import ssl
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from squall.probes.generator import Generator
from squall.probes.load_order import FRAME, REPORT, SAMPLES, Order
from squall.probes.load_worker import Pipe
from squall.probes.samples import OUTCOMES, RECORD
from squall.probes.schedule import intended_times, segments
from squall.probes.wire import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.probes.conftest import RunningService


class Ear:
    """A sink that keeps the samples and wants so many."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.found: Counter[tuple[str, int]] = Counter()
        self.ended = False
        self.ear, self.mouth = os.pipe()
        self.deadline = 0

    def add(self, record: bytes) -> None:
        _, _, _, _, code, detail = RECORD.unpack(record)
        self.found[OUTCOMES[code], detail] += 1

    def tick(self, now_ns: int) -> int:
        self.deadline = self.deadline or now_ns + 20_000_000_000
        assert now_ns < self.deadline, f"only {self.found} after 20 s"
        return now_ns + 50_000_000

    @property
    def stopping(self) -> bool:
        return self.found.total() >= self.wanted

    def fileno(self) -> int:
        return self.ear

    def heard(self) -> None:
        self.ended = not os.read(self.ear, 100)


@pytest.fixture
def ear() -> Iterator[Ear]:
    one = Ear(20)
    yield one
    os.close(one.ear)
    if not one.ended:
        os.close(one.mouth)


def generator(port: int, path: str, sink: Ear, **also: object) -> Generator:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    call = Call("localhost", port, "context" in also, request, head=False, success=frozenset({200}))
    settings: dict[str, object] = {
        "timeout_ns": 300_000_000,
        "connections": 50,
        "drain_ns": 1_000_000_000,
        "late_limit_ns": 10_000_000,
        **also,
    }
    schedule = intended_times(segments([(200.0, 0.0, 0.0)]), 0.5)
    return Generator(call, (socket.AF_INET, ("127.0.0.1", port)), schedule, sink=sink, **settings)  # type: ignore[arg-type]  # the test's own


ANSWERS = [
    ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok", b"and more"], ("ok", 200)),
    ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"], ("error", errno.EPROTO)),
    ([b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 200_000], ("error", errno.EPROTO)),
    ([bytes(range(256)) * 16], ("error", errno.EPROTO)),
    ([b"\0"], ("error", errno.EPROTO)),
    ([], ("error", errno.EPROTO)),
    ([b"HTTP/1.1 100 Continue\r\n\r\n" * 1000], ("error", errno.EPROTO)),
    ([b"HTTP/1.1 404 No\r\n\r\n", b"x" * 300_000], ("error", 404)),
]


@pytest.mark.parametrize(("pieces", "wanted"), ANSWERS)
def test_whatever_a_server_says_is_counted_once(
    says: Callable[[list[bytes]], int], ear: Ear, pieces: list[bytes], wanted: tuple[str, int]
) -> None:
    one = generator(says(pieces), "/", ear)
    one.run()
    report = one.report()
    assert ear.found == {wanted: ear.found.total()}
    assert report.sent == report.answered == ear.found.total()
    assert (report.in_flight, report.abandoned, report.unsent) == (0, 0, 0)


def test_kept_connections_serve_request_after_request(service: RunningService, ear: Ear) -> None:
    one = generator(service.port, "/", ear)
    one.run()
    assert set(ear.found) == {("ok", 200)}


def test_nothing_in_flight_outlives_its_time(service: RunningService, ear: Ear) -> None:
    one = generator(service.port, "/hang", ear)
    one.run()
    assert set(ear.found) == {("timeout", errno.ETIMEDOUT)} or set(ear.found) == {
        ("timeout", errno.ETIMEDOUT),
        ("unsent", errno.EAGAIN),
    }
    assert one.report().oldest_ns == 0


def test_no_port_left_is_unsent_and_not_the_services_fault(
    service: RunningService, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_sock: socket.socket, _address: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket.socket, "connect", none_left)
    one = generator(service.port, "/", ear)
    one.run()
    assert set(ear.found) == {("unsent", errno.EADDRNOTAVAIL)}
    assert "no free descriptor or port" in one.report().behind


def test_the_end_of_the_owner_ends_it_at_once(service: RunningService, ear: Ear) -> None:
    ear.wanted = 1_000_000
    threading.Timer(0.1, os.close, [ear.mouth]).start()
    generator(service.port, "/hang", ear, timeout_ns=60_000_000_000).run()
    assert ear.ended


def test_through_tls(tls_service: int, ear: Ear) -> None:
    one = generator(tls_service, "/", ear, context=ssl.create_default_context(), timeout_ns=5_000_000_000)
    one.run()
    assert set(ear.found) == {("ok", 200)}


def test_an_order_arrives_as_it_was_given() -> None:
    call = Call("shop.test", 443, tls=True, data=bytes(range(256)), head=True, success=frozenset({200, 404}))
    order = Order(call, [(1.0, 0.5, 0.25)], 0.125, 1, 2, 3)
    again = Order.decode(order.encode())
    assert again.call == call
    assert again.phase == order.phase
    assert again.encode() == order.encode()


def test_a_pipe_that_nobody_reads_drops_samples_and_counts_them(service: RunningService, ear: Ear) -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    try:
        pipe = Pipe(ear.ear, into, backlog_bytes_most=200_000)
        pipe.generator = generator(service.port, "/", ear)
        for _ in range(1000):
            for _ in range(100):
                pipe.add(RECORD.pack(1, 2, 0.0, 0, 0, 200))
            pipe.flush(report=False)
        assert pipe.unreported > 0
        frames = drain(out, pipe)
        kept = sum(len(data) // RECORD.size for kind, data in frames if kind == SAMPLES)
        assert kept + pipe.unreported == 100_000  # each is either handed on or counted
        (report,) = (json.loads(data) for kind, data in frames if kind == REPORT)
        assert report["unreported"] == pipe.unreported
    finally:
        os.close(out)
        os.close(into)


def drain(fd: int, pipe: Pipe) -> list[tuple[int, bytes]]:
    """Every frame that is in the pipe and behind it, with a last report."""
    data = b""
    while select.select([fd], [], [], 0)[0]:
        data += os.read(fd, 65_536)
        pipe.write()
    pipe.flush(report=True)
    while select.select([fd], [], [], 0)[0]:
        data += os.read(fd, 65_536)
        pipe.write()
    frames = []
    while data:
        kind, length = FRAME.unpack_from(data)
        frames.append((kind, data[FRAME.size : FRAME.size + length]))
        data = data[FRAME.size + length :]
    return frames
