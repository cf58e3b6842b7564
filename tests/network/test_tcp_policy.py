"""tcp.delay on real connections between namespaces: what is held, what passes, and what becomes of it when things end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from squall.actions import KernelWorker
from squall.actions.worker import end_workers, surviving
from squall.faults import parse_fault
from squall.faults.tcp_policy import policy_end
from squall.injectors.network import attaching
from squall.injectors.tcp_policy import PolicyByLine
from squall.kernel import own, proc
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import ProcessIdentity
from squall.workers.network.policy import Policy
from tests import specimens, wires
from tests.programs.build import go_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel_world import KernelWorld

MS = 1_000_000 * wires.TIMES
Rows = list[tuple[str, int, int]]


def line_or_skip() -> None:
    """Skip where this kernel cannot hold packets by a line."""
    answer = PolicyByLine().capable(None)  # type: ignore[arg-type]  # it asks the kernel, not the host
    if not answer.works:
        pytest.skip(f"no delay line here: {answer.reason}")


def worker(path: str, policy: Rows, **scope: Any) -> KernelWorker:
    """The step that holds data in this namespace."""
    config = {
        "netns": NetworkNamespace.at(path).to_json(), "scope": {"kind": "netns"} | scope, "policy": policy,
        "how": "line", "filters": "" if attaching().by == "tcx" else "squall:test",
    }  # fmt: skip
    return KernelWorker(f"test/{os.urandom(6).hex()}", "squall.workers.network.tcp_policy", "test", config, (), 0.5)


@contextmanager
def on(step: KernelWorker) -> Iterator[int]:
    """The step done; undone when the test leaves. Its life line."""
    line_or_skip()
    (life_line,) = step.do()
    try:
        yield life_line
    finally:
        os.close(life_line)
        step.undo()
        assert step.verify().normal


def typical_ms(address: str, count: int = 7, **how: Any) -> float:
    return statistics.median(wires.round_trips_ms(address, count, **how))


def handshake_ms(address: str) -> float:
    begun = time.perf_counter()
    with socket.create_connection((address, wires.ECHO_PORT), timeout=10):
        return (time.perf_counter() - begun) * 1000


def packet(version: int, source: bytes, destination: bytes, ports: tuple[int, int]) -> bytes:
    """A frame as a line reads it, headers only."""
    kind, ip = (b"\x08\x00", b"\x45" + bytes(11)) if version == 4 else (b"\x86\xdd", b"\x60" + bytes(7))
    return bytes(10 + 12) + kind + ip + source + destination + b"".join(p.to_bytes(2) for p in ports) + bytes(16)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([], 0),
        ([("0.0.0.0", 0, 1)], 1),
        ([("::", 0, 1)], 0),
        ([("0.0.0.0", 0, 1), ("0.0.0.0", 80, 2)], 2),
        ([("0.0.0.0", 80, 2), ("10.0.0.2", 0, 3)], 3),
        ([("10.0.0.2", 0, 3), ("10.0.0.2", 80, 4)], 4),
        ([("10.0.0.2", 80, 4), ("10.0.0.1", 5000, 5)], 4),
        ([("10.0.0.2", 0, 3), ("10.0.0.1", 5000, 5)], 5),
        ([("0.0.0.0", 5000, 6), ("0.0.0.0", 0, 1)], 6),
        ([("10.0.0.2", 80, 0), ("0.0.0.0", 0, 1)], 0),
        ([("10.0.0.3", 80, 7)], 0),
    ],
)
def test_the_most_exact_entry_decides(rows: Rows, wanted: int) -> None:
    frame = packet(4, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), (5000, 80))
    assert Policy.of(rows).wanted_ns(frame) == wanted


def test_addresses_of_the_two_families_are_never_mistaken() -> None:
    policy = Policy.of([("0.0.0.0", 0, 4), ("::", 0, 6), ("::a00:2", 0, 66)])
    assert policy.wanted_ns(packet(4, bytes(4), bytes([10, 0, 0, 2]), (1, 2))) == 4
    assert policy.wanted_ns(packet(6, bytes(16), bytes(12) + bytes([10, 0, 0, 2]), (1, 2))) == 66
    assert policy.wanted_ns(packet(6, bytes(16), b"\xfd" + bytes(15), (1, 2))) == 6


@given(st.text(max_size=30))
def test_what_is_no_end_is_refused_and_nothing_else(text: str) -> None:
    try:
        address, port = policy_end(text)
    except ValueError:
        return
    assert 0 <= port <= 65535
    assert policy_end(f"[{address}]:{port}" if ":" in address else f"{address}:{port}") == (address, port)


@pytest.mark.parametrize(
    "policy", [{}, {"10.0.0.1": "1s"}, {"a:1": "1s"}, {"::1:80": "1s"}, {"1.1.1.1:1": "1h"}, "x", 7]
)
def test_a_wrong_policy_is_refused_whole(policy: object) -> None:
    with pytest.raises(ValidationError):
        parse_fault("tcp.delay", {"policy": policy})


def test_a_policy_may_be_written_in_one_line() -> None:
    written = parse_fault("tcp.delay", {"policy": "10.0.0.1:8080=20ms, [::0]:0=0s"})
    assert written == parse_fault("tcp.delay", {"policy": {"10.0.0.1:8080": "20ms", "[::]:0": "0s"}})


@pytest.mark.kernel
def test_data_is_held_and_handshakes_are_not() -> None:
    with wires.wire() as wire, wires.echo(wire), on(worker(wire.path, [("0.0.0.0", 0, 40 * MS), ("::", 0, 25 * MS)])):
        for address, asked in ((wire.far, 40), (wire.far6, 25)):
            assert asked * wires.TIMES <= typical_ms(address) < asked * wires.TIMES + wires.OFF_MS
            assert min(handshake_ms(address) for _ in range(5)) < wires.OFF_MS
        assert typical_ms(wire.far, udp=True) < wires.OFF_MS, "it is about TCP"


@pytest.mark.kernel
def test_bare_acknowledgements_and_the_end_of_a_connection_pass() -> None:
    """What a client sends is acknowledged at once, though the server's data would be held for a second."""
    with (
        wires.wire() as wire, wires.echo(wire), on(worker(wire.path, [("0.0.0.0", 0, 1000 * MS)])),
        socket.create_connection((wire.far, wires.ECHO_PORT)) as one,
    ):  # fmt: skip
        begun = time.monotonic()
        one.sendall(b"drop" * 1000)
        specimens.wait_for(lambda: unacknowledged(one) == 0, "everything is acknowledged")
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b"", "the server closes as well: its FIN is here"
        assert time.monotonic() - begun < 0.8 * wires.TIMES


def unacknowledged(one: socket.socket) -> int:
    """TCP_INFO's tcpi_unacked (linux/tcp.h)."""
    return int.from_bytes(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24:28], sys.byteorder)


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.77.0.2", "fd77::2"])
def test_loopback_is_held_too_with_whatever_address(address: str) -> None:
    code = "import json, sys; from tests import wires; print(wires.round_trips_ms(sys.argv[1], 5))"
    with (
        wires.wire() as wire,
        wires.echo(wire),
        on(worker(wire.path, [("0.0.0.0", wires.ECHO_PORT, 20 * MS), ("::", wires.ECHO_PORT, 20 * MS)])),
    ):
        said = wire.far_end(
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {[str(specimens.SOURCE), str(specimens.SOURCE.parent)]!r}\n{code}",
            address,
        )
    taken = statistics.median(float(word) for word in said.strip("[]\n").split(","))
    assert 40 * wires.TIMES <= taken < 40 * wires.TIMES + 2 * wires.OFF_MS, "both ways pass this namespace's policy"


@pytest.mark.kernel
def test_the_policy_is_changed_without_a_gap_or_a_lost_byte() -> None:
    with wires.wire() as wire, wires.echo(wire):
        first = worker(wire.path, [(wire.far, wires.ECHO_PORT, 20 * MS)])
        with on(first) as life_line, socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = []
            for number in range(40):
                if number == 20:
                    assert first.become(
                        replace(first, config=first.config | {"policy": [("0.0.0.0", 0, 45 * MS)]}), (life_line,)
                    )
                begun = time.perf_counter()
                one.sendall(b"%04d" % number)
                assert one.recv(4) == b"%04d" % number
                taken.append((time.perf_counter() - begun) * 1000)
        assert min(taken) >= 20 * wires.TIMES, "at no moment it was off"
        assert min(taken[30:]) >= 45 * wires.TIMES
        assert statistics.median(taken[:20]) < 20 * wires.TIMES + wires.OFF_MS


def ended(pid: int) -> bool:
    """Whether it has closed everything: a zombie has no files any more."""
    stat = proc.read_stat(pid)
    return stat is None or stat.gone


@pytest.mark.kernel
def test_a_killed_worker_leaves_nothing_and_data_flows_at_once() -> None:
    with wires.wire() as wire, wires.echo(wire):
        step = worker(wire.path, [("0.0.0.0", 0, 200 * MS)])
        with on(step), socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
            one.sendall(b"before")
            assert one.recv(100) == b"before"
            left = surviving(step.token)
            for stat in left:
                os.kill(stat.pid, signal.SIGKILL)
            specimens.wait_for(lambda: all(ended(stat.pid) for stat in left), "it is gone")
            begun = time.monotonic()
            one.sendall(b"after")
            assert one.recv(100) == b"after"
            assert time.monotonic() - begun < (0.15 if attaching().by == "tcx" else 2) * wires.TIMES
            assert not step.in_force()
        assert "squall" not in wire.far_end("ip", "-o", "link")


@pytest.mark.kernel
def test_a_stopped_worker_lets_all_pass_within_a_second() -> None:
    """It cannot renew its lease, and what it holds comes when it goes on: TCP has sent it again by then."""
    with wires.wire() as wire, wires.echo(wire):
        step = worker(wire.path, [("0.0.0.0", 0, 30 * MS)])
        with on(step):
            assert typical_ms(wire.far) >= 30 * wires.TIMES
            (stat,) = surviving(step.token)
            os.kill(stat.pid, signal.SIGSTOP)
            try:
                time.sleep(1.3)  # longer than the lease: that nothing renews it can only be waited for
                assert typical_ms(wire.far) < wires.OFF_MS
            finally:
                os.kill(stat.pid, signal.SIGCONT)
            specimens.wait_for(lambda: not step.in_force(), "the lapse is noticed")


@pytest.mark.kernel
def test_an_interface_that_is_made_anew_is_held_again() -> None:
    with wires.wire() as wire, wires.echo(wire), on(worker(wire.path, [("0.0.0.0", 0, 30 * MS)])) as _:
        assert typical_ms(wire.far) >= 30 * wires.TIMES
        wire.cut()
        wire.connect()
        specimens.wait_for(lambda: typical_ms(wire.far, 1) >= 30 * wires.TIMES, "the new interface is held")
        assert typical_ms(wire.far) >= 30 * wires.TIMES


@pytest.mark.kernel
def test_only_the_cgroups_sockets_are_held_also_those_from_before(kernel_world: KernelWorld) -> None:
    """Two servers in one namespace, one of them in the cgroup; a connection that was there before is held as well."""
    folder = kernel_world.subgroup("target")
    with wires.wire() as wire, wires.echo(None, 7001) as target, wires.echo(None, 7002):
        own.join(str(folder), target.pid)
        scope = {"kind": "process", "processes": [ProcessIdentity.of(target.pid).to_json()]}
        for found in (scope, {"kind": "cgroup", "cgroup": str(folder)}):
            with socket.create_connection(("127.0.0.1", 7001)) as old:
                old.sendall(b"x")
                assert old.recv(1)
                with on(
                    worker(
                        "/proc/thread-self/ns/net", [("0.0.0.0", 7001, 30 * MS), ("0.0.0.0", 7002, 30 * MS)], **found
                    )
                ):
                    assert 30 * wires.TIMES <= typical_ms("127.0.0.1", port=7001) < 30 * wires.TIMES + wires.OFF_MS
                    assert typical_ms("127.0.0.1", port=7002) < wires.OFF_MS
                    begun = time.monotonic()
                    old.sendall(b"x")
                    assert old.recv(1)
                    assert 0.03 * wires.TIMES <= time.monotonic() - begun < 0.2 * wires.TIMES
        assert wire.namespace.there()


@pytest.mark.kernel
@pytest.mark.slow
def test_a_program_that_knows_nothing_of_it_is_delayed() -> None:
    """Redis, asked with its own client."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip("needs redis-server and redis-cli, of Debian's packages redis-server and redis-tools")
    with (
        wires.wire() as wire,
        specimens.started(
            *wire.argv("redis-server", "--port", "6390", "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no")
        ),
    ):
        ask = ["redis-cli", "-h", wire.far, "-p", "6390"]
        specimens.wait_for(
            lambda: subprocess.run([*ask, "ping"], capture_output=True, check=False).stdout == b"PONG\n",
            "Redis answers",
        )
        with on(worker(wire.path, [(wire.far, 6390, 50 * MS)])):
            begun = time.monotonic()
            subprocess.run([*ask, "-r", "10", "incr", "n"], check=True, capture_output=True)
            taken = time.monotonic() - begun
        assert subprocess.run([*ask, "get", "n"], check=True, capture_output=True).stdout == b"10\n"
    assert 0.5 * wires.TIMES <= taken < 1.5 * wires.TIMES


@pytest.mark.kernel
@pytest.mark.slow
def test_a_static_go_server_that_nobody_prepared_is_delayed(kernel_world: KernelWorld) -> None:
    """It listens for multipath TCP, as Go does, so that what it answers is sent by sockets of the kernel's own."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl, of Debian's package curl")
    program, folder = go_program("handlers"), kernel_world.subgroup("target")
    with specimens.started(str(program), "127.0.0.1:0", "net", stdout=subprocess.PIPE) as server:
        assert server.popen.stdout is not None
        port = int(server.popen.stdout.readline().split()[1])
        own.join(str(folder), server.pid)
        ask = ["curl", "-sS", "-o", os.devnull, "-w", "%{time_connect} %{time_total}", f"http://127.0.0.1:{port}/order"]
        scope = {"kind": "process", "processes": [ProcessIdentity.of(server.pid).to_json()], "descendants": False}
        with on(worker("/proc/thread-self/ns/net", [("127.0.0.1", port, 60 * MS)], **scope)):
            times = [asked(ask) for _ in range(5)]
        assert statistics.median(connect for connect, _ in times) < wires.OFF_MS / 1000
        assert (
            0.06 * wires.TIMES
            <= statistics.median(total for _, total in times)
            < 0.06 * wires.TIMES + wires.OFF_MS / 500
        )
        assert asked(ask)[1] < 0.06 * wires.TIMES


def asked(ask: list[str]) -> tuple[float, float]:
    """Seconds until connected, and in all."""
    said = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    return float(said[0]), float(said[1])


@pytest.mark.kernel
def test_a_worker_is_ended_with_its_token() -> None:
    line_or_skip()
    with wires.wire() as wire:
        step = worker(wire.path, [("0.0.0.0", 0, MS)])
        (life_line,) = step.do()
        assert step.counters()["interfaces"] == 2
        end_workers(step.token)
        os.close(life_line)
        assert step.verify().normal
