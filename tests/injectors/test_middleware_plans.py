"""What the middleware in a service is told, and what it is not asked because it cannot honour it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from squall.actions import MiddlewareWorker
from squall.faults import parse_fault
from squall.injectors import Plan, Refusal, Site
from squall.injectors.middleware import MiddlewareInjector
from squall.targets import MiddlewareTarget, RouteTarget

SITE = Site(run="r-1", folder=Path("/nonexistent"), fault="0-http.delay", seed=7)
TARGET = MiddlewareTarget("shop", "/nonexistent", (4711,))


def plan(tag: str, **parameters: Any) -> Plan | Refusal:
    return MiddlewareInjector().plan(parse_fault(tag, parameters), TARGET, SITE)


def told(tag: str, **parameters: Any) -> dict[str, Any]:
    found = plan(tag, **parameters)
    assert isinstance(found, Plan)
    (worker,) = found.actions
    assert isinstance(worker, MiddlewareWorker)
    assert worker.objects() == ("middleware:/nonexistent/shop",)
    fault: dict[str, Any] = worker.config["fault"]
    return fault


def test_a_delay_is_told_whole() -> None:
    given = {"method": "GET", "path": "/a*", "headers": {"X-User": "b*"}, "percent": "25%"}
    assert told("http.delay", delay="100ms", jitter="20ms", **given) == {
        "id": "0-http.delay", "require_header": False, "header": "X-Chaos-Enabled", "sample": 0.25, "method": "GET",
        "path": "/a*", "headers": {"X-User": "b*"}, "delay_min_ns": 80_000_000, "delay_max_ns": 120_000_000,
        "abort_status": None, "abort_body": "", "abort_headers": {}, "seed": 7,
    }  # fmt: skip


def test_an_abort_is_told_whole() -> None:
    fault = told("http.abort", status=429, body="slow down", response_headers={"Retry-After": "3"})
    assert (fault["abort_status"], fault["abort_body"], fault["abort_headers"]) == (
        429,
        "slow down",
        {"Retry-After": "3"},
    )
    assert (fault["sample"], fault["delay_max_ns"]) == (1.0, 0)


REFUSED = [
    ("http.delay", {"delay": "1s", "on": "response"}, ["`on: response`"]),
    ("http.delay", {"delay": "10ms", "jitter": "11ms"}, ["a jitter of at most the delay (10ms)"]),
    ("http.delay", {"delay": "1h", "jitter": "1ns"}, ["an hour at most"]),
    ("http.delay", {"delay": "1s", "peers": ["10.0.0.1"], "ports": [80]}, ["leave out `ports`, `peers`"]),
    ("http.delay", {"delay": "1s", "headers": {"a b": "x"}}, ["'a b' is no header's name"]),
    ("http.abort", {"response_headers": {"Content-Length": "5", "X": "a\r\nb"}}, ["Content-Length is the server's", "value of X"]),
    ("http.abort", {"body": "x" * 70_000}, ["too long"]),
    (
        "http.delay", {"delay": "1s", "jitter": "2s", "on": "response", "connections": "inbound"},
        ["leave out `connections`", "`on: response`", "a jitter of at most"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "parameters", "reasons"), REFUSED)
def test_what_it_cannot_honour_is_refused_with_every_reason(
    tag: str, parameters: dict[str, Any], reasons: list[str]
) -> None:
    found = plan(tag, **parameters)
    assert isinstance(found, Refusal)
    assert all(reason in found.reason for reason in reasons), found.reason


def test_it_faults_middlewares_only() -> None:
    fault = parse_fault("http.delay", {"delay": "1s"})
    found = MiddlewareInjector().plan(fault, RouteTarget("127.0.0.1:1", "127.0.0.1:2"), SITE)
    assert isinstance(found, Refusal)
