"""Every fault of the proxy works on connections that are led to it as on those of a route."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.faults import FAULTS
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import NetnsTarget, ProcessIdentity, ProcessTarget, RouteTarget
from tests.grpc_programs import grpc_program
from tests.hijack.conftest import Faults, caller, greeter, web

if TYPE_CHECKING:
    from tests.hijack.conftest import Greeter

pytestmark = pytest.mark.kernel

LINE = b"x" * 9_999 + b"\n"
ANSWER = b"hello " + LINE
TCP: dict[str, dict[str, Any]] = {
    "tcp.latency": {"latency": "200ms"},
    "tcp.bandwidth": {"rate": "20kB/s"},
    "tcp.slow_close": {"delay": "400ms"},
    "tcp.timeout": {"timeout": "100ms"},
    "tcp.reset": {},
    "tcp.slicer": {"average": "1000B", "delay": "20ms"},
    "tcp.limit_data": {"bytes": "100B"},
    "tcp.down": {},
}
LEAST_S = {"tcp.latency": 0.2, "tcp.bandwidth": 0.3, "tcp.slow_close": 0.4, "tcp.timeout": 0.1, "tcp.slicer": 0.1}
WHOLE = {"tcp.latency", "tcp.bandwidth", "tcp.slow_close", "tcp.slicer"}
HTTP: dict[str, tuple[dict[str, Any], int, str]] = {
    "http.delay": ({"delay": "300ms"}, 200, "shop: ordered\n"),
    "http.abort": ({"status": 503, "body": "no"}, 503, "no"),
    "http.replace": ({"on": "response", "status": 201, "body": "else"}, 201, "else"),
    "http.patch": ({"on": "response", "setHeaders": {"X-A": "b"}}, 200, "shop: ordered\n"),
}

GRPC: dict[str, dict[str, Any]] = {"grpc.delay": {"delay": "300ms"}, "grpc.abort": {"status": "RESOURCE_EXHAUSTED"}}


def exchange(server: Greeter) -> tuple[bytes, str, float]:
    """A long line and its answer: what came back, how it ended, how long it took until the end."""
    began, found = time.monotonic(), b""
    try:
        with socket.create_connection(("127.0.0.1", server.port), 10) as one:
            one.sendall(LINE)
            one.shutdown(socket.SHUT_WR)
            while part := one.recv(1 << 16):
                found += part
        how = "end"
    except OSError as error:
        how = type(error).__name__
    return found, how, time.monotonic() - began


def test_all_of_them_are_here() -> None:
    able = {tag for tag, model in FAULTS.items() if {"route", "process"} <= set(model.targets)}
    assert able == {*TCP, *HTTP, *GRPC}


@pytest.mark.parametrize("tag", TCP)
def test_a_fault_on_connections(faults: Faults, tag: str) -> None:
    here = NetnsTarget("here", NetworkNamespace.at("/proc/thread-self/ns/net"))
    with greeter() as server:
        with faults.on(here, tag, ports=[server.port], **TCP[tag]):
            found, how, seconds = exchange(server)
            assert seconds >= LEAST_S.get(tag, 0)
            assert (found == ANSWER) is (tag in WHOLE)
            if tag == "tcp.limit_data":
                assert found == ANSWER[:100]
            if tag in ("tcp.reset", "tcp.down"):
                assert how == {"tcp.reset": "ConnectionResetError", "tcp.down": "ConnectionRefusedError"}[tag]
        assert exchange(server)[:2] == (ANSWER, "end")


@pytest.mark.parametrize("tag", HTTP)
def test_a_fault_on_requests(faults: Faults, tag: str) -> None:
    parameters, status, said = HTTP[tag]
    with web() as (service, port), caller(None, "go") as client:
        target = ProcessTarget(ProcessIdentity.of(service.pid), "handlers")
        with faults.on(target, tag, path="/hit*", **parameters):
            answer = client.get(f"http://127.0.0.1:{port}/hit")
            assert (answer["status"], answer["said"]) == (status, said)
            if tag == "http.delay":
                assert answer["ms"] >= 300
            assert client.get(f"http://127.0.0.1:{port}/")["status"] == 200


@pytest.mark.parametrize("tag", GRPC)
def test_a_fault_on_calls(faults: Faults, tag: str) -> None:
    """The client and the service are on nothing but each other's addresses."""
    grpc = pytest.importorskip("grpc", reason="needs grpcio: pip install grpcio")
    with grpc_program() as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        target = ProcessTarget(ProcessIdentity.of(process.pid), "grpc service")
        reserve, count = (channel.unary_unary(f"/shop.v1.Inventory/{name}") for name in ("Reserve", "Count"))
        assert reserve(b"one", timeout=10, wait_for_ready=True) == b"one"
        with faults.on(target, tag, service="shop.v1.*", method="Reserve", **GRPC[tag]):
            began = time.monotonic()
            try:
                assert reserve(b"two", timeout=10, wait_for_ready=True) == b"two"
                assert tag == "grpc.delay"
                assert time.monotonic() - began >= 0.3
            except grpc.RpcError as error:
                assert (tag, error.code()) == ("grpc.abort", grpc.StatusCode.RESOURCE_EXHAUSTED)  # noqa: PT017 - either is an outcome
            assert count(b"3", timeout=10, wait_for_ready=True) == b"0"
        assert reserve(b"three", timeout=10, wait_for_ready=True) == b"three"


def test_a_route_takes_no_choice_of_connections(faults: Faults) -> None:
    refusal = faults.refused(RouteTarget("127.0.0.1:1", "127.0.0.1:2"), "tcp.reset", ports=[80], connections="outbound")
    assert "leave out `connections`, `ports`" in refusal
