"""Every proxy fault of the vocabulary becomes a toxic that the data plane takes, with nothing lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from squall.errors import InputError
from squall.faults import FAULTS, parse_fault
from squall.proxy.from_fault import ToxicSpec, toxic_of

ALL: dict[str, Any] = {"percent": 100.0}
CASES: list[tuple[str, dict[str, Any], ToxicSpec]] = [
    ("tcp.latency", {"latency": "1.5ms", "jitter": "20us", "correlation": "25%", "direction": "upstream", "percent": "40%"},
     ToxicSpec("latency", "upstream", 0.4, {"latency": 1, "latency_ns": 500_000, "jitter": 0, "jitter_ns": 20_000, "correlation": 0.25})),
    ("tcp.bandwidth", {"rate": "10mbit"}, ToxicSpec("bandwidth", "downstream", 1.0, {"rate": 1250, "rate_bytes": 0})),
    ("tcp.slow_close", {"delay": "2s"}, ToxicSpec("slow_close", "downstream", 1.0, {"delay": 2000, "delay_ns": 0})),
    ("tcp.timeout", {"timeout": "300ms"}, ToxicSpec("timeout", "downstream", 1.0, {"timeout": 300, "timeout_ns": 0})),
    ("tcp.reset", {}, ToxicSpec("reset_peer", "downstream", 1.0, {"timeout": 0, "timeout_ns": 0})),
    ("tcp.slicer", {"average": "100B", "variation": "10B", "delay": "1.5us"},
     ToxicSpec("slicer", "downstream", 1.0, {"average_size": 100, "size_variation": 10, "delay": 1, "delay_ns": 500})),
    ("tcp.limit_data", {"bytes": "1kB"}, ToxicSpec("limit_data", "downstream", 1.0, {"bytes": 1000})),
    ("http.delay", {"delay": "1s", "on": "response", "method": "GET"},
     ToxicSpec("http_delay", "downstream", 1.0, {**ALL, "method": "GET", "delay": 1000, "delay_ns": 0, "jitter": 0, "jitter_ns": 0})),
    ("http.abort", {"status": 429, "path": "/a/*", "percent": "5%", "response_headers": {"Retry-After": "1"}},
     ToxicSpec("http_abort", "upstream", 1.0, {"percent": 5.0, "path": "/a/*", "status": 429, "body": "",
                                         "response_headers": {"Retry-After": "1"}})),
    ("http.replace", {"on": "response", "status": 500, "body": ""},
     ToxicSpec("http_replace", "downstream", 1.0, {**ALL, "status": 500, "body": ""})),
    ("http.patch", {"on": "request", "body": {"a": None}, "remove_headers": ["X"], "headers": {"Y": "*"}},
     ToxicSpec("http_patch", "upstream", 1.0, {**ALL, "headers": {"Y": "*"}, "set_headers": {}, "remove_headers": ["X"], "query": {},
                                         "body": {"a": None}})),
    ("grpc.delay", {"delay": "1.5s", "service": "shop.*", "on": "response", "each": "message"},
     ToxicSpec("grpc_delay", "downstream", 1.0, {**ALL, "service": "shop.*", "delay": 1500, "delay_ns": 0, "jitter": 0, "jitter_ns": 0,
                                           "each": "message"})),
    ("grpc.abort", {"status": "UNAUTHENTICATED", "message": "no", "details": {"type.test/X": "AA=="}, "method": "Reserve",
                    "metadata": {"x-who": "a*"}, "after_messages": 2, "trailers": {"x-left": "1"}},
     ToxicSpec("grpc_abort", "downstream", 1.0, {**ALL, "method": "Reserve", "headers": {"x-who": "a*"}, "status": 16, "message": "no",
                                           "details": {"type.test/X": "AA=="}, "trailers": {"x-left": "1"}, "after_messages": 2})),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "parameters", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_fault_becomes_a_toxic(bench: Any, tag: str, parameters: dict[str, Any], expected: ToxicSpec) -> None:
    spec = toxic_of(parse_fault(tag, parameters))
    assert spec == expected
    control = bench.proxy("127.0.0.1:1").control
    assert control.add_toxic("t", spec.type, spec.stream, spec.toxicity, spec.attributes)
    assert not control.add_toxic("t", spec.type, spec.stream, spec.toxicity, spec.attributes)  # the very same
    (toxic,) = control.toxics()
    shown = {**spec.attributes}
    for name, value in toxic["attributes"].items():
        assert shown.pop(name, value) == value
    assert not any(shown.values())  # what is not shown is at its default


def test_every_fault_on_a_route_is_covered() -> None:
    routed = {tag for tag, fault in FAULTS.items() if "route" in fault.targets}
    assert routed == {case[0] for case in CASES} | {"tcp.down"}


@pytest.mark.parametrize(
    ("tag", "parameters"),
    [
        ("tcp.down", {}),
        ("process.kill", {}),
        ("http.abort", {"response_headers": {"Content-Length": "1"}}),
        ("grpc.abort", {"trailers": {"content-length": "1"}}),
    ],
)
def test_what_is_no_toxic_is_refused(tag: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        toxic_of(parse_fault(tag, parameters))
