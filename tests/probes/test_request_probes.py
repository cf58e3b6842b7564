"""What the http, tcp and prometheus probes say of real servers, and of those that misbehave."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError
from squall.probes.prometheus import one_number
from squall.probes.registry import build
from squall.probes.spec import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.probes.samples import Sample
    from tests.probes.conftest import RunningService
    from tests.servers import PrometheusServer


def probe(**fields: Any) -> Probe:
    return Probe.model_validate({"name": "one", "timeout": "2s", **fields})


def taken(one: Probe) -> tuple[list[Sample], str]:
    """The samples of one look, and the reason where it failed."""

    async def run() -> tuple[list[Sample], str]:
        sampler = build(one)
        try:
            samples = await sampler.sample()
        finally:
            await sampler.close()
        assert {sample.series for sample in samples} <= set(sampler.series())
        return samples, sampler.last_failure

    return asyncio.run(run())


def http(url: str, **fields: Any) -> tuple[str, int, str]:
    (sample,), reason = taken(probe(http={"url": url}, **fields))
    assert sample.latency_ns > 0
    return sample.outcome, sample.detail, reason


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", ("ok", 200, "")),
        ("/chunked", ("ok", 200, "")),
        ("/until-close", ("ok", 200, "")),
        ("/big", ("ok", 200, "")),
        ("/status/302", ("ok", 302, "")),  # a redirect is an answer; it is not followed
        ("/status/503", ("error", 503, "status 503")),
        ("/status/404", ("error", 404, "status 404")),
        ("/garbage", ("error", errno.EPROTO, "not an HTTP/1.1 answer")),
        ("/drop", ("error", errno.EPROTO, "closed without an answer")),
    ],
)
def test_what_an_http_probe_makes_of_an_answer(
    service: RunningService, path: str, wanted: tuple[str, int, str]
) -> None:
    assert http(service.url(path)) == wanted


def test_a_reset_is_an_error_with_its_errno(service: RunningService) -> None:
    assert http(service.url("/reset"))[:2] == ("error", errno.ECONNRESET)


def test_nobody_listening_is_refused(nobody: int) -> None:
    assert http(f"http://127.0.0.1:{nobody}/")[:2] == ("refused", errno.ECONNREFUSED)


def test_a_host_that_does_not_exist_is_refused() -> None:
    outcome, detail, reason = http("http://no-such-host.invalid/", timeout="10s")
    assert (outcome, detail) == ("refused", errno.EHOSTUNREACH)
    assert reason


def test_no_answer_is_a_timeout_of_the_shorter_bound(service: RunningService) -> None:
    assert http(service.url("/hang"), timeout="50ms") == ("timeout", errno.ETIMEDOUT, "no answer within 0.05 s")
    (sample,), _ = taken(probe(http={"url": service.url("/hang"), "timeout": "40ms"}))
    assert (sample.outcome, sample.latency_ns >= 40_000_000) == ("timeout", True)


def test_a_name_is_looked_up(service: RunningService) -> None:
    assert http(f"http://localhost:{service.port}/")[0] == "ok"


def test_a_name_server_that_is_silent_is_bounded_by_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        answer.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    async def run() -> list[Sample]:
        sampler = build(probe(tcp="shop.test:80", timeout="30ms"))
        both = await sampler.sample() + await sampler.sample()
        assert sum(thread.name == "resolve shop.test" for thread in threading.enumerate()) == 1
        answer.set()
        return both

    assert [sample.outcome for sample in asyncio.run(run())] == ["timeout", "timeout"]


def test_https_is_asked_with_its_certificate_checked(tls_service: int) -> None:
    assert http(f"https://localhost:{tls_service}/") == ("ok", 200, "")
    outcome, detail, reason = http(f"https://127.0.0.1:{tls_service}/")  # the certificate is for another name
    assert (outcome, detail) == ("error", errno.EPROTO)
    assert "certificate" in reason.lower()


def test_https_to_a_server_without_tls_is_an_error(service: RunningService) -> None:
    assert http(f"https://127.0.0.1:{service.port}/", timeout="500ms")[0] in ("error", "timeout")


def test_tcp_opens_a_connection(service: RunningService, nobody: int) -> None:
    (sample,), _ = taken(probe(tcp=f"127.0.0.1:{service.port}"))
    assert (sample.outcome, sample.detail) == ("ok", 0)
    (sample,), _ = taken(probe(tcp=f"[::1]:{nobody}"))
    assert sample.outcome == "refused"


def test_a_port_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"one: 127\.0\.0\.1:70000: a port is 1 to 65535"):
        build(probe(tcp="127.0.0.1:70000"))


def test_a_real_prometheus_answers_with_one_number(prometheus_server: PrometheusServer) -> None:
    (request, value), _ = taken(probe(prometheus={"url": prometheus_server.url, "query": "sum(vector(20)) + 22"}))
    assert (request.outcome, request.detail) == ("ok", 200)
    assert (value.series, value.outcome, value.value) == ("one.value", "value", 42.0)
    (_, value), _ = taken(probe(prometheus={"url": prometheus_server.url + "/", "query": "1.5"}))
    assert value.value == 1.5


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("sum(", 400, "parse error"),
        ("no_such_metric", errno.EPROTO, "yields 0 series"),
        (
            "label_replace(vector(1), 'a', 'b', '', '') or vector(2)",
            errno.EPROTO,
            "yields 2 series, not one; aggregate it",
        ),
        ("vector(1)[5m:1m]", errno.EPROTO, "yields a matrix"),
        ("0 / 0", errno.EPROTO, "yields NaN"),
    ],
)
def test_what_is_no_single_number_is_an_error_that_says_why(
    prometheus_server: PrometheusServer, query: str, status: int, says: str
) -> None:
    (sample,), reason = taken(probe(prometheus={"url": prometheus_server.url, "query": query}))
    assert (sample.outcome, sample.detail) == ("error", status)
    assert says in reason


def _success(data: str) -> bytes:
    return b'{"status":"success","data":' + data.encode() + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"status":"success"}', b'{"status":"error"}', _success("[]"),
        _success('{"resultType":"vector","result":[7]}'), _success('{"resultType":"vector","result":{}}'),
        _success('{"resultType":"scalar","result":[1]}'), _success('{"resultType":"scalar","result":[1,"x"]}'),
        _success('{"resultType":"scalar","result":[1,null]}'),
    ],
)  # fmt: skip
def test_an_answer_of_something_else_is_an_error_not_a_traceback(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        one_number(200, body)


def test_a_server_that_is_no_prometheus_says_so(service: RunningService, says: Callable[[list[bytes]], int]) -> None:
    _, reason = taken(probe(prometheus={"url": service.url(""), "query": "1"}))
    assert reason == "status 404 with a body that is not JSON: is this a Prometheus?"
    endless = says([b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (5 << 20)])
    _, reason = taken(probe(prometheus={"url": f"http://127.0.0.1:{endless}", "query": "1"}))
    assert reason == f"a body longer than {4 << 20} bytes"
