"""Packets are lost, doubled, broken and cut off as asked, those of nobody else, and not any more afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.targets import find_cgroup, find_netns, find_processes
from tests.network.striking import striking
from tests.network.wires import FAR, NEAR, Ears, talker, wire
from tests.specimens import wait_for

if TYPE_CHECKING:
    from tests.kernel_world import KernelWorld

pytestmark = pytest.mark.kernel

COUNT = 400


@pytest.mark.parametrize("family", [4, 6])
def test_a_namespace_loses_what_it_sends(family: int) -> None:
    with wire() as cable, talker(cable.name) as far, Ears(NEAR[family]) as near:
        far.ask("udp", name="u", address=FAR[family])
        target = find_netns(cable.name)
        with striking("network.loss", {"percent": "30%"}, target) as struck:
            assert far.ask("send", name="u", to=[NEAR[family], near.port], count=COUNT) == 0
            came = len(near.numbers())
            assert 0.58 * COUNT < came < 0.82 * COUNT, struck.counts()
        far.ask("send", name="u", to=[NEAR[family], near.port], count=COUNT)
        assert len(near.numbers()) == COUNT


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("kind", ["process", "cgroup"])
def test_only_the_targets_sockets_are_hit(kernel_world: KernelWorld, kind: str, direction: str) -> None:
    group = kernel_world.subgroup("target")
    with wire() as cable, talker(cable.name, group) as hit, talker(cable.name) as other, Ears(NEAR[4]) as near:
        old = hit.ask("udp", name="old", address=FAR[4])
        target = find_cgroup(str(group)) if kind == "cgroup" else find_processes(pid=hit.pid)[0]
        with striking("network.partition", {"direction": direction}, target) as struck:
            new = hit.ask("udp", name="new", address=FAR[4])
            others = other.ask("udp", name="u", address=FAR[4])
            for who, name, port in ((hit, "old", old), (hit, "new", new), (other, "u", others)):
                who.ask("send", name=name, to=[NEAR[4], near.port], count=20)
                sent = len(near.numbers())
                near.send((FAR[4], port), 20)
                received = len(who.ask("numbers", name=name))
                expected = (20, 20) if who is other else (0, 20) if direction == "egress" else (20, 0)
                assert (sent, received) == expected, (name, struck.counts())


def test_it_is_adjusted_without_a_gap() -> None:
    with wire() as cable, talker(cable.name) as far, Ears(NEAR[4]) as one, Ears(NEAR[4]) as other:
        own = far.ask("udp", name="u", address=FAR[4])
        target = find_netns(cable.name)

        def arrive() -> tuple[int, int, int]:
            for near in (one, other):
                far.ask("send", name="u", to=[NEAR[4], near.port], count=20)
            one.send((FAR[4], own), 20)
            return len(one.numbers()), len(other.numbers()), len(far.ask("numbers", name="u"))

        with striking("network.partition", {"direction": "egress", "remotePorts": [one.port]}, target) as struck:
            assert arrive() == (0, 20, 20)
            for parameters, expected in (
                ({"direction": "egress", "remotePorts": [other.port]}, (20, 0, 20)),
                ({"direction": "both"}, (0, 0, 0)),
                ({"direction": "ingress", "peers": [NEAR[4]]}, (20, 20, 0)),
                ({"peers": ["192.0.2.0/24"]}, (20, 20, 20)),
                ({"zoneA": [FAR[4]], "zoneB": [NEAR[4]], "across": "b-to-a"}, (20, 20, 0)),
            ):
                struck.become("network.partition", parameters, target)
                wait_for(lambda expected=expected: arrive() == expected, f"{parameters} is in force", 5)
                assert arrive() == expected, parameters
