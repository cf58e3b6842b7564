"""What happens to a target and its interfaces while packets are struck, and to others that are there too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.injectors import Plan, Refusal
from squall.kernel.bpf import Collection
from squall.kernel.bpf.calls import link_create
from squall.kernel.namespaces import entered
from squall.kernel.netlink import CLSACT_EGRESS, Netlink
from squall.targets import find_cgroup, find_netns, find_processes
from squall.workers.network import names
from squall.workers.network.filter import Filter
from tests.network.striking import attach_by, plan_of, striking
from tests.network.wires import FAR, NEAR, Ears, Talker, Wire, talker, wire
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel_world import KernelWorld
    from tests.network.striking import Struck

pytestmark = pytest.mark.kernel

CUT_OFF: dict[str, object] = {"direction": "egress"}


@pytest.fixture
def cable() -> Iterator[Wire]:
    with wire() as found:
        yield found


@pytest.fixture
def far(cable: Wire, kernel_world: KernelWorld) -> Iterator[Talker]:
    """A process of the far namespace, in a cgroup of its own."""
    with talker(cable.name, kernel_world.subgroup("target")) as found:
        found.ask("udp", name="u", address=FAR[4])
        yield found


def _sent(far: Talker, near: Ears, count: int = 20, name: str = "u") -> int:
    """How many of so many datagrams have come."""
    far.ask("send", name=name, to=[NEAR[4], near.port], count=count)
    return len(near.numbers())


def _worker_of(struck: Struck) -> int:
    (stat,) = surviving(struck.actions[-1].token)  # type: ignore[attr-defined]  # it is a worker
    return stat.pid


def _made(argv: list[str]) -> None:
    """Make an interface of a kind that this kernel may lack."""
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        pytest.skip(
            f"this kernel makes no {argv[argv.index('type') + 1]}: run the tests in a guest with Debian's kernel"
        )


def test_an_interface_that_comes_later_is_hit_as_well(cable: Wire, far: Talker) -> None:
    with striking("network.partition", CUT_OFF, find_netns(cable.name)):
        for _ in range(2):  # comes, goes, and comes again
            subprocess.run(
                ["ip", "link", "add", "late-n", "type", "veth", "peer", "name", "late-f", "netns", cable.name],
                check=True,
            )
            subprocess.run(["ip", "addr", "add", "10.78.0.1/24", "dev", "late-n"], check=True)
            subprocess.run(["ip", "link", "set", "late-n", "up"], check=True)
            cable.ip("addr", "add", "10.78.0.2/24", "dev", "late-f")
            cable.ip("link", "set", "late-f", "up")
            with Ears("10.78.0.1") as ears:
                far.ask("udp", name="late", address="10.78.0.2")

                def arrives(ears: Ears = ears) -> bool:
                    far.ask("send", name="late", to=["10.78.0.1", ears.port], count=1)
                    return bool(ears.numbers())

                wait_for(lambda: not arrives(), "the new interface is cut off too", 5)
                assert not any(arrives() for _ in range(5))
            subprocess.run(["ip", "link", "delete", "late-n"], check=True)


def test_one_fault_ends_and_another_goes_on_on_the_same_interface(cable: Wire, far: Talker) -> None:
    target = find_netns(cable.name)
    with Ears(NEAR[4]) as near, Ears(NEAR[4]) as other:
        with striking("network.partition", {**CUT_OFF, "remotePorts": [near.port]}, target):
            with striking("network.partition", {**CUT_OFF, "remotePorts": [other.port]}, target, seed=8):
                assert (_sent(far, near), _sent(far, other)) == (0, 0)
            assert (_sent(far, near), _sent(far, other)) == (0, 20)
        assert (_sent(far, near), _sent(far, other)) == (20, 20)


@pytest.mark.parametrize("attached", ["tcx", "clsact"])
def test_programs_and_filters_of_others_go_on_working(
    cable: Wire, far: Talker, attached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's program counts what it sees: as many before, while and after, for what is not struck."""
    attach_by(monkeypatch, attached)
    with Collection.load("network", ("egress",)) as theirs, Ears(NEAR[4]) as near, entered(cable.namespace):
        settings = bytearray(48)
        settings[12:16], settings[44:48] = b"\1\0\0\0", b"\1\0\0\0"  # the way out; count all
        theirs.map("settings")[b"\0\0\0\0"] = bytes(settings)
        with Netlink() as netlink:
            index = next(link.index for link in netlink.links() if link.name == "far")
            if attached == "clsact":
                netlink.add_clsact(index)
                netlink.add_bpf_filter(index, CLSACT_EGRESS, 9, theirs.program("egress"), "theirs")
            else:
                link = link_create(theirs.program("egress"), index, 47)
            seen = lambda: theirs.map("counters").total(7)  # noqa: E731
            with striking("network.duplicate", {"percent": "0%"}, find_netns(cable.name)):
                before = seen()
                assert _sent(far, near) == 20
                assert seen() >= before + 20
            before = seen()
            assert _sent(far, near) == 20
            assert seen() >= before + 20
            if attached == "clsact":
                assert [one.name for one in netlink.filters(index, CLSACT_EGRESS)] == ["theirs"]
            else:
                os.close(link)


def test_clsact_that_was_made_for_it_goes_again(cable: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    attach_by(monkeypatch, "clsact")

    def kinds() -> list[str]:
        with entered(cable.namespace), Netlink() as netlink:
            return sorted(one.kind for one in netlink.qdiscs())

    before = kinds()
    with striking("network.loss", {"percent": "1%"}, find_netns(cable.name)) as struck:
        assert "clsact" in kinds()
        os.kill(_worker_of(struck), signal.SIGKILL)  # then the filters stay, and the other step takes them away
        wait_for(lambda: not surviving(struck.actions[-1].token), "the worker is gone")  # type: ignore[attr-defined]
        assert "clsact" in kinds()
    assert kinds() == before


def test_everything_passes_when_the_worker_is_killed(cable: Wire, far: Talker) -> None:
    with Ears(NEAR[4]) as near, striking("network.partition", CUT_OFF, find_netns(cable.name)) as struck:
        assert _sent(far, near) == 0
        assert struck.actions[-1].in_force()  # type: ignore[attr-defined]  # it is leased
        os.kill(_worker_of(struck), signal.SIGKILL)
        wait_for(lambda: _sent(far, near, 1) == 1, "packets pass", 2)
        assert not struck.actions[-1].in_force()  # type: ignore[attr-defined]


@pytest.mark.parametrize("attached", ["tcx", "clsact"])
def test_everything_passes_within_a_second_when_the_worker_is_stopped(
    cable: Wire, far: Talker, attached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach_by(monkeypatch, attached)
    with Ears(NEAR[4]) as near, striking("network.partition", CUT_OFF, find_netns(cable.name)) as struck:
        assert _sent(far, near) == 0
        worker = _worker_of(struck)
        os.kill(worker, signal.SIGSTOP)
        began = time.monotonic()
        wait_for(lambda: _sent(far, near, 1) == 1, "packets pass", 5)
        assert time.monotonic() - began < 2
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: not struck.actions[-1].in_force(), "the lapse is told")  # type: ignore[attr-defined]


def test_a_process_that_moves_to_another_cgroup_stays_the_target(far: Talker, kernel_world: KernelWorld) -> None:
    elsewhere = kernel_world.subgroup("elsewhere")
    with Ears(NEAR[4]) as near, striking("network.partition", CUT_OFF, find_processes(pid=far.pid)[0]):
        (elsewhere / "cgroup.procs").write_text(str(far.pid))

        def cut() -> bool:
            far.ask("udp", name="new", address=FAR[4])
            return _sent(far, near, 1, "new") == 0

        wait_for(cut, "a socket that is made in the new group is known", 5)
        assert _sent(far, near) == 0


def test_what_a_process_forks_is_hit_when_asked(far: Talker) -> None:
    for descendants in (False, True):
        parameters = {**CUT_OFF, "descendants": descendants}
        with Ears(NEAR[4]) as near, striking("network.partition", parameters, find_processes(pid=far.pid)[0]):
            assert far.ask("child_sends", to=[NEAR[4], near.port], wait=1.6, count=5) is True
            assert len(near.numbers()) == (0 if descendants else 5)


def test_children_of_a_tagged_listener_are_the_targets_own(far: Talker) -> None:
    port = far.ask("listen", name="l", address=FAR[4])
    with talker() as near:
        assert near.ask("connect", name="before", to=[FAR[4], port]) == ""
        far.ask("accept", name="a", listener="l")
        with striking("network.partition", {"direction": "ingress"}, find_processes(pid=far.pid)[0]):
            near.ask("write", name="before", count=10)
            assert far.ask("read", name="a", count=10, timeout=0.3) == 0
            assert near.ask("connect", name="new", to=[FAR[4], port], timeout=0.5) == "TimeoutError"
            near.ask("close", name="new")
        assert far.ask("read", name="a", count=10, timeout=5) == 10
        with striking(
            "network.loss", {"percent": "0%", "direction": "ingress"}, find_processes(pid=far.pid)[0]
        ) as struck:
            assert near.ask("connect", name="new", to=[FAR[4], port]) == ""
            far.ask("accept", name="b", listener="l")
            near.ask("write", name="new", count=100)
            assert far.ask("read", name="b", count=100) == 100
            wait_for(lambda: struck.counts()["missed"] >= 3, "what its child receives is seen")


def test_ports_of_a_bridge_are_not_met_twice(cable: Wire, far: Talker) -> None:
    _made(["ip", "-n", cable.name, "link", "add", "br", "type", "bridge"])
    cable.ip("link", "set", "far", "master", "br")
    cable.ip("addr", "flush", "dev", "far")
    cable.ip("link", "set", "br", "up")
    cable.ip("addr", "add", f"{FAR[4]}/24", "dev", "br")
    far.ask("udp", name="b", address=FAR[4])
    with Ears(NEAR[4]) as near:
        wait_for(lambda: _sent(far, near, 1, "b") == 1, "the bridge forwards", 10)
        with striking("network.duplicate", {"percent": "100%"}, find_netns(cable.name)):
            assert _sent(far, near, 50, "b") == 100


def test_packets_of_a_vlan_are_met_once(cable: Wire, far: Talker) -> None:
    _made(["ip", "link", "add", "link", "near", "name", "near.7", "type", "vlan", "id", "7"])
    cable.ip("link", "add", "link", "far", "name", "far.7", "type", "vlan", "id", "7")
    subprocess.run(["ip", "addr", "add", "10.79.0.1/24", "dev", "near.7"], check=True)
    subprocess.run(["ip", "link", "set", "near.7", "up"], check=True)
    cable.ip("addr", "add", "10.79.0.2/24", "dev", "far.7")
    cable.ip("link", "set", "far.7", "up")
    far.ask("udp", name="v", address="10.79.0.2")
    with Ears("10.79.0.1") as ears, striking("network.duplicate", {"percent": "100%"}, find_netns(cable.name)):
        far.ask("send", name="v", to=["10.79.0.1", ears.port], count=50)
        assert len(ears.numbers()) == 100


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_follow_the_first_which_has_the_ports(far: Talker, family: int) -> None:
    far.ask("udp", name="f", address=FAR[family])
    with Ears(NEAR[family]) as meant, Ears(NEAR[family]) as other:
        parameters = {**CUT_OFF, "remotePorts": [meant.port]}
        with striking("network.partition", parameters, find_processes(pid=far.pid)[0]) as struck:
            far.ask("send", name="f", to=[NEAR[family], meant.port], count=10, size=4000)
            far.ask("send", name="f", to=[NEAR[family], other.port], count=10, size=4000)
            assert (len(meant.numbers()), len(other.numbers())) == (0, 10)
            wait_for(lambda: struck.counts().get("dropped") == 30, "each of three fragments is dropped")


def test_a_corrupt_packet_is_thrown_away_by_its_receiver_with_a_count(cable: Wire, far: Talker) -> None:
    def bad() -> int:
        lines = [
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Ip:")
        ]
        return int(dict(zip(*lines, strict=True))["InHdrErrors"])

    before = bad()
    with Ears(NEAR[4]) as near, striking("network.corrupt", {"percent": "100%"}, find_netns(cable.name)):
        assert _sent(far, near) == 0
        assert bad() - before >= 20


def test_with_a_correlation_hits_come_in_bursts(cable: Wire, far: Talker) -> None:
    """Netem's own arithmetic, done here again, gives what to expect."""
    import random

    rho, share, draw, last = 0.8, 0.3, random.Random(1), 0.5
    runs, hits, before = 0, 0, False
    for _ in range(100_000):
        last = (1 - rho) * draw.random() + rho * last
        hits, runs, before = hits + (last < share), runs + (last < share and not before), last < share
    expected, length = hits / 100_000, hits / max(1, runs)
    with Ears(NEAR[4]) as near:
        parameters = {"percent": "30%", "correlation": "80%", "remotePorts": [near.port]}
        with striking("network.loss", parameters, find_netns(cable.name)):
            far.ask("send", name="u", to=[NEAR[4], near.port], count=3000)
            lost = sorted(set(range(3000)) - set(near.numbers()))
    bursts = sum(number - 1 not in set(lost) for number in lost)
    assert abs(len(lost) / 3000 - expected) < 0.06, expected
    assert length * 0.6 < len(lost) / max(1, bursts) < length * 1.6, length


def test_the_same_seed_hits_the_same_packets(cable: Wire, far: Talker) -> None:
    def came(seed: int) -> list[int]:
        with Ears(NEAR[4]) as near:
            parameters = {"percent": "50%", "remotePorts": [near.port]}
            with striking("network.loss", parameters, find_netns(cable.name), seed=seed):
                far.ask("send", name="u", to=[NEAR[4], near.port], count=100)
                return near.numbers()

    assert came(3) == came(3) != came(4)


def test_what_cannot_be_known_is_refused_with_the_reason(cable: Wire, far: Talker, kernel_world: KernelWorld) -> None:
    empty = kernel_world.subgroup("empty")
    for parameters, target, reason in (
        ({"peers": ["nobody.invalid"]}, find_netns(cable.name), "does not resolve"),
        ({"protocol": "icmp", "direction": "both"}, find_processes(pid=far.pid)[0], "belongs to no socket"),
        ({}, find_cgroup(str(empty)), "has no process"),
    ):
        answer = plan_of("network.partition", parameters, target)
        assert isinstance(answer, Refusal)
        assert reason in answer.reason


def test_a_cgroup_in_two_network_namespaces_is_hit_in_both(cable: Wire, kernel_world: KernelWorld) -> None:
    group = kernel_world.subgroup("both")
    with talker(cable.name, group) as far, talker("", group) as near, talker() as other:
        ports = {name: one.ask("udp", name="u", address=address) for name, one, address in (
            ("far", far, FAR[4]), ("near", near, NEAR[4]), ("other", other, NEAR[4]),
        )}  # fmt: skip
        with striking("network.partition", CUT_OFF, find_cgroup(str(group))) as struck:
            assert sum(action.kind == "kernel-worker" for action in struck.actions) == 2
            far.ask("send", name="u", to=[NEAR[4], ports["other"]], count=10)
            near.ask("send", name="u", to=[FAR[4], ports["far"]], count=10)
            assert (other.ask("numbers", name="u"), far.ask("numbers", name="u")) == ([], [])
            other.ask("send", name="u", to=[FAR[4], ports["far"]], count=10)
            assert len(far.ask("numbers", name="u")) == 10


def test_a_host_name_is_resolved_again(cable: Wire, far: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter in this very process, with a resolver that changes its mind."""
    addresses = {"peer.test": ("192.0.2.1",)}
    monkeypatch.setattr(names, "EVERY_S", 0.05)
    monkeypatch.setattr(names, "addresses_of", addresses.get)
    plan = plan_of("network.partition", {**CUT_OFF, "peers": ["192.0.2.1"]}, find_netns(cable.name))
    assert isinstance(plan, Plan)
    config = {**plan.actions[-1].config, "resolved": {"peer.test": ["192.0.2.1"]}}  # type: ignore[attr-defined]
    config["match"] = {**config["match"], "peers": ["peer.test"]}
    known = names.Names({"peer.test": ("192.0.2.1",)})
    with Ears(NEAR[4]) as near, entered(cable.namespace):
        held = Filter(config, known)
        try:
            held.renew()
            assert _sent(far, near) == 20
            addresses["peer.test"] = (NEAR[4],)

            def cut_off() -> bool:
                held.renew()
                return _sent(far, near, 1) == 0

            wait_for(cut_off, "the new address is known", 10)
            assert held.counts()["dropped"] >= 1
        finally:
            held.close()


@pytest.mark.parametrize("theirs", [False, True])
def test_the_last_of_several_takes_clsact_away_unless_it_was_there_before(
    cable: Wire, monkeypatch: pytest.MonkeyPatch, *, theirs: bool
) -> None:
    attach_by(monkeypatch, "clsact")
    target = find_netns(cable.name)

    def having() -> int:
        with entered(cable.namespace), Netlink() as netlink:
            return sum(one.kind == "clsact" for one in netlink.qdiscs())

    if theirs:
        with entered(cable.namespace), Netlink() as netlink:
            netlink.add_clsact(1)
    with striking("network.loss", {"percent": "1%", "direction": "both"}, target), ExitStack() as inner:
        inner.enter_context(striking("network.loss", {"percent": "2%"}, target))
        assert having() == 2
        later = inner.pop_all()
    assert having() == 2, "one still needs it"
    later.close()
    assert having() == int(theirs)
