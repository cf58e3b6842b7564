"""HTTP toxics: exact where they hit, invisible where they don't."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from typing import Any

import pytest

from tests.proxy.http_service import JSON, Client, Route, Service


@pytest.fixture
def route(bench: Any) -> Route:
    return Route(bench)


# Passing through


def exchange_of_everything(client: Client) -> list[Any]:
    """One connection that uses most of what HTTP/1.1 has; what came back."""
    seen: list[Any] = [
        client.get("/json"),
        client.get("/chunked"),
        client.get("/json", "HEAD"),
        client.get("/204"),
        client.get("/304"),
        client.get("/echo", "POST", body=b"x" * 100_000),
    ]
    client.send(
        "GET /a HTTP/1.1\nHost: h\n\nPOST /b HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"
        "5;x=y\nhello\n0\nX-T: 1\n\nGET /c HTTP/1.1\nHost: h\n\n"
    )
    seen += [client.answer() for _ in range(3)]
    client.send("POST /e HTTP/1.1\nHost: h\nContent-Length: 4\nExpect: 100-continue\n\n")
    seen.append(client.head())
    client.send(b"body")
    seen.append(client.answer())
    client.send("GET /interim HTTP/1.1\nHost: h\n\n")
    seen += [client.head(), client.answer()]
    status, headers, body = client.get("/large")
    seen.append((status, headers, hashlib.sha256(body).hexdigest()))
    seen.append(client.get("/until-close"))
    return [(item[0], {k: v for k, v in item[1].items() if k != "date"}, *item[2:]) for item in seen]


@pytest.mark.parametrize("engine", ["splice", "copy"])
@pytest.mark.parametrize("toxic", ["none", "elsewhere", "tcp", "slicer"])
def test_what_no_rule_hits_passes_unharmed(bench: Any, engine: str, toxic: str) -> None:
    """Keep-alive, pipelining, chunks, trailers, HEAD, 204, 304, expectations, interim answers, large bodies, connection close."""
    route = Route(bench, engine=engine)
    if toxic == "elsewhere":
        route.add("abort", path="/never/*")
        route.add("delay", delay=5000, method="DELETE")
    if toxic == "tcp":
        for stream in ("upstream", "downstream"):
            route.control.add_toxic(f"l-{stream}", "latency", stream, attributes={"latency": 1})
    if toxic == "slicer":
        for stream in ("upstream", "downstream"):
            route.control.add_toxic(
                f"s-{stream}", "slicer", stream, attributes={"average_size": 1500, "size_variation": 1400}
            )
    direct = Service()
    sock = socket.create_connection(("127.0.0.1", bench.upstream(direct).port), timeout=10)
    with sock:
        expected = exchange_of_everything(Client(sock))
    assert exchange_of_everything(route.client()) == expected
    assert route.service.requests == direct.requests
    stats = route.control.stats()
    assert stats["received"] == stats["sent"]
    assert stats["http"] == {"messages": len(direct.requests), "not_http": 0, "tls": 0, "upgraded": 0}


def test_byte_by_byte_is_the_same(route: Route) -> None:
    route.add("delay", path="/echo", delay=1)
    client = route.client()
    for byte in b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
        client.send(bytes([byte]))
    assert client.answer()[2] == b"abc"
    assert route.hits("delay")["requests"] == 1


def test_after_an_upgrade_it_is_a_stream_of_bytes(route: Route) -> None:
    route.add("delay", path="/other", delay=5000)
    client = route.client()
    client.send("GET /ws HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: echo\n\n")
    assert client.head()[0] == 101
    for _ in range(3):
        client.send("GET /other HTTP/1.1\nHost: h\n\n")
        assert client.take(32) == b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n"
    assert route.control.stats()["http"]["upgraded"] == 1


@pytest.mark.parametrize(
    ("first", "counter"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
        (b"*1\r\n$4\r\nPING\r\n", "not_http"),
        (b"PING\r\n", "not_http"),
        (b"PING", "not_http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_http"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "not_http"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "not_http"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "not_http"),
        (b"GET / HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n", "not_http"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, "not_http"),
    ],
)
def test_what_is_not_http_passes_unharmed_and_is_counted(bench: Any, sockets: Any, first: bytes, counter: str) -> None:
    """Also what two readers might frame differently: hands off."""
    proxy = bench.proxy(bench.upstream(bench.echo), http=True)
    proxy.control.add_toxic("abort", "http_abort", "upstream")
    client = proxy.connect()
    client.sendall(first)
    assert sockets.receive(client, len(first)) == first
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert sockets.receive(client, 18) == b"GET / HTTP/1.1\r\n\r\n"
    assert proxy.control.stats()["http"][counter] == 1
    assert proxy.hits("abort")[counter] == 1
    assert proxy.hits("abort")["requests"] == 0


def test_a_server_that_speaks_first_is_heard(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream, http=True)
    client = proxy.connect()
    server = upstream.accept()
    server.sendall(b"220 mail ready\r\n")
    assert sockets.receive(client, 16) == b"220 mail ready\r\n"
    client.sendall(b"QUIT\r\n")
    assert sockets.receive(server, 6) == b"QUIT\r\n"


# Delay


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_a_delay_holds_matching_messages_only(route: Route, stream: str) -> None:
    route.add("delay", stream, path="/slow/*", method="get", headers={"X-Who": "a*"}, delay=1000)
    client = route.client()
    started = time.monotonic()
    for path, method, headers in (
        ("/fast", "GET", "X-Who: ab\n"),
        ("/slow/1", "PUT", "X-Who: ab\n"),
        ("/slow/1", "GET", ""),
        ("/slow/1", "GET", "x-who: ba\n"),
    ):
        client.get(path, method, headers)
    assert time.monotonic() - started < 0.9
    started = time.monotonic()
    assert client.get("/slow/1?q=1", headers="x-who: ab\n")[0] == 200
    assert 1 <= time.monotonic() - started < 5
    assert route.hits("delay")["requests"] == 1
    assert route.hits("delay")["connections"] == 1


def test_a_held_message_goes_on_when_its_delay_goes(route: Route, bench: Any) -> None:
    route.add("delay", delay=60_000)
    client = route.client()
    client.send("POST /x HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc")
    bench.until(lambda: route.hits("delay")["requests"] == 1, "it is held")
    route.control.update_toxic("delay", attributes={"delay": 50_000})
    assert not route.service.requests
    route.control.remove_toxic("delay")
    assert client.answer()[2] == b"abc"


def test_the_share_of_requests_is_drawn_from_the_seed(bench: Any) -> None:
    """The same requests are hit when the seed is the same, others when it is not."""

    def statuses(seed: int) -> list[int]:
        proxy = bench.proxy(bench.upstream(Service()), seed=seed, http=True)
        proxy.control.add_toxic("some", "http_abort", "upstream", attributes={"percent": 30.0})
        client = Client(proxy.connect())
        return [client.get("/")[0] for _ in range(100)]

    first = statuses(1)
    assert first == statuses(1)
    assert first != statuses(2)
    assert 10 < first.count(503) < 55


# Abort


def test_an_abort_answers_itself_and_the_connection_goes_on(route: Route) -> None:
    route.add("abort", path="/pay", status=418, body="téa", response_headers={"Retry-After": "3"})
    client = route.client()
    for _ in range(2):
        status, headers, body = client.get("/pay", "POST", body=b"z" * 300_000)
        assert (status, headers["retry-after"], body.decode()) == (418, "3", "téa")
        assert client.get("/ok")[0] == 200
    assert client.get("/pay", "HEAD")[0] == 418
    client.send(
        "POST /pay HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\nGET /after HTTP/1.1\nHost: h\n\n"
    )
    assert client.answer()[0] == 418
    assert client.answer()[1]["x-path"] == "/after"
    assert [request[1] for request in route.service.requests] == ["/ok", "/ok", "/after"]
    assert route.hits("abort")["requests"] == 4


def test_pipelined_answers_keep_their_order_around_aborts(route: Route) -> None:
    route.add("abort", path="/no", body="no")
    route.add("delay", path="/late", delay=100)
    client = route.client()
    paths = ["/1", "/no", "/late", "/no", "/no", "/2", "/no"]
    client.send("".join(f"GET {path} HTTP/1.1\nHost: h\n\n" for path in paths))
    answers = [client.answer() for _ in paths]
    assert [answer[2] or answer[1]["x-path"].encode() for answer in answers] == [
        b"/1",
        b"no",
        b"/late",
        b"no",
        b"no",
        b"/2",
        b"no",
    ]


def test_an_abort_closes_where_the_client_would_not_know_what_follows(route: Route) -> None:
    route.add("abort", path="/pay")
    client = route.client()
    client.send("POST /pay HTTP/1.1\nHost: h\nContent-Length: 4\nExpect: 100-continue\n\n")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (503, "close")
    assert client.ended()
    for request in ("GET /pay HTTP/1.0\n\n", "GET /pay HTTP/1.1\nHost: h\nConnection: close\n\n"):
        client = route.client()
        client.send(request)
        assert client.answer()[1]["connection"] == "close"
        assert client.ended()


# Replace and patch


def test_requests_are_replaced(route: Route) -> None:
    route.add("replace", new_path="/json?x=1", body="nëw", set_headers={"X-New": "1"})
    client = route.client()
    assert client.get("/old", "POST", "X-Old: 1\n", b"old body")[0] == 200
    client.send("POST /old HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nTrailer: X\n\n3\nabc\n0\nX: 1\n\n")
    assert client.answer()[0] == 200
    assert client.get("/old")[0] == 200
    for method, target, headers, body in route.service.requests:
        assert (target, body.decode()) == ("/json?x=1", "nëw")
        assert headers["x-new"] == "1"
        assert headers["content-length"] == "4"
        assert not {"x-old", "transfer-encoding", "trailer"} & set(headers)
        assert method in ("POST", "GET")


def test_responses_are_replaced(route: Route) -> None:
    route.add("replace", "downstream", status=500, body="broken")
    client = route.client()
    for path in ("/json", "/chunked", "/large", "/204", "/304"):
        status, headers, body = client.get(path)
        assert (status, body) == (500, b"broken"), path
        assert headers["content-length"] == "6"
        assert "transfer-encoding" not in headers
    assert client.get("/json", "HEAD")[1]["content-length"] == "6"
    assert client.get("/until-close")[2] == b"broken"
    assert client.ended()
    assert route.hits("replace")["requests"] == 7


@pytest.mark.parametrize("status", [204, 304, 404])
def test_a_replaced_status_keeps_the_framing_right(route: Route, status: int) -> None:
    route.add("replace", "downstream", status=status)
    client = route.client()
    for path, method in (
        ("/json", "GET"),
        ("/chunked", "GET"),
        ("/204", "GET"),
        ("/json", "HEAD"),
        ("/304", "GET"),
        ("/large", "GET"),
    ):
        got, headers, body = client.get(path, method)
        assert got == status
        if status in (204, 304):
            assert not {"content-length", "transfer-encoding"} & set(headers)
        elif path == "/json" and method == "GET":
            assert body == JSON
    assert route.hits("replace")["requests"] == 6


def test_bodies_are_patched(route: Route) -> None:
    route.add(
        "patch",
        "downstream",
        set_headers={"X-A": "1", "etag": "v2"},
        remove_headers=["Content-Type"],
        body={"price": {"net": 9, "tax": None}, "id": None},
    )
    client = route.client()
    status, headers, body = client.get("/json")
    assert json.loads(body) == {"tags": ["a"], "price": {"net": 9}}
    assert (status, headers["x-a"], headers["etag"], headers["content-length"]) == (200, "1", "v2", str(len(body)))
    assert "content-type" not in headers
    assert client.get("/chunked")[1]["trailer x-sum"] == "7"  # three documents in a row are not JSON: as it came
    assert client.get("/204")[0] == 204
    hits = route.hits("patch")
    assert (hits["requests"], hits["missed"]) == (3, 2)


def test_requests_are_patched(route: Route) -> None:
    route.add("patch", query={"page": "2 3", "new": "ü"}, set_headers={"Authorization": "none"}, body={"n": 2})
    client = route.client()
    assert (
        client.get("/echo?page=1&keep=%20x&page=9", "POST", "Authorization: secret\n", b'{"n": 1, "m": "\xc3\xa4"}')[2]
        == '{"n":2,"m":"ä"}'.encode()
    )
    _, target, headers, _ = route.service.requests[0]
    assert target == "/echo?page=2%203&keep=%20x&new=%C3%BC"
    assert headers["authorization"] == "none"


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(route: Route) -> None:
    route.add("patch", body={"n": 2})
    client = route.client()
    client.send("POST /echo HTTP/1.1\nHost: h\nContent-Length: 7\nExpect: 100-continue\n\n")
    assert client.head()[0] == 100
    client.send(b'{"n":1}')
    assert client.answer()[2] == b'{"n":2}'
    assert "expect" not in route.service.requests[0][2]


def test_a_body_that_is_too_large_passes_and_counts_as_missed(bench: Any) -> None:
    route = Route(bench, http_body_bytes=100_000)
    route.add("patch", "downstream", body={"n": 2})
    client = route.client()
    body = client.get("/large")[2]
    assert hashlib.sha256(body).digest() == hashlib.sha256(random.Random(5).randbytes(6_000_000)).digest()
    assert route.hits("patch")["missed"] == 1
    assert json.loads(client.get("/json")[2])["n"] == 2


# Live changes


def test_toxics_come_and_go_between_messages_of_a_live_connection(route: Route) -> None:
    client = route.client()
    for _ in range(5):
        assert client.get("/json")[0] == 200
        route.add("abort")
        assert client.get("/json")[0] == 503
        route.control.update_toxic("abort", attributes={"status": 429})
        assert client.get("/json")[0] == 429
        route.control.remove_toxic("abort")


def test_a_connection_that_is_not_followed_is_counted_and_new_ones_are_hit(bench: Any) -> None:
    proxy = bench.proxy(bench.upstream(Service()), http=False)
    old = Client(proxy.connect())
    assert old.get("/json")[0] == 200
    proxy.control.add_toxic("abort", "http_abort", "upstream")
    assert old.get("/json")[0] == 200
    assert Client(proxy.connect()).get("/json")[0] == 503
    hits = proxy.hits("abort")
    assert (hits["unfollowed"], hits["requests"]) == (1, 1)


@pytest.mark.slow
def test_many_clients_get_their_own_answers_while_http_toxics_come_and_go(route: Route) -> None:
    """Each answer is whole and belongs to its request; only what a rule may do to it happens."""
    stop, problems, counts = threading.Event(), list[str](), list[int]()

    def work(number: int) -> None:
        client, draw, done = route.client(), random.Random(number), 0
        while not stop.is_set():
            body = draw.randbytes(draw.choice((0, 10, 50_000)))
            path = f"/echo/{number}/{done}"
            status, headers, got = client.get(path, "POST", body=body)
            if not (
                (status == 200 and got == body and headers["x-path"] == path) or (status == 503 and got == b"aborted")
            ):
                problems.append(f"{path}: {status} {len(got)} for {len(body)}")
            done += 1
        counts.append(done)

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for worker in workers:
        worker.start()
    draw = random.Random(3)
    for _ in range(150):
        kind, attributes = draw.choice(
            (
                ("abort", {"percent": 50.0, "body": "aborted"}),
                ("delay", {"delay": 2, "jitter": 2}),
                ("patch", {"set_headers": {"X-A": "1"}}),
            )
        )
        route.add(kind, "upstream" if kind == "abort" else draw.choice(("upstream", "downstream")), **attributes)
        stop.wait(0.01)
        route.control.remove_toxic(kind)
    stop.set()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    assert not problems
    assert sum(counts) > 200


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("http_abort", {"status": 99}, "status 99"),
        ("http_abort", {"response_headers": {"Content-Length": "5"}}, "Content-Length"),
        ("http_replace", {"new_path": "no slash"}, "new_path"),
        ("http_replace", {"set_headers": {"a b": "c"}}, "a b"),
        ("http_patch", {"set_headers": {"X": "a\r\nY: b"}}, "X"),
        ("http_delay", {"delay": "soon"}, "delay"),
        ("http_delay", {"percent": 101.0}, "percent"),
    ],
)
def test_wrong_attributes_are_refused(bench: Any, kind: str, attributes: dict[str, Any], said: str) -> None:
    from squall.actions.proxy_control import ProxyRefused

    proxy = bench.proxy("127.0.0.1:1")
    with pytest.raises(ProxyRefused, match=said):
        proxy.control.add_toxic("t", kind, "upstream", attributes=attributes)
    assert proxy.control.toxics() == []
