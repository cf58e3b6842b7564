"""The two worker processes, run in this one: what they say on their pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from squall.probes import command_worker, load_worker
from squall.probes.load_order import BEGUN, FRAME, REFUSED, REPORT, SAMPLES, Order
from squall.probes.samples import RECORD
from squall.probes.wire import Call
from tests.probes.waiting import comes_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.probes.conftest import RunningService


@contextmanager
def serving(serve: Callable[[int, int], object]) -> Iterator[tuple[int, int, threading.Thread]]:
    """A worker in a thread; the descriptor to tell it by, the one to hear it by. Leaving ends it."""
    heard, mouth = os.pipe()
    ear, told = os.pipe()
    thread = threading.Thread(target=serve, args=(heard, told))
    thread.start()
    try:
        yield mouth, ear, thread
    finally:
        os.close(mouth)
        thread.join(10)
        for fd in (heard, ear, told):
            os.close(fd)
    assert not thread.is_alive()


def run_once(words: list[str], timeout_ns: int = 5_000_000_000) -> dict[str, Any]:
    with serving(lambda heard, told: command_worker.serve(words, heard, told)) as (mouth, ear, _):
        os.write(mouth, b"%d\n" % timeout_ns)
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(ear, 65_536)
        answer: dict[str, Any] = json.loads(line)
        return answer


def python(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


def test_a_run_says_how_it_ended() -> None:
    good = run_once(python("print('x' * 10_000); print('end')"))
    assert (good["status"], good["errno"]) == (0, 0)
    assert good["took_ns"] > 0
    assert good["tail"].endswith("x\nend\n")
    assert len(good["tail"]) == command_worker.TAIL_BYTES_MOST
    assert run_once(python("import os; os.kill(os.getpid(), 15)"))["status"] == -signal.SIGTERM
    assert run_once(python("import time; time.sleep(60)"), 100_000_000)["status"] is None
    late = run_once(["/nowhere/program"])
    assert (late["status"], late["errno"]) == (None, 2)


def test_a_run_whose_output_is_closed_goes_on_to_its_end() -> None:
    assert run_once(python("import os, time; os.close(1); os.close(2); time.sleep(0.1); os._exit(3)"))["status"] == 3


def test_the_end_of_the_owner_ends_the_run() -> None:
    with serving(lambda heard, told: command_worker.serve(python("import time; time.sleep(60)"), heard, told)) as (
        mouth,
        _,
        thread,
    ):
        os.write(mouth, b"60000000000\n")
        assert thread.is_alive()


def order(port: int, path: str = "/", host: str = "127.0.0.1") -> Order:
    data = f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()
    call = Call(host, port, tls=False, data=data, head=False, success=frozenset({200}))
    return Order(call, [(500.0, 0.0, 0.0)], 0.5, 1_000_000_000, 100, 1_000_000_000)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= FRAME.size:
        kind, length = FRAME.unpack_from(data)
        found.append((kind, data[FRAME.size : FRAME.size + length]))
        data = data[FRAME.size + length :]
    return found


def test_a_load_begins_reports_and_stops_when_told(service: RunningService) -> None:
    said = bytearray()
    with serving(lambda heard, told: load_worker.serve(order(service.port), heard, told)) as (mouth, ear, thread):
        os.set_blocking(ear, False)

        def heard_of(kind: int) -> bool:
            with suppress(BlockingIOError):
                said.extend(os.read(ear, 1 << 20))
            return any(one == kind for one, _ in frames(bytes(said)))

        assert comes_true(lambda: heard_of(SAMPLES))
        os.write(mouth, b"stop\n")
        thread.join(10)
        heard_of(REPORT)  # the rest
    kinds = [kind for kind, _ in frames(bytes(said))]
    assert kinds[0] == BEGUN
    assert kinds[-1] == REPORT
    report = json.loads(frames(bytes(said))[-1][1])
    samples = sum(len(data) // RECORD.size for kind, data in frames(bytes(said)) if kind == SAMPLES)
    assert report["final"]
    assert samples == report["sent"] == report["answered"]


def test_a_load_that_cannot_begin_says_why() -> None:
    with serving(lambda heard, told: load_worker.serve(order(80, host="no-such-host.invalid"), heard, told)) as (
        _,
        ear,
        thread,
    ):
        thread.join(20)
        ((kind, reason),) = frames(os.read(ear, 65_536))
    assert kind == REFUSED
    assert reason.startswith(b"no-such-host.invalid:80: ")
