"""Queues of the kernel's own: what is put there, that nothing of anybody's is lost, and what they do to real packets."""

from __future__ import annotations

import os
import re
import socket
import statistics
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import Action, decode, encode
from squall.errors import CannotInject
from squall.faults import parse_fault
from squall.injectors import Chooser, Plan, Refusal, Site
from squall.injectors.netem import HtbInjector, NetemInjector, netem_of
from squall.injectors.tcp_policy import PolicyByQueue
from squall.kernel.netlink import ROOT, Qdisc, attributes
from squall.kernel.queues import Netem, htb_queue, is_root, netem_queue
from squall.targets import NetnsTarget, RouteTarget
from tests import wires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from squall.injectors import Injector
    from tests.wires import Wire

HANDLE = 0x5CA0_0000
LATE_MS = 40 * wires.TIMES


def far_of(wire: Wire) -> NetnsTarget:
    return NetnsTarget("far", wire.namespace)


def able(injector: Injector) -> None:
    answer = injector.capable(None)  # type: ignore[arg-type]  # it asks the kernel, not the host
    if not answer.works:
        pytest.skip(f"no {injector.mechanism} here: {answer.reason}")


@contextmanager
def on(tmp_path: Path, injector: Injector, wire: Wire, tag: str, **parameters: Any) -> Iterator[Plan]:
    """The fault on by this mechanism; off, and everything as before, when the test leaves."""
    able(injector)
    fault = parse_fault(tag, parameters)
    plan = injector.plan(fault, far_of(wire), Site("run", tmp_path, f"0-{tag}-{os.urandom(4).hex()}", 7))
    assert isinstance(plan, Plan), plan
    before = queues(wire)
    done: list[Action] = []
    held: list[int] = []
    try:
        for action in plan.actions:
            done.append(decode(encode(action.prepare())))
            held.extend(done[-1].do())
        yield plan
    finally:
        for fd in held:
            os.close(fd)
        for action in reversed(done):
            action.undo()
            assert action.verify().normal
        assert queues(wire) == before


def queues(wire: Wire) -> str:
    """What `tc qdisc` says at the far end, without how many packets have passed."""
    return re.sub(r"direct_packets_stat \d+", "", wire.far_end("tc", "qdisc"))


def typical_ms(address: str, count: int = 7, **how: Any) -> float:
    return statistics.median(wires.round_trips_ms(address, count, **how))


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("injector", [HtbInjector(), NetemInjector()], ids=lambda one: one.mechanism)
def test_a_bandwidth_is_kept(tmp_path: Path, injector: Injector) -> None:
    """What the far end sends: it is asked for more than that by its echo."""
    with wires.wire() as wire, wires.echo(wire), on(tmp_path, injector, wire, "network.bandwidth", rate="8mbit"):
        rate = download(wire, 2_500_000)
    assert 0.75 * 8e6 < rate < 1.1 * 8e6


def download(wire: Wire, octets: int) -> float:
    """Bits a second at which an echo of so many bytes comes back, from the first half of them on."""
    with socket.create_connection((wire.far, wires.ECHO_PORT), timeout=30) as one:
        sender = threading.Thread(target=one.sendall, args=(b"x" * octets,))
        sender.start()
        got, half_at = 0, 0.0
        while got < octets:
            got += len(one.recv(1 << 16))
            if not half_at and got >= octets // 2:
                half_at, half = time.monotonic(), got
        sender.join()
        return (octets - half) * 8 / (time.monotonic() - half_at)


@pytest.mark.kernel
def test_only_what_the_filter_means_goes_into_the_class(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire, 7001), wires.echo(wire, 7002),
        on(tmp_path, HtbInjector(), wire, "network.bandwidth", rate="16kbit", localPorts=[7001]),
    ):  # fmt: skip
        for port, slow in ((7001, True), (7002, False)):
            began = wires.round_trips_ms(wire.far, 40, port=port)
            assert (sum(began) > 1000 * (1 if slow else wires.TIMES)) == slow, "5 kB at 2 kB/s, or at once"


@pytest.mark.kernel
def test_netem_delays_what_is_meant_and_nothing_else(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire, 7001), wires.echo(wire, 7002),
        on(tmp_path, NetemInjector(), wire, "network.delay", latency=f"{LATE_MS}ms", localPorts=[7001]) as plan,
    ):  # fmt: skip
        assert plan.recoverability == "guarded"
        for address in (wire.far, wire.far6):
            assert LATE_MS <= typical_ms(address, port=7001) < LATE_MS + wires.OFF_MS
            assert typical_ms(address, port=7002) < wires.OFF_MS


@pytest.mark.kernel
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_netem_takes_jitter_and_distribution(tmp_path: Path, distribution: str) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, NetemInjector(), wire, "network.delay", latency="60ms", jitter="20ms", distribution=distribution),
    ):  # fmt: skip
        taken = wires.round_trips_ms(wire.far, 40, udp=True)
    assert 50 < statistics.fmean(taken) < 60 + 2 * wires.OFF_MS
    assert statistics.pstdev(taken) > 6


@pytest.mark.kernel
def test_departure_times_hold_data_and_nothing_else(tmp_path: Path) -> None:
    """Fq is put where it is not, and the kernel's own queue comes back."""
    with (
        wires.wire() as wire, wires.echo(wire, 7001), wires.echo(wire, 7002),
        on(tmp_path, PolicyByQueue(), wire, "tcp.delay", policy={"0.0.0.0:7001": f"{LATE_MS}ms", "[::]:7001": f"{LATE_MS}ms"}) as plan,
    ):  # fmt: skip
        assert "fq is put on far0, lo" in plan.accuracy
        for address in (wire.far, wire.far6):
            assert LATE_MS <= typical_ms(address, port=7001) < LATE_MS + wires.OFF_MS
            assert typical_ms(address, port=7002) < wires.OFF_MS


@pytest.mark.parametrize(
    ("tag", "parameters", "reason"),
    [
        ("network.delay", {"latency": "1ms", "direction": "ingress"}, "cannot do ingress"),
        ("network.bandwidth", {"rate": "1mbit", "direction": "both"}, "cannot do both"),
        ("network.bandwidth", {"rate": "1mbit", "per": "flow"}, "not for each flow"),
        ("network.loss", {"percent": "1%"}, "none of its faults"),
    ],
)
def test_what_a_queue_cannot_do_is_refused(tmp_path: Path, tag: str, parameters: dict[str, Any], reason: str) -> None:
    answer = NetemInjector().plan(parse_fault(tag, parameters), None, Site("run", tmp_path, "0", 1))  # type: ignore[arg-type]
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_a_mechanism_can_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SQUALL_WITHOUT", "htb,line")
    chooser = Chooser([HtbInjector()], None)  # type: ignore[arg-type]  # nothing is asked of the host
    target = RouteTarget("a", "b")
    with pytest.raises(CannotInject, match="htb: left out by SQUALL_WITHOUT"):
        chooser.choose(parse_fault("network.bandwidth", {"rate": "1mbit"}), target, Site("run", tmp_path, "0", 1))


def test_parameters_of_netem_are_the_kernels() -> None:
    fault = parse_fault("network.reorder", {"percent": "25%", "correlation": "50%", "gap": 5, "latency": "10ms"})
    netem = netem_of(fault, 9)  # type: ignore[arg-type]
    assert isinstance(netem, Netem)
    block = netem.options()
    assert struct.unpack("<IIIIII", block[:24]) == (0, 100_000, 0, 5, 0, 0)
    there = attributes(block[24:])
    assert struct.unpack("<q", there[10]) == (10_000_000,)
    assert struct.unpack("<II", there[3]) == (1 << 30, 1 << 31)
    assert struct.unpack("<Q", there[14]) == (9,)


def test_the_normal_table_is_even_and_as_wide_as_netem_counts() -> None:
    table = struct.unpack("<4096h", attributes(Netem(1, 1, distribution="normal").options()[24:])[2])
    assert all(low == -high for low, high in zip(table, reversed(table), strict=True))
    assert list(table) == sorted(table)
    assert statistics.pstdev(table) == pytest.approx(8192, rel=0.01)


@pytest.mark.parametrize("rate", [125, 1_000_000, 12_500_000_000])
def test_a_rate_beyond_32_bits_is_told_in_64(rate: int) -> None:
    for options in (Netem(rate=rate).options()[24:], bytes.fromhex(htb_queue(HANDLE, rate)[0][1][4])):
        there = attributes(options)
        assert ((8 if len(there) > 4 else 6) in there) == (rate > 0xFFFFFFFF)


def test_a_place_for_filters_is_no_root() -> None:
    assert is_root(Qdisc(1, "fq_codel", 0, ROOT, b""))
    assert not is_root(Qdisc(1, "clsact", 0, ROOT, b""))
    assert not is_root(Qdisc(1, "fq", 0, 0x8001_0001, b""))
    layers, priority = netem_queue(HANDLE, Netem(1))
    assert layers[1][2] == priority
