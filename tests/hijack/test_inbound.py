"""Connections that a service is offered are led to the proxy; so are nobody else's."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import Hijack
from squall.actions.worker import end_workers
from squall.faults import parse_fault
from squall.injectors import Plan
from squall.injectors.hijack import HijackInjector
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import NetnsTarget, ProcessIdentity, ProcessTarget, find_cgroup
from tests.hijack.conftest import Faults, Greeter, caller, greeter, in_cgroup, web
from tests.programs.build import go_program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

LATE_MS = 300
LATE = {"latency": f"{LATE_MS}ms"}


def target_of(process: subprocess.Popen[str]) -> ProcessTarget:
    return ProcessTarget(ProcessIdentity.of(process.pid), "handlers")


def here() -> NetnsTarget:
    return NetnsTarget("here", NetworkNamespace.at("/proc/thread-self/ns/net"))


@pytest.mark.parametrize("written_in", ["python", "go"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_clients_of_a_static_go_server_wait_and_those_of_its_neighbour_do_not(
    faults: Faults, host: str, written_in: str
) -> None:
    with web(None, f"{host}:0") as (service, port), web() as (_, other), caller(None, written_in) as client:
        url = f"http://{host}:{port}/"
        assert client.quickest_ms(f"get {url}") < LATE_MS
        with faults.on(target_of(service), "tcp.latency", **LATE) as fault:
            assert [step.kind for step in fault.steps] == ["hijack", "toxic"]
            assert fault.plan.recoverability == "lease"
            answers = [client.get(url) for _ in range(2)]  # the first one may be told that its connection was closed
            assert (answers[1]["said"], answers[1]["peer"]) == ("shop: ordered\n", f"{host}:{port}")
            assert answers[1]["ms"] >= LATE_MS
            assert client.quickest_ms(f"get http://127.0.0.1:{other}/") < LATE_MS
            fault.counted("led")
        assert client.quickest_ms(f"get {url}") < LATE_MS


@pytest.mark.parametrize("kind", ["process", "cgroup", "netns"])
def test_whatever_the_server_is_named_by(faults: Faults, app: Path, kind: str) -> None:
    with web(app) as (service, port), web() as (_, other), caller() as client:
        target = {"process": target_of(service), "cgroup": find_cgroup(str(app)), "netns": here()}[kind]
        abort = {"status": 418, **({"ports": [port]} if kind == "netns" else {})}
        with faults.on(target, "http.abort", **abort):
            assert client.get(f"http://127.0.0.1:{port}/")["status"] == 418
            assert client.get(f"http://127.0.0.1:{other}/")["status"] == 200
        assert [client.get(f"http://127.0.0.1:{port}/") for _ in range(2)][1]["status"] == 200


def test_a_server_on_all_addresses_is_found_on_each(faults: Faults) -> None:
    with (
        web(None, ":0") as (service, port),
        caller() as client,
        faults.on(target_of(service), "http.abort", status=418),
    ):
        for host in ("127.0.0.1", "127.0.0.2", "[::1]"):
            assert client.get(f"http://{host}:{port}/")["status"] == 418


def test_a_neighbour_that_has_one_address_of_the_port_keeps_it(faults: Faults) -> None:
    with sharing("127.0.0.1", "") as (process, mine), caller() as client:
        beside = Greeter("127.0.0.1", mine)
        threading.Thread(target=beside.serve, daemon=True).start()
        with faults.on(target_of(process), "tcp.timeout", timeout="10ms") as fault:
            assert client.dial(beside.address)["said"] == "hello hi\n"
            assert client.dial(f"127.0.0.2:{beside.port}")["error"]
            fault.counted("led")
        mine.shutdown(socket.SHUT_RDWR)


def test_open_connections_are_closed_so_that_clients_come_back_through_the_proxy(faults: Faults) -> None:
    with web() as (service, port), caller(None, "go") as client:
        url = f"http://127.0.0.1:{port}/"
        client.get(url)
        assert client.get(url)["reused"]
        with faults.on(target_of(service), "tcp.latency", **LATE) as fault:
            fault.counted("ended")
            assert [client.get(url) for _ in range(2)][1]["ms"] >= LATE_MS


def test_open_connections_are_left_alone_where_that_is_asked_for(faults: Faults) -> None:
    with web() as (service, port), caller(None, "go") as client:
        url = f"http://127.0.0.1:{port}/"
        client.get(url)
        with faults.on(target_of(service), "tcp.latency", established="leave", **LATE):
            assert client.get(url)["reused"]
            assert client.quickest_ms(f"get {url}") < LATE_MS


def test_only_clients_that_are_named_are_led(faults: Faults) -> None:
    with (
        web(None, ":0") as (service, port),
        caller() as client,
        faults.on(target_of(service), "http.abort", status=418, peers=["::1"]) as fault,
    ):
        assert client.get(f"http://[::1]:{port}/")["status"] == 418
        assert client.get(f"http://127.0.0.1:{port}/")["status"] == 200
        fault.counted("left")


def test_down_is_a_refusal_and_ends_what_is_open(faults: Faults) -> None:
    with web() as (service, port), caller() as client:
        with faults.on(target_of(service), "tcp.down") as fault:
            assert "refused" in client.dial(f"127.0.0.1:{port}")["error"].lower()
            fault.counted("refused")
        assert client.get(f"http://127.0.0.1:{port}/")["status"] == 200


def test_when_the_proxy_is_killed_new_connections_go_direct_at_once(faults: Faults) -> None:
    with web() as (service, port), caller() as client, faults.on(target_of(service), "http.abort", status=418) as fault:
        url = f"http://127.0.0.1:{port}/"
        assert client.get(url)["status"] == 418
        end_workers(fault.hijack.token)
        with caller() as other:
            assert other.get(url)["status"] == 200
        assert not fault.hijack.in_force()


def test_a_parameter_is_changed_while_it_is_on(faults: Faults) -> None:
    with web() as (service, port), caller() as client, faults.on(target_of(service), "tcp.latency", **LATE) as fault:
        url = f"http://127.0.0.1:{port}/"
        assert client.get(url)["ms"] >= LATE_MS
        fault.become("tcp.latency", latency="1ms")
        assert client.quickest_ms(f"get {url}") < LATE_MS


def test_the_direction_cannot_be_changed_while_it_is_on(faults: Faults) -> None:
    with web() as (service, port), caller() as client, faults.on(target_of(service), "http.abort", status=418) as fault:
        other = HijackInjector().plan(
            parse_fault("http.abort", {"status": 418, "connections": "outbound"}), fault.target, fault.site
        )
        assert isinstance(other, Plan)
        (hijack,) = [step for step in other.actions if isinstance(step, Hijack)]
        assert not fault.hijack.become(hijack, fault.held[0])
        assert client.get(f"http://127.0.0.1:{port}/")["status"] == 418


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
def test_curl_is_a_client_like_any_other(faults: Faults) -> None:
    with web() as (service, port), faults.on(target_of(service), "http.abort", status=418):
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://localhost:{port}/"]
        assert subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout == "418"


PREFORKED = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"hello " + connection.makefile("rb").readline())
    children.append(pid)
print("ready", listener.getsockname()[1], flush=True)
sys.stdin.read()
for pid in children:
    os.kill(pid, 9)
"""


def test_a_server_whose_children_accept(faults: Faults) -> None:
    argv = (sys.executable, "-I", "-S", "-c", PREFORKED)
    with in_cgroup(None, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent, caller() as client:
        assert parent.stdout is not None
        address = f"127.0.0.1:{parent.stdout.readline().split()[1]}"
        with faults.on(target_of(parent), "tcp.latency", **LATE):
            answer = client.dial(address)
            assert (answer["said"], answer["ms"] >= LATE_MS) == ("hello hi\n", True)
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(10)


@contextlib.contextmanager
def sharing(mine: str, theirs: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """A process that shares its port with a socket of this one (SO_REUSEPORT), each at its own address."""
    code = """
import socket, sys
one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind((sys.argv[1], int(sys.argv[2]))); one.listen(); print("ready", flush=True); sys.stdin.read()
"""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((mine, 0))
        listener.listen()
        argv = (sys.executable, "-I", "-S", "-c", code, theirs, str(listener.getsockname()[1]))
        with in_cgroup(None, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process, listener


def test_a_port_that_others_listen_on_too_is_refused(faults: Faults) -> None:
    with sharing("127.0.0.1", "127.0.0.1") as (process, listener):
        port = listener.getsockname()[1]
        assert f"port {port} is shared" in faults.refused(target_of(process), "tcp.reset")


def test_what_listens_on_nothing_is_refused_with_the_way_out(faults: Faults) -> None:
    with caller() as client, web() as (service, port):
        assert "on no TCP port" in faults.refused(client.target, "tcp.reset")
        refusal = faults.refused(target_of(service), "tcp.reset", ports=[1])
        assert f"but on {port}" in refusal
        assert "connections: outbound" in refusal


def test_a_service_that_stops_listening_is_a_reset(faults: Faults) -> None:
    with web() as (service, port), caller() as client, faults.on(target_of(service), "tcp.latency", **LATE):
        service.kill()
        service.wait()
        assert "ConnectionResetError" in client.dial(f"127.0.0.1:{port}")["error"]


def test_many_short_connections_do_not_run_out_of_sources(faults: Faults) -> None:
    """Each of the proxy's own connections has a source of its own, which it may have again at once."""
    with greeter() as server, faults.on(here(), "tcp.latency", latency="0s", ports=[server.port]) as fault:
        for _ in range(600):
            with socket.create_connection(("127.0.0.1", server.port), 10) as one:
                one.sendall(b"hi\n")
                assert one.recv(100) == b"hello hi\n"
        fault.counted("led", 600)


def test_a_program_that_chose_before_is_left_to_its_choice(faults: Faults) -> None:
    """Two hijacks of one port: what the first one leads along stays led, and both end in order."""
    with web() as (service, port), caller() as client:
        with (
            faults.on(target_of(service), "http.abort", status=418),
            faults.on(here(), "http.abort", status=500, ports=[port]) as second,
        ):
            assert client.get(f"http://127.0.0.1:{port}/")["status"] == 418
            second.counted("foreign")
        assert [client.get(f"http://127.0.0.1:{port}/") for _ in range(2)][1]["status"] == 200


def test_without_ipv6_in_the_namespace(faults: Faults) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")  # of this test's own namespace
    with web() as (service, port), caller() as client, faults.on(target_of(service), "http.abort", status=418):
        assert client.get(f"http://127.0.0.1:{port}/")["status"] == 418


def test_a_namespace_whose_loopback_is_down_is_refused_before_anything_is_touched(faults: Faults) -> None:
    with web() as (service, _):
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        with pytest.raises(Exception, match="loopback interface of the network namespace is down"):  # noqa: SIM117
            with faults.on(target_of(service), "tcp.reset"):
                pass


def test_the_service_in_another_network_namespace(faults: Faults) -> None:
    """The proxy works in the service's namespace; this one is untouched."""
    code = 'ip link set lo up && exec "$0" 127.0.0.1:0 net'
    argv = ("unshare", "-n", "sh", "-c", code, str(go_program("handlers")))
    with in_cgroup(None, *argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline().split()[1])
        ask = ["nsenter", "-t", str(service.pid), "-n", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
               f"http://127.0.0.1:{port}/"]  # fmt: skip
        with faults.on(target_of(service), "http.abort", status=418):
            assert subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False).stdout == "418"
        assert subprocess.run(ask, capture_output=True, text=True, timeout=20, check=False).stdout == "200"
