"""The middleware in real servers: what a client, the metrics, the log and the trace see of it."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.chaos import sign
from tests.resilience.chaos.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.resilience.chaos.conftest import Driver, Service

    Serve = Callable[..., Service]

BOTH = pytest.mark.parametrize("kind", ["asgi", "wsgi"])
ON = {"SQUALL_CHAOS_ENABLED": "on", "SQUALL_CHAOS_UNTIL": "2999-01-01T00:00:00Z"}
DRIVEN = {"SQUALL_CHAOS_DRIVEN": "on"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIXED = {"SQUALL_CHAOS_DELAY_MIN": "150ms", "SQUALL_CHAOS_DELAY_MAX": "150ms"}


def injected(service: Service, reason: str) -> float:
    line = f'http_chaos_injected_total{{service="shop",reason="{reason}"}} '
    found = [text for text in service.get("/metrics").body.decode().splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


@BOTH
def test_off_by_default_whatever_the_header_says(serve: Serve, kind: str) -> None:
    service = serve(kind)
    answer = service.get("/a?b=c", X_Chaos_Enabled="1")
    assert answer.status == 200
    assert answer.json["path"] == "/a"
    assert "x-chaos-enabled" in answer.json["headers"]
    assert service.lines() == []


@BOTH
def test_a_hit_is_delayed_counted_and_logged_with_its_trace(serve: Serve, kind: str) -> None:
    service = serve(kind, SQUALL_CHAOS_SAMPLE="100%", **ON, **FIXED)
    assert service.get("/orders/7?x=1", X_Chaos_Enabled="1", traceparent=TRACEPARENT).seconds >= 0.15
    assert injected(service, "delay") == 1
    (line,) = service.lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "msg": "chaos injected", "service": "shop", "reason": "delay", "delay_ms": 150.0, "method": "GET",
        "path": "/orders/7", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
    }  # fmt: skip


@BOTH
def test_a_hit_is_aborted_before_the_handler(serve: Serve, kind: str) -> None:
    service = serve(kind, SQUALL_CHAOS_SAMPLE="1", SQUALL_CHAOS_ABORT_STATUS="418", SQUALL_CHAOS_ABORT_SHARE="1", **ON)
    answer = service.get("/x", "POST", b"a body that nobody reads", X_Chaos_Enabled="yes")
    assert (answer.status, answer.body) == (418, b"")
    assert service.get("/x").json["method"] == "GET"
    assert injected(service, "abort") == 1
    assert [line["status"] for line in service.lines()] == [418]


@BOTH
def test_the_span_is_in_the_requests_own_trace(serve: Serve, kind: str, tmp_path: Path) -> None:
    spans = tmp_path / "spans"
    service = serve(kind, SQUALL_CHAOS_SAMPLE="1", TRACE_TO=str(spans), **ON, **FIXED)
    service.get("/x", X_Chaos_Enabled="1", traceparent=TRACEPARENT)
    (span,) = [json.loads(line) for line in spans.read_text().splitlines()]
    assert (span["name"], span["trace"], span["parent"]) == ("delay-injected", *TRACEPARENT.split("-")[1:3])
    assert span["attributes"] == {"chaos.service": "shop", "chaos.reason": "delay", "chaos.delay_ms": 150.0}
    assert span["ns"] >= 150_000_000


def p95_of(service: Service, count: int, **headers: str) -> float:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: service.get(**headers), range(count)))
    assert {answer.status for answer in answers} == {200}
    return sorted(answer.seconds for answer in answers)[int(count * 0.95)]


def test_the_p95_of_a_treated_service_is_bounded(serve: Serve) -> None:
    every = serve("asgi", SQUALL_CHAOS_SAMPLE="100%", **ON)  # up to 500 ms, the default
    found = p95_of(every, 100, X_Chaos_Enabled="1")
    assert injected(every, "delay") == 100
    assert found > 0.35
    assert found <= 0.8 or p95_of(every, 100, X_Chaos_Enabled="1") <= 0.8  # the machine may have been busy
    default = serve("asgi", **ON)
    assert p95_of(default, 200, X_Chaos_Enabled="1") <= 0.8
    assert injected(default, "delay") == 2  # which of the 200 is decided by the seed


@BOTH
def test_an_outsider_has_no_secret(serve: Serve, kind: str) -> None:
    secret = "known to insiders only"
    service = serve(kind, SQUALL_CHAOS_SAMPLE="1", SQUALL_CHAOS_SECRET=secret, **ON, **FIXED)
    service.get("/x", X_Chaos_Enabled="1")
    assert injected(service, "delay") == 0
    assert 'http_chaos_refused_total{service="shop"} 1' in service.get("/metrics").body.decode()
    service.get("/x", X_Chaos_Enabled=sign(secret))
    assert injected(service, "delay") == 1


@BOTH
def test_the_edge_takes_the_header_away(serve: Serve, kind: str) -> None:
    service = serve(kind, SQUALL_CHAOS_SAMPLE="1", SQUALL_CHAOS_EDGE="strip", **ON, **FIXED)
    assert "x-chaos-enabled" not in service.get("/x", X_Chaos_Enabled="1", X_Other="2").json["headers"]
    assert "x-other" in service.get("/x", X_Chaos_Enabled="1", X_Other="2").json["headers"]
    assert service.lines() == []


@BOTH
def test_it_is_driven_within_its_lease(serve: Serve, driver: Driver, kind: str) -> None:
    service = serve(kind, **DRIVEN)
    assert len(driver.live()) == 1
    driver.switch_on()
    answer = service.get("/x")
    assert answer.seconds >= 0.1
    assert service.lines()[-1]["fault"] == "0-http.delay"
    driver.switch_on(abort_status=429, abort_body="slow down", abort_headers={"Retry-After": "3"})
    wait_for(lambda: service.get("/x").status == 429, "the new fault is not seen")
    answer = service.get("/x")
    assert (answer.body, answer.headers["retry-after" if kind == "asgi" else "Retry-After"]) == (b"slow down", "3")
    driver.renew(-0.001)
    wait_for(lambda: service.get("/x").status == 200, "it goes on without a lease")
    requests, delayed, aborted = (
        int.from_bytes(driver.live()[0].read_bytes()[at : at + 8], "little") for at in (24, 32, 40)
    )
    assert delayed >= 1
    assert aborted >= 2
    assert requests == delayed + aborted


def test_a_lease_that_nobody_renews_ends_between_two_looks(serve: Serve, driver: Driver) -> None:
    service = serve("asgi", **DRIVEN)
    driver.switch_on(delay_min_ns=0, delay_max_ns=0)
    driver.renew(0.4)
    ends = time.monotonic() + 0.4
    service.get("/x")
    while time.monotonic() < ends + 0.1:
        service.get("/x")
    before = len(service.lines())
    assert before > 0
    service.get("/x")
    assert len(service.lines()) == before


@pytest.mark.parametrize("spoil", ["all may write", "somebody's fault file", "a link", "a fifo", "HALT"])
def test_what_may_not_be_believed_is_not_there(serve: Serve, driver: Driver, tmp_path: Path, spoil: str) -> None:
    service = serve("asgi", **DRIVEN)
    driver.switch_on(delay_min_ns=2_000_000_000, delay_max_ns=2_000_000_000)
    control = driver.folder / "shop.json"
    if spoil == "all may write":
        driver.folder.chmod(0o777)
    elif spoil == "somebody's fault file":
        control.chmod(0o666)
    elif spoil == "a link":
        control.rename(tmp_path / "elsewhere.json")
        control.symlink_to(tmp_path / "elsewhere.json")
    elif spoil == "a fifo":
        control.unlink()
        import os

        os.mkfifo(control, 0o644)
    else:
        (driver.folder / "HALT").touch()
    assert service.get("/x").seconds < 2
    assert service.lines() == []
    said: Any = [line for line in service.log.read_text().splitlines() if "cannot be driven" in line]
    assert len(said) == (0 if spoil == "HALT" else 1)


def test_a_service_that_ends_takes_its_registration_away(serve: Serve, driver: Driver) -> None:
    ended, killed = serve("asgi", **DRIVEN), serve("asgi", **DRIVEN)
    wait_for(lambda: len(driver.live()) == 2, "they do not register")
    ended.get("/x")  # it serves, so it ends in good order
    ended.process.send_signal(signal.SIGTERM)
    killed.process.kill()
    ended.process.wait()
    killed.process.wait()
    assert [path.name for path in driver.live()] == [f"shop.{killed.process.pid}.live"]
    serve("asgi", **DRIVEN)
    assert f"shop.{killed.process.pid}.live" not in [path.name for path in driver.live()]


@BOTH
def test_a_request_that_is_held_back_goes_on_when_the_fault_is_off(serve: Serve, driver: Driver, kind: str) -> None:
    service = serve(kind, **DRIVEN)
    driver.switch_on(delay_min_ns=20_000_000_000, delay_max_ns=20_000_000_000)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(service.get, "/x")
        wait_for(lambda: len(service.lines()) == 1, "it is not hit")
        driver.renew(0.3)
        assert 0.2 < held.result(5).seconds < 3
