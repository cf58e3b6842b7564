"""Connections that a service makes are led to the proxy, whoever makes them; nobody else's are."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import end_workers, surviving
from squall.errors import ActionFailed
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import NetnsTarget, ProcessIdentity, ProcessTarget, find_cgroup
from tests import servers
from tests.hijack.conftest import PROGRAMS, Caller, Faults, caller, greeter, in_cgroup, web
from tests.specimens import SOURCE, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel_world import KernelWorld

pytestmark = pytest.mark.kernel

LATE_MS = 300
LATE = {"connections": "outbound", "latency": f"{LATE_MS}ms"}
HOSTS = ("127.0.0.1", "::1")


@pytest.mark.parametrize("written_in", ["python", "go"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_client_is_late_and_sees_the_peer_that_it_asked_for(
    faults: Faults, app: Path, written_in: str, host: str
) -> None:
    with greeter(host) as server, caller(app, written_in) as client, caller(None, written_in) as other:
        assert client.quickest_ms(f"dial {server.address}") < LATE_MS
        with faults.on(find_cgroup(str(app)), "tcp.latency", **LATE) as fault:
            answer = client.dial(server.address)
            assert (answer["said"], answer["error"]) == ("hello hi\n", "")
            assert answer["ms"] >= LATE_MS
            assert answer["peer"] == server.address
            assert other.quickest_ms(f"dial {server.address}") < LATE_MS
            fault.counted("led")
        after = client.dial(server.address)
        assert (after["said"], after["peer"]) == ("hello hi\n", server.address)
        assert after["ms"] < LATE_MS


def test_an_ipv6_socket_that_goes_to_an_ipv4_address_is_led_too(faults: Faults, app: Path) -> None:
    with greeter() as server, caller(app) as client, faults.on(find_cgroup(str(app)), "tcp.latency", **LATE):
        answer = client.dial(f"[::ffff:127.0.0.1]:{server.port}")
        assert answer["said"] == "hello hi\n"
        assert answer["ms"] >= LATE_MS
        assert answer["peer"] == f"[::ffff:127.0.0.1]:{server.port}"


def test_a_process_gets_a_cgroup_of_its_own_and_its_neighbours_are_spared(faults: Faults) -> None:
    with greeter() as server, caller() as client, caller() as neighbour:
        with faults.on(client.target, "tcp.latency", **LATE) as fault:
            assert [step.kind for step in fault.steps] == ["own-cgroup", "hijack", "toxic"]
            assert fault.plan.recoverability == "guarded"
            assert client.dial(server.address)["ms"] >= LATE_MS
            assert neighbour.quickest_ms(f"dial {server.address}") < LATE_MS
        assert client.quickest_ms(f"dial {server.address}") < LATE_MS


def test_a_process_that_has_a_cgroup_to_itself_keeps_it(faults: Faults, app: Path) -> None:
    with greeter() as server, caller(app) as client, faults.on(client.target, "tcp.latency", **LATE) as fault:
        assert [step.kind for step in fault.steps] == ["hijack", "toxic"]
        assert fault.plan.recoverability == "lease"
        assert client.dial(server.address)["ms"] >= LATE_MS


@pytest.mark.parametrize("written_in", ["python", "go"])
def test_open_connections_are_closed_so_that_the_client_comes_back_through_the_proxy(
    faults: Faults, app: Path, written_in: str
) -> None:
    with web() as (_, port), caller(app, written_in) as client:
        url = f"http://127.0.0.1:{port}/"
        client.get(url)
        assert client.get(url)["reused"]
        with faults.on(find_cgroup(str(app)), "tcp.latency", **LATE) as fault:
            fault.counted("ended")
            answers = [client.get(url) for _ in range(2)]
            assert answers[-1]["said"] == "shop: ordered\n"
            assert answers[-1]["ms"] >= LATE_MS
        assert client.quickest_ms(f"get {url}") < LATE_MS


def test_open_connections_are_left_alone_where_that_is_asked_for(faults: Faults, app: Path) -> None:
    with web() as (_, port), caller(app) as client:
        url = f"http://127.0.0.1:{port}/"
        client.get(url)
        with faults.on(find_cgroup(str(app)), "tcp.latency", established="leave", **LATE):
            answer = client.get(url)
            assert answer["reused"]
            assert answer["ms"] < LATE_MS


def test_connections_of_others_and_those_that_were_accepted_stay_open(faults: Faults, app: Path) -> None:
    """The target's own server keeps its clients, a neighbour keeps its connection."""
    with web(app) as (_, port), caller() as neighbour, caller(app):
        url = f"http://127.0.0.1:{port}/"
        neighbour.get(url)
        with faults.on(find_cgroup(str(app)), "tcp.latency", **LATE):
            answer = neighbour.get(url)
            assert answer["reused"]
            assert answer["ms"] < LATE_MS


def test_only_the_ports_that_are_named_are_led_and_they_can_be_changed_while_it_is_on(
    faults: Faults, app: Path
) -> None:
    with (
        greeter() as one,
        greeter() as other,
        caller(app) as client,
        faults.on(find_cgroup(str(app)), "tcp.latency", ports=[one.port], **LATE) as fault,
    ):
        assert client.dial(one.address)["ms"] >= LATE_MS
        assert client.quickest_ms(f"dial {other.address}") < LATE_MS
        fault.counted("left")
        fault.become("tcp.latency", ports=[f"{other.port}-{other.port}"], **LATE)
        wait_for(lambda: client.dial(other.address)["ms"] >= LATE_MS, "the other port is led")
        assert client.quickest_ms(f"dial {one.address}") < LATE_MS
        fault.become("tcp.latency", ports=[f"{other.port}-{other.port}"], **{**LATE, "latency": "1ms"})
        assert client.quickest_ms(f"dial {other.address}") < LATE_MS


@pytest.mark.parametrize(
    ("peers", "late"),
    [(["127.0.0.0/8"], True), (["127.0.0.1"], True), (["localhost"], True), (["10.0.0.0/8", "::1"], False)],
)
def test_only_the_peers_that_are_named_are_led(faults: Faults, app: Path, peers: list[str], late: bool) -> None:  # noqa: FBT001
    with (
        greeter() as server,
        caller(app) as client,
        faults.on(find_cgroup(str(app)), "tcp.latency", peers=peers, **LATE),
    ):
        assert (client.dial(server.address)["ms"] >= LATE_MS) is late


def test_a_server_that_refuses_is_a_reset_at_once(faults: Faults, app: Path) -> None:
    with caller(app) as client, faults.on(find_cgroup(str(app)), "tcp.latency", connections="outbound", latency="1ms"):
        answer = client.dial("127.0.0.1:9")
        assert "ConnectionResetError" in answer["error"]
        assert answer["ms"] < 5000


@pytest.mark.parametrize("written_in", ["python", "go"])
def test_down_is_a_refusal_and_ends_what_is_open(faults: Faults, app: Path, written_in: str) -> None:
    with greeter() as server, greeter("::1") as other, caller(app, written_in) as client:
        with faults.on(find_cgroup(str(app)), "tcp.down", connections="outbound") as fault:
            for one in (server, other):
                assert "refused" in client.dial(one.address)["error"].lower()
            fault.counted("refused", 2)
        assert client.dial(server.address)["said"] == "hello hi\n"


def test_when_the_proxy_is_killed_new_connections_go_direct_at_once(faults: Faults, app: Path) -> None:
    with (
        greeter() as server,
        caller(app) as client,
        faults.on(find_cgroup(str(app)), "tcp.latency", connections="outbound", latency="5s") as fault,
    ):
        broken: list[dict[str, object]] = []
        waiting = threading.Thread(target=lambda: broken.append(client.dial(server.address)))
        waiting.start()
        fault.counted("led")
        end_workers(fault.hijack.token)
        waiting.join(10)
        assert broken[0]["error"]
        assert client.dial(server.address)["said"] == "hello hi\n"
        assert not fault.hijack.in_force()


def test_a_second_fault_on_the_same_cgroup_is_another_runs_conflict(faults: Faults, app: Path) -> None:
    below = app / "below"
    below.mkdir()
    with caller(below) as client:
        outer = faults.plan(find_cgroup(str(app)), "tcp.latency", **LATE)
        inner = faults.plan(find_cgroup(str(below)), "tcp.reset", connections="outbound")
        process = faults.plan(client.target, "tcp.reset", connections="outbound")
        held = {name for action in outer.actions for name in action.objects()}
        for plan in (inner, process):
            assert held & {name for action in plan.actions for name in action.objects()}
    below.rmdir()


NON_BLOCKING = """
import errno, select, socket, sys, time
address = ("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin:
    began = time.monotonic()
    one = socket.socket(); one.setblocking(False)
    assert one.connect_ex(address) in (0, errno.EINPROGRESS)
    select.select([], [one], [], 10)
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    one.send(b"hi\\n"); select.select([one], [], [], 10)
    print(one.recv(100) == b"hello hi\\n", one.getpeername() == address, time.monotonic() - began, flush=True)
"""


def test_a_connect_that_does_not_block(faults: Faults, app: Path) -> None:
    with greeter() as server:
        argv = (sys.executable, "-I", "-S", "-c", NON_BLOCKING, str(server.port))
        with in_cgroup(app, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            with faults.on(find_cgroup(str(app)), "tcp.latency", **LATE):
                client.stdin.write("\n")
                client.stdin.flush()
                right, peer, seconds = client.stdout.readline().split()
                assert (right, peer) == ("True", "True")
                assert float(seconds) * 1000 >= LATE_MS


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
def test_curl_with_a_name_of_two_addresses(faults: Faults, app: Path) -> None:
    """Happy Eyeballs: `localhost` is ::1, where nobody listens, and 127.0.0.1."""
    abort = {"connections": "outbound", "status": 503}
    with web() as (_, port), caller(app), faults.on(find_cgroup(str(app)), "http.abort", **abort):
        command = f"curl -s -o /dev/null -w '%{{http_code}}' http://localhost:{port}/; read _"
        with in_cgroup(app, "sh", "-c", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
            assert curl.communicate("\n", timeout=20)[0] == "503"


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="needs Redis: apt-get install redis-server redis-tools")
def test_redis_cli_and_a_redis_that_nobody_prepared(faults: Faults, app: Path, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with servers.redis(folder) as redis:
        command = ("redis-cli", "-h", redis.host, "-p", str(redis.port))
        with in_cgroup(app, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("PING\n")
            client.stdin.flush()
            assert client.stdout.readline() == "PONG\n"
            with faults.on(find_cgroup(str(app)), "tcp.latency", ports=[redis.port], **LATE):
                client.stdin.write("PING\n")
                client.stdin.flush()
                assert client.stdout.readline() == ""  # this one does not come back; who does is led
                began = time.monotonic()
                with in_cgroup(app, *command, "SET", "stage", "during", stdout=subprocess.PIPE) as other:
                    assert other.communicate(timeout=20)[0] == "OK\n"
                assert (time.monotonic() - began) * 1000 >= LATE_MS


ASIDE = """
import socket, sys
for line in sys.stdin:
    kind, _, where = line.strip().partition(" ")
    try:
        if kind == "unix":
            one = socket.socket(socket.AF_UNIX); one.connect(where)
        elif kind == "udp":
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.connect(("127.0.0.1", int(where)))
        else:
            one = socket.socket()
            if kind == "device":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            else:
                one.bind(("127.0.0.9", 0))
            one.connect(("127.0.0.1", int(where)))
        one.settimeout(10); one.send(b"hi\\n")
        print(one.recv(100).decode().strip(), flush=True)
    except OSError as error:
        print(error, flush=True)
"""


def test_what_is_no_tcp_or_cannot_reach_the_loopback_goes_its_own_way(
    faults: Faults, app: Path, tmp_path: Path
) -> None:
    local, datagrams = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    path = str(tmp_path / "s")
    with greeter() as server, local, datagrams:
        local.bind(path)
        local.listen()
        datagrams.bind(("127.0.0.1", 0))
        argv = (sys.executable, "-I", "-S", "-c", ASIDE)
        with (
            in_cgroup(app, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client,
            faults.on(find_cgroup(str(app)), "tcp.timeout", connections="outbound", direction="upstream") as fault,
        ):
            assert client.stdin is not None
            assert client.stdout is not None

            def ask(what: str) -> None:
                client.stdin.write(what + "\n")  # type: ignore[union-attr]
                client.stdin.flush()  # type: ignore[union-attr]

            ask(f"unix {path}")
            accepted, _ = local.accept()
            with accepted:
                accepted.sendall(accepted.recv(100))
            assert client.stdout.readline() == "hi\n"
            ask(f"udp {datagrams.getsockname()[1]}")
            data, peer = datagrams.recvfrom(100)
            datagrams.sendto(data, peer)
            assert client.stdout.readline() == "hi\n"
            ask(f"device {server.port}")
            assert client.stdout.readline() == "hello hi\n"
            fault.counted("away")
        with (
            in_cgroup(app, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client,
            faults.on(find_cgroup(str(app)), "tcp.latency", **LATE),
        ):
            began = time.monotonic()
            ask(f"bound {server.port}")
            assert client.stdout.readline() == "hello hi\n"  # type: ignore[union-attr]
            assert (time.monotonic() - began) * 1000 >= LATE_MS


def test_a_network_namespace_has_no_outbound_connections_of_its_own(faults: Faults) -> None:
    target = NetnsTarget("here", NetworkNamespace.at("/proc/thread-self/ns/net"))
    assert "name the process" in faults.refused(target, "tcp.reset", connections="outbound")


@pytest.mark.parametrize("written_in", ["python", "go"])
def test_what_begins_in_the_cgroup_after_the_fault_is_led_as_well(faults: Faults, app: Path, written_in: str) -> None:
    with (
        greeter() as server,
        caller(app),
        faults.on(find_cgroup(str(app)), "tcp.latency", **LATE),
        caller(app, written_in) as late,
    ):
        assert late.dial(server.address)["ms"] >= LATE_MS


def test_a_cgroup_that_holds_squall_itself_is_refused_by_the_proxy(faults: Faults, kernel_world: KernelWorld) -> None:
    """A selector never gets so far; a proxy that led its own connections to itself would do so round and round."""
    with (
        pytest.raises(ActionFailed, match="holds Squall itself"),
        faults.on(find_cgroup(str(kernel_world.cgroup)), "tcp.latency", **LATE),
    ):
        pass


FOREIGN = """
import struct, sys
sys.path.insert(0, sys.argv[1])
from squall.kernel.bpf import CgroupHook, Lifecycle
life = Lifecycle("hijack", ("connect4", "connect6"))
life.load()
life.attach([CgroupHook("connect4", sys.argv[2], "connect4")])
settings = life.collection.map("settings")
whole = bytearray(settings[struct.pack("<I", 0)])
whole[88:100] = struct.pack("<IIHH", 0, 1, 1, 1)  # one span: port 1
settings[struct.pack("<I", 0)] = bytes(whole)
life.collection.map("lease")[struct.pack("<I", 0)] = struct.pack("<Q", (1 << 63) - 1)
print("ready", flush=True)
sys.stdin.readline()
print(life.collection.map("counters").total(1), flush=True)
"""


def test_the_programs_of_others_on_the_same_hook_go_on_working(faults: Faults, app: Path) -> None:
    """One that counts what it leaves alone was there before, sees every connect, and is there afterwards."""
    below = app / "below"
    below.mkdir()
    argv = (sys.executable, "-I", "-S", "-c", FOREIGN, str(SOURCE), str(below))
    with (
        in_cgroup(None, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign,
        greeter() as server,
        caller(below) as client,
    ):
        assert foreign.stdin is not None
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == "ready\n"
        with faults.on(find_cgroup(str(below)), "tcp.latency", **LATE) as fault:
            assert client.dial(server.address)["ms"] >= LATE_MS
            fault.counted("led")
        assert client.dial(server.address)["said"] == "hello hi\n"
        foreign.stdin.write("\n")
        foreign.stdin.flush()
        assert int(foreign.stdout.readline()) >= 2
    below.rmdir()


def test_the_processes_below_are_led_where_that_is_asked_for(faults: Faults) -> None:
    argv = ("sh", "-c", '"$@"; :', "sh", sys.executable, "-I", "-S", str(PROGRAMS / "caller.py"))
    with greeter() as server, in_cgroup(None, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        below = Caller(parent)
        below.dial("127.0.0.1:1")
        target = ProcessTarget(ProcessIdentity.of(parent.pid), "sh")
        with faults.on(target, "tcp.latency", **LATE):
            assert below.quickest_ms(f"dial {server.address}") < LATE_MS
        with faults.on(target, "tcp.latency", descendants=True, **LATE) as fault:
            assert [step.kind for step in fault.steps] == ["own-cgroup", "hijack", "toxic"]
            assert below.dial(server.address)["ms"] >= LATE_MS
        assert below.quickest_ms(f"dial {server.address}") < LATE_MS
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(10)


def test_when_the_proxy_stands_still_connections_go_their_own_way_within_a_second(faults: Faults, app: Path) -> None:
    with greeter() as server, caller(app) as client, faults.on(find_cgroup(str(app)), "tcp.latency", **LATE) as fault:
        (proxy,) = surviving(fault.hijack.token)
        assert fault.hijack.in_force()
        os.kill(proxy.pid, signal.SIGSTOP)
        time.sleep(1.2)  # the lease's own length, which nothing tells the end of
        assert client.dial(server.address)["said"] == "hello hi\n"
        os.kill(proxy.pid, signal.SIGCONT)
        wait_for(lambda: not fault.hijack.in_force(), "it is known that the lease had lapsed")


def test_a_target_that_becomes_another_program_stays_led(faults: Faults, app: Path) -> None:
    argv = ("sh", "-c", 'read _; exec "$@"', "sh", sys.executable, "-I", "-S", str(PROGRAMS / "caller.py"))
    with greeter() as server, in_cgroup(app, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        target = ProcessTarget(ProcessIdentity.of(process.pid), "sh")
        with faults.on(target, "tcp.latency", **LATE):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert Caller(process).dial(server.address)["ms"] >= LATE_MS


def test_a_target_that_ends_leaves_nothing_behind(faults: Faults) -> None:
    with greeter(), caller() as client, faults.on(client.target, "tcp.latency", **LATE) as fault:
        client.process.kill()
        client.process.wait()
        assert fault.hijack.in_force()
