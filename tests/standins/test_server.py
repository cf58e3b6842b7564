"""The server: every way to answer and to fail to, as raw bytes and as a client sees it, alone and with many at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from squall.errors import InputError
from squall.standins import Report, StandIn, StandInMismatch, serve, standin

Raw = Callable[[str, bytes], bytes]
WaitFor = Callable[[Callable[[], bool]], None]

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def unchecked(script: object) -> Iterator[StandIn]:
    """A stand-in that may see what it does not expect."""
    api = StandIn(script)  # type: ignore[arg-type]
    api.start()
    try:
        yield api
    finally:
        api.stop()


def answered(raw: Raw, answer: dict[str, object], request: bytes = GET) -> bytes:
    with standin([{"answer": answer}]) as api:
        return raw(api.url, request)


def test_text_json_and_empty_answers_carry_their_type_and_length(raw: Raw) -> None:
    text = answered(raw, {"body": "grüße", "headers": {"X-A": "b"}})
    assert b"X-A: b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 7\r\n" in text
    assert text.endswith("grüße".encode())
    value = answered(raw, {"status": 201, "body": {"a": [1, None]}})
    assert value.startswith(b"HTTP/1.1 201 ")
    assert b"Content-Type: application/json\r\n" in value
    assert value.endswith(b'{"a": [1, null]}')
    assert b"Content-Length: 0\r\n" in answered(raw, {})
    assert b"ontent-" not in answered(raw, {"status": 204})
    assert b"text/csv" in answered(raw, {"body": "a,b", "headers": {"content-type": "text/csv"}})


def test_a_head_request_gets_the_length_and_no_body(raw: Raw) -> None:
    answer = answered(raw, {"body": "hello"}, GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_close_ends_the_connection_before_any_byte(raw: Raw) -> None:
    assert answered(raw, {"failure": "close"}) == b""


def test_reset_is_a_reset(raw: Raw) -> None:
    with pytest.raises(ConnectionResetError):
        answered(raw, {"failure": "reset"})


def test_cut_ends_the_connection_in_the_middle_of_the_body(raw: Raw) -> None:
    head, _, body = answered(raw, {"failure": "cut", "body": "0123456789"}).partition(b"\r\n\r\n")
    assert b"Content-Length: 10" in head
    assert body == b"01234"


def test_malformed_is_no_http(raw: Raw) -> None:
    assert not answered(raw, {"failure": "malformed"}).startswith(b"HTTP/")


def test_a_dripping_body_arrives_whole_in_pieces_with_pauses() -> None:
    with standin([{"answer": {"body": "abcdef", "drip": {"size": "2B", "every": "100ms"}}}]) as api:
        host, port = api.url.removeprefix("http://").split(":")
        pieces, began = [], time.monotonic()
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(GET)
            while chunk := sock.recv(65_536):
                pieces.append(chunk)
        took = time.monotonic() - began
    assert b"".join(pieces).endswith(b"\r\n\r\nabcdef")
    assert len(pieces) >= 3
    assert took >= 0.2


def test_a_delay_comes_before_the_answer() -> None:
    with standin([{"answer": {"delay": "300ms"}}]) as api:
        began = time.monotonic()
        assert httpx2.get(api.url).status_code == 200
        assert 0.3 <= time.monotonic() - began < 10


def test_hang_never_answers_and_the_stand_in_still_ends_at_once(wait_for: WaitFor) -> None:
    with standin([{"answer": {"failure": "hang"}}]) as api:
        for _ in range(2):
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.get(api.url, timeout=0.2)
        wait_for(lambda: all(call.gave_up for call in api.calls))
        host, port = api.url.removeprefix("http://").split(":")
        sock = socket.create_connection((host, int(port)), timeout=20)
        sock.sendall(GET)
        wait_for(lambda: len(api.calls) == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    with contextlib.suppress(ConnectionResetError), sock:
        assert sock.recv(10) == b""


def test_a_client_that_leaves_a_slow_answer_is_seen(wait_for: WaitFor) -> None:
    answers = [{"delay": "300ms"}, {"body": "abcdef", "drip": {"size": "1B", "every": "200ms"}}, {}]
    with standin([{"answers": answers, "calls": 3}]) as api:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(api.url, timeout=0.1)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(api.url, timeout=0.1)
        assert httpx2.get(api.url).status_code == 200
        wait_for(lambda: [call.gave_up for call in api.calls] == [True, True, False])


def test_connections_are_kept_and_pipelined_calls_answered_in_order(raw: Raw) -> None:
    with standin([{"match": {"path": f"/{n}"}, "answer": {"body": str(n)}} for n in range(3)]) as api:
        one = "".join(f"GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(3)).encode()
        answer = raw(api.url, one[:-2] + b"Connection: close\r\n\r\n")
        assert [part[-1:] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"0", b"1", b"2"]


def test_chunked_bodies_and_expect_continue_are_understood(raw: Raw) -> None:
    with standin([{"match": {"json": {"a": 1}}, "answer": {}}]) as api:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert raw(api.url, head + b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n').startswith(b"HTTP/1.1 200")
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n"
        host, port = api.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(head)
            assert sock.recv(1000).startswith(b"HTTP/1.1 100")
            sock.sendall(b'{"a": 1}')
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, 413),
        (b"GET /?" + b"a&" * 2_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_no_proper_request_is_answered_and_reported(raw: Raw, sent: bytes, status: int) -> None:
    with unchecked([{"answer": {}}]) as api:
        assert raw(api.url, sent).startswith(f"HTTP/1.1 {status} ".encode())
        assert httpx2.get(api.url).status_code == 200
    (unexpected,) = api.report.unexpected
    assert "it is no request that HTTP/1.1 allows" in str(unexpected)


def test_no_bytes_stop_the_server() -> None:
    chance = random.Random(7)
    pieces = [
        b"GET ",
        b"/ ",
        b"HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"\r\n",
        b"Content-Length: ",
        b"5\r\n",
        b"\0",
        b"\xff",
        b"x" * 99,
    ]
    with unchecked([{"answer": {}}]) as api:
        host, port = api.url.removeprefix("http://").split(":")
        for _ in range(200):
            with socket.create_connection((host, int(port)), timeout=20) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(b"".join(chance.choices(pieces, k=chance.randrange(1, 12))))
                if chance.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65_536):
                        pass
        assert httpx2.get(api.url).status_code == 200
        assert api.report.unexpected_total > 0


def test_unexpected_calls_get_a_reason_and_fail_the_check() -> None:
    with unchecked({"name": "stock", "expectations": [{"match": {"path": "/items"}, "answer": {}}]}) as api:
        assert httpx2.get(f"{api.url}/items").status_code == 200
        answer = httpx2.get(f"{api.url}/item?x=1")
    assert answer.status_code == 501
    assert answer.json()["nearest"] == "ANY METHOD /items"
    assert answer.json()["differences"] == ["path is /item, not /items"]
    with pytest.raises(StandInMismatch) as caught:
        api.check()
    why = "no expectation matches; the nearest is 'ANY METHOD /items': path is /item, not /items"
    assert str(caught.value).splitlines() == [
        "stock: 2 calls, not as expected",
        "  1 x ANY METHOD /items",
        f"  unexpected call 2: GET /item?x=1: {why}",
    ]
    assert json.loads(json.dumps(caught.value.report.as_json()))["unexpectedTotal"] == 1


def test_unused_expectations_fail_the_check_and_optional_ones_do_not() -> None:
    script = [
        {"name": "thrice", "match": {"path": "/a"}, "answer": {}, "calls": 3},
        {"name": "optional", "match": {"path": "/b"}, "answer": {}, "atLeast": 0},
    ]
    with pytest.raises(StandInMismatch) as caught, standin(script) as api:
        httpx2.get(f"{api.url}/a")
    assert [str(each) for each in caught.value.report.unused] == ["unused: thrice: expected at least 3 calls, saw 1"]


def test_the_check_does_not_hide_what_went_wrong_before_it() -> None:
    with pytest.raises(ZeroDivisionError), standin([{"answer": {}}]):
        raise ZeroDivisionError


def test_calls_are_recorded_as_they_came() -> None:
    with standin([{"name": "any", "answer": {"status": 202}}]) as api:
        httpx2.post(f"{api.url}/a%20b?x=1&x=2&y=", json={"k": "ü"}, headers={"X-Trace": "t"})
        (call,) = api.calls
    assert (call.number, call.method, call.path, call.expectation, call.answer) == (1, "POST", "/a b", "any", "202")
    assert (call.query, call.json(), call.header("x-trace")) == (
        (("x", "1"), ("x", "2"), ("y", "")), {"k": "ü"}, "t",
    )  # fmt: skip


def test_a_call_as_to_a_proxy_is_taken_by_its_path(raw: Raw) -> None:
    with standin([{"match": {"path": "/a", "query": {"x": 1}}, "answer": {}}]) as api:
        assert raw(api.url, GET.replace(b"GET /", b"GET http://shop.example/a?x=1")).startswith(b"HTTP/1.1 200")


def test_a_call_to_upgrade_or_tunnel_is_answered_as_any_other(raw: Raw) -> None:
    with standin([{"answer": {"status": 404}, "calls": 2}]) as api:
        upgrade = GET.replace(b"Connection: close", b"Connection: upgrade, close\r\nUpgrade: websocket")
        assert raw(api.url, upgrade).startswith(b"HTTP/1.1 404")
        assert raw(api.url, GET.replace(b"GET /", b"CONNECT x:443")).startswith(b"HTTP/1.1 404")


def test_what_is_kept_of_bodies_is_bounded() -> None:
    with standin([{"answer": {}}]) as api, httpx2.Client(base_url=api.url) as client:
        for _ in range(20):
            client.post("/", content=b"x" * 1_000_000)
        assert [len(call.body) for call in api.calls] == [1_000_000] * 16 + [0] * 4


@pytest.mark.slow
def test_thousands_of_calls_from_many_clients_are_each_counted_once() -> None:
    answers = [{"status": 503, "times": 500}, {"status": 200}]
    with standin([{"match": {"path": "/{n}"}, "answers": answers, "calls": 4_000}]) as api:

        def calls(_: int) -> list[int]:
            with httpx2.Client(base_url=api.url, timeout=60) as client:
                return [client.get(f"/{number}").status_code for number in range(200)]

        with ThreadPoolExecutor(20) as pool:
            statuses = [status for each in pool.map(calls, range(20)) for status in each]
    assert (statuses.count(503), statuses.count(200)) == (500, 3_500)
    assert [call.number for call in api.calls] == list(range(1, 4_001))


def test_a_port_that_is_taken_is_an_error_and_one_that_was_just_used_is_not() -> None:
    with standin([{"answer": {}, "atLeast": 0}]) as api:
        port = int(api.url.rpartition(":")[2])
        httpx2.get(api.url)
        with pytest.raises(InputError, match=f"cannot serve on 127.0.0.1:{port}: .*; choose another port"):
            StandIn([{"answer": {}}], port=port).start()
    with standin([{"answer": {}}], port=port) as again:
        assert httpx2.get(again.url).status_code == 200


@pytest.mark.parametrize(("host", "port"), [("no-such-host.invalid", 0), ("127.0.0.1", 99_999), ("203.0.113.1", 0)])
def test_an_address_that_cannot_be_had_is_an_error(host: str, port: int) -> None:
    with pytest.raises(InputError):
        StandIn([{"answer": {}}], host=host, port=port).start()


def test_it_serves_on_ipv6_too() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 on loopback: enable it with sysctl net.ipv6.conf.lo.disable_ipv6=0")
    with standin([{"answer": {}}], host="::1") as api:
        assert api.url.startswith("http://[::1]:")
        assert httpx2.get(api.url).status_code == 200


def test_serve_runs_until_it_is_told_to_stop_and_tells_of_every_call() -> None:
    stop, urls, seen, reports = threading.Event(), [], [], []
    ready = threading.Event()

    def run() -> None:
        reports.append(
            serve([{"answer": {}}], ready=lambda url: (urls.append(url), ready.set())[0], watch=seen.append, stop=stop)
        )

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(20)
    httpx2.get(f"{urls[0]}/a")
    stop.set()
    thread.join(20)
    (report,) = reports
    assert isinstance(report, Report)
    assert (report.ok, report.total, [str(call) for call in seen]) == (True, 1, ["GET /a"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_report_at_a_signal(number: int) -> None:
    program = (
        "from squall.standins import serve\n"
        "report = serve([{'answer': {}}], ready=lambda url: print(url, flush=True))\n"
        "print(report.ok, report.total, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        httpx2.get(process.stdout.readline().strip())
        os.kill(process.pid, number)
        assert process.stdout.read().strip() == "True 1"
    assert process.returncode == 0
