"""Random experiments that are right: what the document's tests share."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True).filter(lambda name: name != "load")
TEXT = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("\x00\t\n\r\x85\u2028\ufeff:#'\"- "), max_size=12
)
RATIOS = st.integers(0, 1000).map(lambda tenths: f"{tenths / 10:g}%")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z-]{0,8}", fullmatch=True), TEXT, max_size=2)


def milliseconds(least: int, most: int) -> st.SearchStrategy[str]:
    return st.integers(least, most).map(lambda number: f"{number}ms")


def some(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


URLS = st.sampled_from(["http://127.0.0.1:8080/orders", "https://shop.test/", "http://[::1]:9/x?y=z"])
SECRETS = some({"env": st.just("TOKEN")}, {"prefix": st.just("Bearer ")}) | some({"file": st.just("token.txt")}, {})
REQUESTS = some(
    {"url": URLS},
    {
        "method": st.sampled_from(["GET", "POST"]),
        "headers": HEADERS | st.dictionaries(st.just("Authorization"), SECRETS, max_size=1),
        "body": st.none() | TEXT | st.lists(JSON, max_size=2) | st.dictionaries(TEXT, JSON, max_size=2),
        "success": st.lists(st.sampled_from(["200", "2xx", "404"]), max_size=2),
        "timeout": milliseconds(1, 600_000),
    },
)
PROCESSES = st.one_of(
    some({"pid": st.integers(1, 2**22)}, {}),
    some({"command": NAMES}, {}),
    some({"port": st.integers(1, 65535)}, {}),
    some({"unit": NAMES.map(lambda name: f"{name}.service")}, {}),
)
BOUNDS = st.one_of(
    some({"least": st.integers(0, 5)}, {"most": st.integers(5, 9) | st.floats(5, 9)}),
    some({"most": st.integers(0, 9)}, {}),
)
TIMING = {"every": milliseconds(10, 1000), "timeout": milliseconds(1, 5000), "errorRate": RATIOS}
TIMED = {**TIMING, "p95": milliseconds(1, 60_000) | st.none()}
EXPECTATIONS = st.one_of(
    some({"name": NAMES, "http": REQUESTS}, TIMED),
    some({"name": NAMES, "tcp": st.sampled_from(["127.0.0.1:80", "[::1]:443", "shop:8080"])}, TIMED),
    some({"name": NAMES, "command": TEXT.filter(bool)}, TIMED),
    some(
        {"name": NAMES, "process": PROCESSES},
        {**TIMING, "values": st.dictionaries(st.sampled_from(["rss", "fds"]), BOUNDS)},
    ),
    some(
        {"name": NAMES, "prometheus": some({"url": URLS, "query": TEXT.filter(bool)}, {"headers": HEADERS})},
        {**TIMING, "values": st.dictionaries(st.just("value"), BOUNDS)},
    ),
)
LOADS = st.one_of(
    some(
        {"http": REQUESTS, "rate": st.sampled_from(["50/s", "600/m", "0.5/s"])}, {"connections": st.integers(1, 10_000)}
    ),
    some(
        {
            "http": REQUESTS,
            "profile": st.lists(some({"rate": st.just("9/s")}, {"ramp": milliseconds(0, 9)}), min_size=1),
        },
        {},
    ),
)

MODES = st.sampled_from(
    [{}, {"mode": "one"}, {"mode": "all"}, {"mode": "fixed", "value": 2}, {"mode": "fixed-percent", "value": "50%"}]
)
ON_PROCESS = st.builds(
    lambda process, mode, more: {"process": process, **mode, **more},
    PROCESSES,
    MODES,
    some({}, {"most": st.integers(1, 9)}),
)
ON_ROUTE = st.just({"route": {"listen": "127.0.0.1:18081", "upstream": "127.0.0.1:18082"}})
TCP = {"direction": st.sampled_from(["upstream", "downstream"]), "percent": RATIOS}
GRPC = {"service": st.just("shop.*"), "method": st.just("Reserve"), "metadata": HEADERS, "percent": RATIOS}
HTTP = {"method": st.just("post"), "path": st.just("/orders/*"), "headers": HEADERS, "percent": RATIOS}


def fault(tag: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return some({"type": st.just(tag), **required}, optional)


ROUTE_FAULTS = st.one_of(
    fault("tcp.latency", {"latency": milliseconds(0, 9)}, {**TCP, "jitter": milliseconds(0, 9), "correlation": RATIOS}),
    fault("tcp.bandwidth", {"rate": st.sampled_from(["10mbit", "1MB/s"])}, TCP),
    fault("tcp.slow_close", {"delay": milliseconds(0, 9)}, TCP),
    fault("tcp.timeout", {}, {**TCP, "timeout": milliseconds(0, 9)}),
    fault("tcp.reset", {}, {**TCP, "timeout": milliseconds(0, 9)}),
    fault("tcp.slicer", {"average": st.just("64B")}, {**TCP, "variation": st.just("63B"), "delay": milliseconds(0, 9)}),
    fault("tcp.limit_data", {"bytes": st.just("1KiB")}, TCP),
    fault("tcp.down", {}, {}),
    fault(
        "http.delay", {"delay": milliseconds(0, 9)}, {**HTTP, "jitter": milliseconds(0, 9), "on": st.just("response")}
    ),
    fault("http.abort", {}, {**HTTP, "status": st.integers(200, 599), "body": TEXT, "responseHeaders": HEADERS}),
    fault(
        "http.replace",
        {"on": st.just("response"), "status": st.integers(200, 599)},
        {**HTTP, "body": TEXT, "setHeaders": HEADERS},
    ),
    fault("http.replace", {"on": st.just("request"), "newPath": st.just("/x")}, HTTP),
    fault(
        "http.patch",
        {"on": st.just("request"), "query": st.just({"a": "b"})},
        {**HTTP, "removeHeaders": st.just(["X"])},
    ),
    fault("grpc.delay", {"delay": milliseconds(0, 9)}, {**GRPC, "each": st.just("message"), "on": st.just("response")}),
    fault(
        "grpc.abort",
        {},
        {
            **GRPC,
            "status": st.sampled_from(["ABORTED", "INTERNAL"]),
            "message": TEXT,
            "afterMessages": st.integers(0, 9),
        },
    ),
    fault("http.patch", {"on": st.just("response"), "body": st.dictionaries(TEXT, JSON, max_size=2)}, HTTP),
)
PROCESS_FAULTS = st.one_of(
    fault("process.kill", {}, {"signal": st.sampled_from(["SIGTERM", "SIGKILL"]), "descendants": st.booleans()}),
    fault("process.crash", {}, {"signal": st.just("SIGABRT")}),
    fault("process.pause", {}, {"descendants": st.booleans()}),
    fault("process.pause", {"stopped": milliseconds(1, 9), "every": milliseconds(10, 19)}, {}),
    fault("stress.cpu", {}, {"load": st.just("50%"), "workers": st.integers(1, 4)}),
    fault("stress.memory", {"amount": st.just("64MiB")}, {"leak": st.just("1MB/s"), "spare": st.just("20%")}),
    fault("stress.memory", {"percent": st.just("50%")}, {}),
    fault("stress.fd", {}, {"leave": st.integers(0, 9)}),
    fault(
        "stress.disk",
        {"path": st.just("/srv"), "fill": st.just("1GiB")},
        {"write": st.just("1MB/s"), "spare": st.just("1GB")},
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    duration = draw(st.integers(1000, 100_000))
    on_route = draw(st.booleans())
    faults = draw(st.lists(ROUTE_FAULTS if on_route else PROCESS_FAULTS, min_size=1, max_size=3))
    where = draw(ON_ROUTE if on_route else ON_PROCESS)
    spec: dict[str, Any] = {"duration": f"{duration}ms"}
    if draw(st.booleans()):
        spec["targets"] = where
    for step in faults:
        if "targets" not in spec:
            step["targets"] = where
        if draw(st.booleans()):
            after = draw(st.integers(0, duration - 100))
            step["after"] = f"{after}ms"
            if draw(st.booleans()):
                step["duration"] = f"{draw(st.integers(50, duration - after))}ms"
        if draw(st.booleans()) and "after" not in step and step["type"] not in ("process.kill", "process.crash"):
            step["pulse"] = {"on": f"{duration // 5}ms", "off": f"{duration // 5}ms"}
    spec["faults"] = faults
    spec |= draw(
        some(
            {},
            {
                "description": TEXT,
                "steadyState": st.lists(EXPECTATIONS, max_size=3, unique_by=lambda probe: probe["name"]),
                "load": LOADS,
                "tolerate": some(
                    {}, {"p95": milliseconds(1, 5000), "errorRate": st.just("5%"), "exceptFor": milliseconds(0, 10**6)}
                ),
                "abort": some(
                    {}, {"p95": milliseconds(5000, 9000), "for": st.just("9s"), "samples": st.integers(1, 99)}
                ),
                "recovery": some({}, {"within": milliseconds(100, 10**6)}),
                "baseline": milliseconds(2000, 60_000),
                "seed": st.integers(0, 2**63 - 1),
            },
        )
    )
    return spec


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    metadata = {"name": draw(NAMES)}
    return {"apiVersion": "squall.dev/v1alpha1", "kind": "Experiment", "metadata": metadata, "spec": draw(specs())}


@pytest.fixture(scope="session")
def any_document() -> st.SearchStrategy[dict[str, Any]]:
    """Documents that are right, as the values that YAML gives."""
    return documents()
