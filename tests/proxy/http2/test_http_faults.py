"""The HTTP toxics on HTTP/2: as on HTTP/1.1, one stream at a time; both ends are the library h2, which forgives nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import Any

import pytest
from h2.settings import SettingCodes

from tests.proxy.http2.peers import JSON, LARGE, Client, Message, Server

SLOW_MS = 500
HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "shop")]


class Route:
    """A service behind a proxy."""

    def __init__(self, bench: Any, settings: dict[int, int] | None = None, **options: Any) -> None:
        self.service = Server(settings)
        self.proxy = bench.proxy(bench.upstream(self.service), **options)
        self.control, self.hits = self.proxy.control, self.proxy.hits

    def client(self, settings: dict[int, int] | None = None) -> Client:
        return Client(self.proxy.connect(), settings)

    def add(self, kind: str, stream: str = "upstream", **attributes: Any) -> None:
        self.control.add_toxic(kind, f"http_{kind}", stream, attributes=attributes)


@pytest.fixture
def route(bench: Any) -> Route:
    return Route(bench)


def paths(route: Route) -> list[str]:
    return [message[":path"] for message in route.service.asked]


# Delay


def test_a_late_request_is_overtaken_and_both_ends_agree_on_every_stream(route: Route) -> None:
    """The late ones get higher numbers at the service than those that overtook them; uploads wait with them."""
    route.add("delay", path="/late*", delay=SLOW_MS)
    client, body = route.client(), bytes(range(256)) * 200
    began = time.monotonic()
    late = [client.ask(f"/late{number}", "POST", body) for number in range(3)]
    soon = [client.ask(f"/soon{number}", "POST", body) for number in range(3)]
    assert [bytes(client.answer(stream).body) for stream in soon] == [body] * 3
    assert time.monotonic() - began < SLOW_MS / 1000
    assert [bytes(client.answer(stream).body) for stream in late] == [body] * 3
    assert time.monotonic() - began >= SLOW_MS / 1000
    assert paths(route) == ["/soon0", "/soon1", "/soon2", "/late0", "/late1", "/late2"]
    after = [client.ask(f"/after{number}", "POST", body) for number in range(20)]
    assert [client.answer(stream)["x-path"] for stream in after] == [f"/after{number}" for number in range(20)]


def test_a_late_answer_comes_whole_with_its_trailers(route: Route) -> None:
    route.add("delay", "downstream", path="/trailers", delay=SLOW_MS)
    client = route.client()
    began = time.monotonic()
    late, soon = client.ask("/trailers"), client.ask("/large")
    assert bytes(client.answer(soon).body) == LARGE
    message = client.answer(late)
    assert time.monotonic() - began >= SLOW_MS / 1000
    assert (bytes(message.body), message.trailers) == (JSON, [("x-sum", "7"), ("x-of", "9")])


def test_many_held_uploads_stop_nobody_and_pass_under_the_windows_that_there_are(bench: Any) -> None:
    """More is held than the service's window of the connection: others go on, and nothing overruns it afterwards."""
    route = Route(bench, {SettingCodes.INITIAL_WINDOW_SIZE: 30_000})
    route.add("delay", path="/late*", delay=SLOW_MS)
    client, body = route.client(), bytes(29_000)
    late = [client.ask(f"/late{number}", "POST", body) for number in range(30)]
    began = time.monotonic()
    assert bytes(client.get("/soon", "POST", body).body) == body
    assert time.monotonic() - began < SLOW_MS / 1000
    assert [len(client.answer(stream).body) for stream in late] == [len(body)] * 30


# Abort


def test_an_abort_answers_at_once_and_the_connection_goes_on(route: Route) -> None:
    """Also in the middle of an upload, which is let come to its end."""
    route.add(
        "abort",
        path="/pay",
        status=418,
        body="téa" * 20_000,
        response_headers={"Retry-After": "3", "Connection": "close"},
    )
    client = route.client()
    for size in (None, 10, 3_000_000):
        stream = client.ask("/pay", "POST", None if size is None else bytes(size))
        message = client.answer(stream)
        client.until(lambda message=message: message.ended)
        assert (message.status, message["retry-after"], message.body.decode()) == (418, "3", "téa" * 20_000)
        assert "connection" not in dict(message.fields)
        assert client.get("/ok").status == 200
        assert message.reset is None
    head = client.get("/pay", "HEAD")
    assert (head.status, bytes(head.body)) == (418, b"")
    assert paths(route) == ["/ok"] * 3
    assert route.hits("abort")["requests"] == 4


def test_an_aborts_body_waits_for_the_clients_window(route: Route) -> None:
    route.add("abort", path="/pay", status=500, body="x" * 200_000)
    client = route.client({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    client.grants = False
    stream = client.ask("/pay")
    message = client.messages[stream]
    client.until(lambda: len(message.body) == 10)
    client.h2.increment_flow_control_window(70_000, stream)
    client.flush()
    client.until(lambda: len(message.body) == 65_535)  # all that the connection has
    client.h2.increment_flow_control_window(200_000)
    client.flush()
    client.until(lambda: len(message.body) == 70_010)
    client.h2.increment_flow_control_window(200_000, stream)
    client.flush()
    assert len(client.answer(stream).body) == 200_000
    client.grants = True
    assert bytes(client.get("/json").body) == JSON


# Replace and patch


def test_parts_of_requests_and_answers_are_replaced(route: Route) -> None:
    route.add("replace", new_path="/json?x=1", set_headers={"X-New": "1", "Keep-Alive": "no"}, body="else", path="/a")
    client = route.client()
    assert bytes(client.get("/a", "POST", b"z" * 300_000, x_old="1").body) == JSON
    (asked,) = route.service.asked
    assert (asked[":path"], bytes(asked.body), asked["content-length"], asked["x-new"]) == (
        "/json?x=1",
        b"else",
        "4",
        "1",
    )
    assert {"x-old", "keep-alive"}.isdisjoint(dict(asked.fields))
    route.control.remove_toxic("replace")
    route.add("replace", "downstream", status=404, body="gone", path="/json")
    for method, body in (("GET", b"gone"), ("HEAD", b"")):
        message = client.get("/json", method)
        assert (message.status, message["content-length"], bytes(message.body)) == (404, "4", body)
    assert (client.get("/large").status, route.hits("replace")["requests"]) == (200, 2)
    route.control.update_toxic("replace", attributes={"status": 204, "path": "/large"})
    assert (client.get("/large").status, bytes(client.get("/large").body)) == (204, b"")
    assert bytes(client.get("/trailers").body) == JSON


def test_json_is_patched_both_ways_and_what_is_none_is_missed(bench: Any) -> None:
    route = Route(bench, http_body_bytes=1_000_000)
    route.add(
        "patch", body={"id": 2, "tags": None}, query={"a": "ü"}, set_headers={"X-A": "b"}, remove_headers=["x-old"]
    )
    client = route.client()
    echoed = client.get("/echo?b=1", "POST", JSON, x_old="1", content_length=str(len(JSON)))
    assert json.loads(echoed.body) == {"id": 2, "price": {"net": 5, "tax": 1}}
    (asked,) = route.service.asked
    assert (asked[":path"], asked["x-a"], asked["content-length"]) == ("/echo?b=1&a=%C3%BC", "b", str(len(asked.body)))
    assert "x-old" not in dict(asked.fields)
    for body in (b"no json", bytes(2_500_000), LARGE):
        assert bytes(client.get("/echo", "POST", body).body) == body
    assert route.hits("patch")["missed"] == 3
    route.control.remove_toxic("patch")
    route.add("patch", "downstream", body={"id": 3})
    message = client.get("/trailers")
    assert (json.loads(message.body)["id"], message.trailers) == (3, [("x-sum", "7"), ("x-of", "9")])
    assert bytes(client.get("/large").body) == LARGE
    assert client.get("/204").status == 204
    assert [dict(one)["link"] for one in client.get("/interim").interim] == ["</a>"]


def test_who_waits_to_be_asked_for_a_body_is_asked(route: Route) -> None:
    route.add("patch", body={"id": 2})
    client = route.client()
    stream = client.h2.get_next_available_stream_id()
    client.messages[stream] = message = Message()
    with client.lock:
        client.h2.send_headers(stream, [*HEAD, ("expect", "100-continue")])
        client.flush()
    client.until(lambda: message.interim)
    assert message.interim == [[(":status", "100")]]
    client.h2.send_data(stream, JSON, end_stream=True)
    client.flush()
    assert json.loads(client.answer(stream).body)["id"] == 2
    assert "expect" not in dict(route.service.asked[0].fields)


# Foreign clients


def test_curl_speaks_through_it(route: Route) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl: apt-get install curl")
    route.add("abort", path="/pay", status=429, body="later")
    route.add("patch", "downstream", path="/json", body={"id": 9})
    url = f"http://127.0.0.1:{route.proxy.port}"

    def said(body: str, path: str) -> str:
        """One request a run: this curl (7.88) cannot use such a connection twice, with the service itself either."""
        command = [
            curl,
            "-sS",
            "--http2-prior-knowledge",
            "-w",
            " %{http_code} %{http_version}",
            "-d",
            "@-",
            url + path,
        ]
        return subprocess.run(command, input=body, capture_output=True, text=True, timeout=30, check=True).stdout

    assert said("x" * 200_000, "/pay") == "later 429 2"
    assert json.loads(said("x", "/json").removesuffix(" 200 2"))["id"] == 9


def test_httpx_speaks_through_it(route: Route) -> None:
    httpx = pytest.importorskip("httpx", reason="needs httpx: pip install httpx[http2]")
    route.add("abort", path="/pay", status=503, body="no")
    route.add("delay", "downstream", path="/late", delay=200)
    with httpx.Client(
        http1=False, http2=True, base_url=f"http://127.0.0.1:{route.proxy.port}", trust_env=False
    ) as client:
        for body in (b"", bytes(2_000_000)):
            answer = client.post("/pay", content=body)
            assert (answer.status_code, answer.text, answer.http_version) == (503, "no", "HTTP/2")
            began = time.monotonic()
            assert client.post("/late", content=body).content == body
            assert time.monotonic() - began >= 0.2
        assert client.get("/large").content == LARGE
