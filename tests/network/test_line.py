"""network.delay, network.reorder and network.bandwidth by a delay line, on real packets between namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import KernelWorker
from squall.actions.worker import surviving
from squall.faults import parse_fault
from squall.faults.network import NetworkFault
from squall.injectors import Plan, Refusal, Site
from squall.injectors.line import LineInjector, line_works, shape_of
from squall.injectors.network import attaching, filter_works
from squall.kernel import own, proc
from squall.kernel.fresh_netns import tried
from squall.kernel.netlink import Netlink
from squall.targets import NetnsTarget, RouteTarget, find_cgroup
from squall.workers.network import frames
from squall.workers.network.tap import ETHERNET, HEADER, Tap
from tests import specimens, wires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.targets import Target
    from tests.kernel_world import KernelWorld
    from tests.wires import Wire


def plan(tmp_path: Path, target: Target, tag: str, **parameters: Any) -> Plan:
    """The line's plan for this fault; skips where this kernel cannot have one."""
    for answer in (filter_works(), line_works()):
        if not answer.works:
            pytest.skip(f"no delay line here: {answer.reason}")
    fault = parse_fault(tag, parameters)
    found = LineInjector().plan(fault, target, Site("run", tmp_path, f"0-{tag}-{os.urandom(4).hex()}", 7))
    assert isinstance(found, Plan), found
    return found


@contextmanager
def on(tmp_path: Path, target: Target, tag: str, **parameters: Any) -> Iterator[KernelWorker]:
    """The fault on; off and verified when the test leaves. Its worker."""
    found = plan(tmp_path, target, tag, **parameters)
    done, held = [], []
    try:
        for action in found.actions:
            ready = action.prepare()
            done.append(ready)
            held.extend(ready.do())
        worker = done[-1]
        assert isinstance(worker, KernelWorker)
        yield worker
    finally:
        for fd in held:
            os.close(fd)
        for action in reversed(done):
            action.undo()
            assert action.verify().normal


def ms(value: float) -> str:
    """A delay that can be told from none here."""
    return f"{value * wires.TIMES:g}ms"


def far_of(wire: Wire) -> NetnsTarget:
    return NetnsTarget("far", wire.namespace)


def typical_ms(address: str, count: int = 7, **how: Any) -> float:
    return statistics.median(wires.round_trips_ms(address, count, **how))


@pytest.mark.kernel
@pytest.mark.parametrize(("direction", "passes"), [("egress", 1), ("ingress", 1), ("both", 2)])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_packet_is_late_in_the_direction_that_is_asked_for(
    tmp_path: Path, direction: str, passes: int, kind: str
) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(20), direction=direction),
    ):  # fmt: skip
        for address in (wire.far, wire.far6):
            asked = 20 * passes * wires.TIMES
            assert asked <= typical_ms(address, udp=kind == "udp") + 0.3 < asked + wires.OFF_MS * passes


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.77.0.2", "fd77::2"])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_loopback_is_late_too_with_whatever_address(tmp_path: Path, address: str, direction: str) -> None:
    """Four passes: an exchange goes twice over loopback; a handshake is late as well."""
    code = "from tests import wires; print(wires.round_trips_ms(sys.argv[1], 5))"
    paths = [str(specimens.SOURCE), str(specimens.SOURCE.parent)]
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(20), direction=direction),
    ):  # fmt: skip
        said = wire.far_end(sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}", address)
    taken = statistics.median(float(word) for word in said.strip("[]\n").split(","))
    assert 40 * wires.TIMES <= taken + 0.3 < 40 * wires.TIMES + 2 * wires.OFF_MS


@pytest.mark.kernel
def test_only_what_the_filter_means_is_late(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire, 7001), wires.echo(wire, 7002),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(30), localPorts=[7001], protocol="tcp") as worker,
    ):  # fmt: skip
        assert typical_ms(wire.far, port=7001) >= 29.7 * wires.TIMES
        assert typical_ms(wire.far, port=7002) < wires.OFF_MS
        assert typical_ms(wire.far, port=7001, udp=True) < wires.OFF_MS
        specimens.wait_for(lambda: worker.counters().get("diverted", 0) > 7, "packets are counted")


@pytest.mark.kernel
def test_a_share_of_the_packets_is_late(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(25), percent="40%"),
    ):  # fmt: skip
        taken = wires.round_trips_ms(wire.far, 120, udp=True)
    assert 0.25 < sum(one >= 24.5 * wires.TIMES for one in taken) / len(taken) < 0.55


@pytest.mark.kernel
def test_jitter_spreads_what_is_late(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(30), jitter=ms(20)),
    ):  # fmt: skip
        taken = wires.round_trips_ms(wire.far, 60, udp=True)
    assert 9.5 * wires.TIMES <= min(taken) < 20 * wires.TIMES
    assert max(taken) > 40 * wires.TIMES
    assert 24 * wires.TIMES < statistics.fmean(taken) < 30 * wires.TIMES + wires.OFF_MS


@pytest.mark.kernel
def test_some_overtake_those_that_are_held(tmp_path: Path) -> None:
    """Datagrams in one burst: those that are drawn come first, at once, and all of them come."""
    with (
        wires.wire() as wire, wires.echo(wire), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        on(tmp_path, far_of(wire), "network.reorder", latency=ms(80), percent="25%", gap=3),
    ):  # fmt: skip
        one.settimeout(10)
        one.connect((wire.far, wires.ECHO_PORT))
        for number in range(120):
            one.send(b"%03d" % number)
        came = [int(one.recv(100)) for _ in range(120)]
    assert sorted(came) == list(range(120))
    assert came != sorted(came)
    first = came[: came.index(0)]
    assert first == sorted(first)
    assert 3 <= len(first) <= 40, "about an eighth: a quarter of each third, and of each that follows one not drawn"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(("per", "flows", "expected"), [("all", 2, 8e6), ("flow", 2, 16e6)])
def test_a_bandwidth_is_kept_together_or_by_each_flow(tmp_path: Path, per: str, flows: int, expected: float) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.bandwidth", rate="8mbit", per=per, direction="ingress"),
    ):  # fmt: skip
        sent = flood(wire, flows, 3.0)
    assert 0.8 * expected < sent < 1.05 * expected


def flood(wire: Wire, flows: int, seconds: float) -> float:
    """Bits a second that as many connections got acknowledged, after a second of getting there."""
    totals, begun = [], time.monotonic()

    def one_flow() -> None:
        with socket.create_connection((wire.far, wires.ECHO_PORT)) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic" if cubic() else b"reno")
            one.settimeout(0.2)
            block, before = b"drop" * 4096, 0
            while time.monotonic() - begun < 1 + seconds:
                with contextlib.suppress(TimeoutError):
                    one.send(block)
                if not before and time.monotonic() - begun > 1:
                    before = acknowledged(one)
            totals.append(acknowledged(one) - before)

    threads = [threading.Thread(target=one_flow) for _ in range(flows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(totals) * 8 / seconds


def cubic() -> bool:
    return "cubic" in Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()


def acknowledged(one: socket.socket) -> int:
    """TCP_INFO's tcpi_bytes_acked (linux/tcp.h)."""
    return int.from_bytes(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)[120:128], sys.byteorder)


@pytest.mark.kernel
@pytest.mark.slow
def test_great_frames_pass_whole_and_unharmed(tmp_path: Path) -> None:
    """A file through curl, both ways of it delayed: segmentation offload, checksums, both families."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl, of Debian's package curl")
    folder = tmp_path / "served"
    folder.mkdir()
    data = os.urandom(8 << 20)
    (folder / "file").write_bytes(data)
    argv = [sys.executable, "-m", "http.server", "8088", "--bind", "::", "--directory", str(folder)]
    with wires.wire() as wire, specimens.started(*wire.argv(*argv), stderr=subprocess.DEVNULL):
        specimens.wait_for(lambda: answers(wire.far6, 8088), "it serves")
        with on(tmp_path, far_of(wire), "network.delay", latency="10ms", direction="both") as worker:
            got = subprocess.run(
                ["curl", "-sS", "--max-time", "60", f"http://[{wire.far6}]:8088/file"], capture_output=True, check=True
            ).stdout
            counts = worker.counters()
    assert got == data
    assert counts.get("overflowed", 0) == 0
    assert counts["diverted"] < len(data) / 1448, "fewer frames than segments: they were not cut"


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.kernel
def test_a_change_has_no_gap_and_loses_nothing(tmp_path: Path) -> None:
    with wires.wire() as wire, wires.echo(wire), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        found = plan(tmp_path, far_of(wire), "network.delay", latency=ms(40))
        (worker,) = found.actions
        assert isinstance(worker, KernelWorker)
        other = plan(tmp_path, far_of(wire), "network.delay", latency=ms(20)).actions[0]
        assert isinstance(other, KernelWorker)
        (life_line,) = worker.do()
        try:
            one.settimeout(10)
            one.connect((wire.far, wires.ECHO_PORT))
            sent_at, taken = {}, {}
            for number in range(60):
                if number == 30:
                    assert worker.become(replace(worker, config=other.config), (life_line,))
                sent_at[number] = time.monotonic()
                one.send(b"%d" % number)
                time.sleep(0.004)  # a steady stream: the change falls between two of its packets
            for _ in range(60):
                number = int(one.recv(100))
                taken[number] = time.monotonic() - sent_at[number]
        finally:
            os.close(life_line)
            worker.undo()
    assert len(taken) == 60
    assert min(taken[number] for number in range(60)) >= 0.0195 * wires.TIMES, "at no moment it was off"


@pytest.mark.kernel
def test_what_is_held_at_the_end_is_let_go_at_once(tmp_path: Path) -> None:
    with wires.wire() as wire, wires.echo(wire), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.connect((wire.far, wires.ECHO_PORT))
        with on(tmp_path, far_of(wire), "network.delay", latency="60s") as worker:
            for number in range(20):
                one.send(b"%d" % number)
            specimens.wait_for(lambda: worker.counters().get("diverted", 0) >= 20, "all are held")
        assert [int(one.recv(100)) for _ in range(20)] == list(range(20))


@pytest.mark.kernel
def test_a_killed_line_leaves_nothing_and_traffic_flows_at_once(tmp_path: Path) -> None:
    with wires.wire() as wire, wires.echo(wire), on(tmp_path, far_of(wire), "network.delay", latency="5s") as worker:
        left = surviving(worker.token)
        for stat in left:
            os.kill(stat.pid, signal.SIGKILL)
        specimens.wait_for(lambda: all((now := proc.read_stat(s.pid)) is None or now.gone for s in left), "it is gone")
        begun = time.monotonic()
        assert wires.round_trips_ms(wire.far, 3)
        at_once = 0.9 if attaching().by == "tcx" else 3  # a lost SYN would be sent again after a second
        assert time.monotonic() - begun < at_once * wires.TIMES
        assert "squall" not in wire.far_end("ip", "-o", "link")
        assert not worker.in_force()


@pytest.mark.kernel
def test_a_full_device_loses_packets_and_counts_them_and_blocks_nobody(tmp_path: Path) -> None:
    """A line that is stopped reads nothing: the sender goes on, the device's queue fills, what is more is lost."""
    with wires.wire() as wire, wires.echo(wire), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((wire.far, wires.ECHO_PORT))
        with on(tmp_path, far_of(wire), "network.delay", latency="1ms", direction="ingress") as worker:
            (stat,) = surviving(worker.token)
            os.kill(stat.pid, signal.SIGSTOP)
            try:
                begun = time.monotonic()
                sent = 0
                while sent < 12_000 and time.monotonic() - begun < 0.9:  # within the lease
                    one.send(b"x")
                    sent += 1
            finally:
                os.kill(stat.pid, signal.SIGCONT)
            if sent < 10_000:
                pytest.skip(f"this machine is too busy: {sent} packets in 0.9 s fill no queue of 8192")
            specimens.wait_for(lambda: worker.counters().get("overflowed", 0) > 0, "the loss is counted")
            of_its_own = 16  # packets that the kernel sends meanwhile, for neighbours and multicast, want a place too
            assert worker.counters()["overflowed"] <= sent - 8192 + of_its_own


@pytest.mark.kernel
@pytest.mark.parametrize("words", [("del",), ("set", "down")])
def test_a_device_that_somebody_takes_away_ends_the_line_and_the_run_knows(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with wires.wire() as wire, wires.echo(wire), on(tmp_path, far_of(wire), "network.delay", latency=ms(30)) as worker:
        names = [word.rstrip(":") for word in wire.far_end("ip", "-o", "link").split() if word.startswith("squall")]
        wire.far_end("ip", "link", words[0], names[0], *words[1:])
        specimens.wait_for(lambda: not worker.in_force(), "the line has ended")
        assert typical_ms(wire.far) < wires.OFF_MS


@pytest.mark.kernel
def test_an_interface_that_is_made_anew_is_late_again(tmp_path: Path) -> None:
    with wires.wire() as wire, wires.echo(wire), on(tmp_path, far_of(wire), "network.delay", latency=ms(30)):
        assert typical_ms(wire.far) >= 29.7 * wires.TIMES
        wire.cut()
        wire.connect()
        specimens.wait_for(lambda: typical_ms(wire.far, 1, udp=True) >= 29.7 * wires.TIMES, "the new interface is met")


@pytest.mark.kernel
def test_two_lines_on_one_interface_add_up(tmp_path: Path) -> None:
    with (
        wires.wire() as wire, wires.echo(wire),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(20)),
        on(tmp_path, far_of(wire), "network.delay", latency=ms(30)),
    ):  # fmt: skip
        for address in (wire.far, wire.far6):
            assert 49.4 * wires.TIMES <= typical_ms(address) < 50 * wires.TIMES + 2 * wires.OFF_MS


@pytest.mark.kernel
def test_only_the_cgroups_packets_are_late(tmp_path: Path, kernel_world: KernelWorld) -> None:
    folder = kernel_world.subgroup("target")
    with wires.echo(None, 7001) as target, wires.echo(None, 7002):
        own.join(str(folder), target.pid)
        with on(tmp_path, find_cgroup(str(folder)), "network.delay", latency=ms(30), direction="both"):
            assert 59.4 * wires.TIMES <= typical_ms("127.0.0.1", port=7001) < 60 * wires.TIMES + 2 * wires.OFF_MS
            assert typical_ms("127.0.0.1", port=7002) < wires.OFF_MS


@pytest.mark.kernel
def test_a_device_says_nothing_by_itself_and_hears_no_other_program(tmp_path: Path) -> None:
    """What somebody sends over a line's own device never comes out at the interface."""
    with wires.wire() as wire, on(tmp_path, far_of(wire), "network.delay", latency="1ms") as worker:
        names = [word.rstrip(":") for word in wire.far_end("ip", "-o", "link").split() if word.startswith("squall")]
        assert len(names) == 2
        code = f"""
import socket
one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
one.bind(({names[0]!r}, 0))
one.send(b"\\xff" * 6 + one.getsockname()[4] + b"\\x08\\x00" + bytes(50))
"""
        wire.far_end(sys.executable, "-c", code)
        specimens.wait_for(lambda: worker.counters().get("foreign"), "it is thrown away")


@pytest.mark.parametrize(
    ("tag", "parameters", "said"),
    [
        ("network.loss", {"percent": "10%"}, "none of its faults"),
        ("tcp.delay", {"policy": {"0.0.0.0:0": "1s"}}, "knows nothing"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, tag: str, parameters: dict[str, Any], said: str) -> None:
    answer = LineInjector().plan(parse_fault(tag, parameters), RouteTarget("a", "b"), Site("run", tmp_path, "0", 1))
    assert isinstance(answer, Refusal)
    assert said in answer.reason


def test_a_bandwidths_queue_is_bounded_by_time() -> None:
    for rate, limit in (("1kbit", 64 << 10), ("8mbit", 1_000_000), ("100gbit", 64 << 20)):
        fault = parse_fault("network.bandwidth", {"rate": rate})
        assert isinstance(fault, NetworkFault)
        shape = shape_of(fault)
        assert shape is not None
        assert shape.limit_bytes == limit


@pytest.mark.skipif(os.geteuid() != 0, reason="a device of one's own needs root")
def test_a_device_is_up_silent_and_goes_with_its_descriptor() -> None:
    def look() -> tuple[str, list[str], list[str]]:
        tap = Tap(1400)
        with Netlink() as netlink:
            there = {link.name: link for link in netlink.links()}
            assert there[tap.name].mtu == 1400
            assert there[tap.name].up
            addresses = [text for index, text in netlink.addresses() if index == tap.ifindex]
            name = tap.name
            tap.close()
            return name, addresses, [link.name for link in netlink.links()]

    if not line_works().works:
        pytest.skip(f"no delay line here: {line_works().reason}")
    name, addresses, after = tried(look)
    assert addresses == []
    assert name not in after


def frame(kind: bytes, payload: bytes, *, segment: int = 0, headers: int = 0) -> bytes:
    offload = bytes([0, 1 if segment else 0]) + headers.to_bytes(2, "little") + segment.to_bytes(2, "little") + bytes(4)
    assert len(offload) == HEADER
    return offload + bytes(12) + kind + payload


def test_the_length_of_a_great_frame_has_headers_for_each_segment() -> None:
    payload = bytes(40 + 2900)
    assert frames.ip_length(frame(b"\x08\x00", payload)) == 2940
    assert frames.ip_length(frame(b"\x08\x00", payload, segment=1448, headers=ETHERNET + 40)) == 2940 + 2 * 40


def test_a_flow_is_known_by_protocol_addresses_and_ports() -> None:
    def tcp(port: int, *, fragment: int = 0, tag: bytes = b"") -> bytes:
        ip = b"\x45" + bytes(5) + fragment.to_bytes(2) + b"\x40\x06" + bytes(2) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
        return frame(tag + b"\x08\x00", ip + port.to_bytes(2) + b"\x00\x50" + bytes(16))

    assert frames.flow(tcp(1)) == frames.flow(tcp(1)) != frames.flow(tcp(2))
    assert frames.flow(tcp(1, tag=b"\x81\x00\x00\x07")) == frames.flow(tcp(1)), "a VLAN's tag is stepped over"
    assert frames.flow(tcp(1, fragment=5)) == frames.flow(tcp(2, fragment=5)), "a later fragment has no ports"
    six = frame(b"\x86\xdd", bytes(6) + b"\x11" + bytes(1) + bytes(range(32)) + b"\x00\x01\x00\x02")
    assert frames.flow(six) == b"\x11" + bytes(range(32)) + b"\x00\x01\x00\x02"
    assert frames.flow(frame(b"\x08\x06", bytes(28))) == bytes(12) + b"\x08\x06"
    assert frames.network_header(frame(b"\x08\x00", bytes(3))) == (0, 0)
