"""Every fault with every filter on every kind of target, in each direction, by each mechanism, pair by pair.

Each cell is run and measured to do what it says (its share within what chance allows, nobody else hit, nothing left
afterwards), or refused with a reason. No cell is partial in silence.
"""

from __future__ import annotations

import math
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import OwnCgroup
from squall.injectors import Refusal
from squall.targets import ProcessIdentity, find_cgroup, find_netns, find_processes
from tests import specimens
from tests.network.pairwise import Row, pairs_of, possible_pairs, rows
from tests.network.striking import attach_by, plan_of, striking
from tests.network.wires import FAR, NEAR, Talker, talker, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.targets import Target
    from tests.kernel_world import KernelWorld
    from tests.network.striking import Struck
    from tests.network.wires import Wire

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SEED = 20
SHARE = 0.3
SENT = 300
BYSTANDERS = 40
PINGS = 100
HELD_S = 0.06
SLACK_S = 0.5
"""What a busy machine may add."""
SIGMAS = 5.0
OTHER = {4: "10.77.0.9", 6: "fd77::9"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}

FACTORS = {
    "fault": (
        "loss",
        "duplicate",
        "corrupt",
        "partition",
        "delay@line",
        "reorder@line",
        "bandwidth@line",
        "delay@netem",
        "reorder@netem",
        "bandwidth@netem",
    ),
    "attached": ("tcx", "clsact"),
    "target": ("netns", "cgroup", "process", "process-in-own-cgroup"),
    "direction": ("egress", "ingress", "both"),
    "filter": ("none", "ports", "local-ports", "remote-range", "peer", "network", "zones"),
    "protocol": ("any", "udp", "tcp", "icmp"),
    "traffic": ("udp", "icmp"),
    "family": ("4", "6"),
    "path": ("cable", "loopback"),
}


def possible(row: Row) -> bool:
    """Leaves out what is not a question: zones are a partition's, ports are not ICMP's, a filter that lets all pass."""
    if row["filter"] == "zones" and row["fault"] != "partition":
        return False
    if row["protocol"] not in ("any", row["traffic"]) and not (row["protocol"] == "tcp" and row["traffic"] == "udp"):
        return False
    if row["fault"].startswith(("reorder", "bandwidth")) and row["traffic"] == "icmp":
        return False
    return not (
        "icmp" in (row["traffic"], row["protocol"]) and row["filter"] in ("ports", "local-ports", "remote-range")
    )


CELLS = rows(FACTORS, possible, SEED)


def test_the_cells_have_every_pair_that_can_be() -> None:
    assert {pair for cell in CELLS for pair in pairs_of(cell)} == possible_pairs(FACTORS, possible)


@dataclass
class Scene:
    """Where a cell happens: who is hit, who is not, and at the other end."""

    cable: Wire
    hit: Talker
    other: Talker
    peer: Talker
    target: Target
    row: Row

    @property
    def fault(self) -> str:
        return self.row["fault"].partition("@")[0]

    @property
    def mechanism(self) -> str:
        return self.row["fault"].partition("@")[2] or "tc"

    @property
    def family(self) -> int:
        return int(self.row["family"])

    @property
    def here(self) -> str:
        return LOOPBACK[self.family] if self.row["path"] == "loopback" else FAR[self.family]

    @property
    def there(self) -> str:
        return LOOPBACK[self.family] if self.row["path"] == "loopback" else NEAR[self.family]


@pytest.fixture
def scene(request: pytest.FixtureRequest, kernel_world: KernelWorld) -> Iterator[Scene]:
    row: Row = request.param
    group = kernel_world.subgroup("target")
    with ExitStack() as exits:
        cable = exits.enter_context(wire())
        _know_each_other(cable)
        hit = exits.enter_context(talker(cable.name, group))
        other = exits.enter_context(talker(cable.name))
        peer = exits.enter_context(talker(cable.name if row["path"] == "loopback" else ""))
        if row["target"] == "process-in-own-cgroup":
            own = OwnCgroup(ProcessIdentity.of(hit.pid), "talker", f"cell.{hit.pid}").prepare()
            own.do()
            exits.callback(own.undo)
        target: Target = (
            find_netns(cable.name) if row["target"] == "netns"
            else find_cgroup(str(group)) if row["target"] == "cgroup"
            else find_processes(pid=hit.pid)[0]
        )  # fmt: skip
        yield Scene(cable, hit, other, peer, target, row)


def _know_each_other(cable: Wire) -> None:
    """A second address at the near end, and neighbours that need not be asked for."""
    for family, address in OTHER.items():
        prefix = f"{address}/{24 if family == 4 else 64}"
        subprocess.run(["ip", "addr", "add", prefix, "dev", "near", *(["nodad"] if family == 6 else [])], check=True)
    near = _hardware("near", "")
    far = _hardware("far", cable.name)
    for address in (*NEAR.values(), *OTHER.values()):
        cable.ip("neigh", "replace", address, "lladdr", near, "dev", "far", "nud", "permanent")
    for address in FAR.values():
        subprocess.run(
            ["ip", "neigh", "replace", address, "lladdr", far, "dev", "near", "nud", "permanent"], check=True
        )


def _hardware(device: str, netns: str) -> str:
    words = subprocess.run(
        ["ip", *(["-n", netns] if netns else []), "-o", "link", "show", device],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return words[words.index("link/ether") + 1]


def _parameters(scene: Scene, here: int, there: int) -> dict[str, Any]:
    """The fault's, with a filter that means the traffic between these two ports of the target and its peer."""
    row = scene.row
    asked: dict[str, Any] = {"direction": row["direction"], "protocol": row["protocol"]}
    asked |= {
        "partition": {}, "delay": {"latency": "60ms"}, "reorder": {"percent": "50%", "latency": "60ms"},
        "bandwidth": {"rate": "400kbit"},
    }.get(scene.fault, {"percent": f"{SHARE:.0%}"})  # fmt: skip
    width = 32 if scene.family == 4 else 128
    filters: dict[str, dict[str, Any]] = {
        "none": {}, "ports": {"ports": [1, there]}, "local-ports": {"localPorts": [here]},
        "remote-range": {"remotePorts": [f"{there}-{there}", "1-2"]}, "peer": {"peers": [scene.there]},
        "network": {"peers": [f"{scene.there}/{width}", "192.0.2.0/24"]},
        "zones": {"zoneA": [scene.here], "zoneB": [scene.there]},
    }  # fmt: skip
    if row["filter"] == "zones" and scene.here == scene.there:
        filters["zones"] = {"zoneA": [scene.here], "zoneB": ["192.0.2.0/24"]}
    return asked | filters[row["filter"]]


def _meetings(scene: Scene) -> tuple[int, int]:
    """How often a datagram meets the fault, of those that the target sends and of those that it gets."""
    row = scene.row
    if row["protocol"] not in ("any", row["traffic"]) or (row["filter"] == "zones" and scene.here == scene.there):
        return 0, 0
    out, into = int(row["direction"] in ("egress", "both")), int(row["direction"] in ("ingress", "both"))
    if row["target"] == "netns" and row["path"] == "loopback" and row["filter"] not in ("local-ports", "remote-range"):
        return out + into, out + into
    return out, into  # with these filters the target's port is the remote one half the time


def _chances(scene: Scene) -> tuple[float, float]:
    """How likely a datagram is hit at least once, on its way out and on its way in."""
    once = 1.0 if scene.fault == "partition" else SHARE
    out, into = _meetings(scene)
    return 1 - (1 - once) ** out, 1 - (1 - once) ** into


def _within(hits: float, of: int, chance: float) -> bool:
    spread = SIGMAS * math.sqrt(max(chance * (1 - chance), 0.0) / of)
    return abs(hits / of - chance) <= spread + 1e-9


@pytest.mark.parametrize("scene", CELLS, indirect=True, ids=lambda row: "-".join(row.values()))
def test_a_cell_does_what_it_says_or_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    row = scene.row
    attach_by(monkeypatch, row["attached"])
    here, there = (
        scene.hit.ask("udp", name="u", address=scene.here),
        scene.peer.ask("udp", name="u", address=scene.there),
    )
    parameters, tag = _parameters(scene, here, there), f"network.{scene.fault}"
    answer = plan_of(tag, parameters, scene.target, scene.mechanism)
    unknowable = row["protocol"] == "icmp" and row["target"] != "netns" and row["direction"] != "egress"
    if isinstance(answer, Refusal):
        assert answer.reason
        assert unknowable or scene.mechanism == "netem", answer.reason
        assert not unknowable or "belongs to no socket" in answer.reason or scene.mechanism == "netem"
        return
    assert not unknowable
    with striking(tag, parameters, scene.target, scene.mechanism) as struck:
        _bystanders_pass(scene)
        if scene.mechanism != "tc":
            _held(scene, here, there)
        elif row["traffic"] == "udp":
            _datagrams(scene, here, there, struck)
        else:
            _pings(scene, struck)
    _all_pass(scene, here, there)


def _held(scene: Scene, here: int, there: int) -> None:
    """Late, out of order or slow where it is meant; at once, in order, where it is not."""
    if scene.row["traffic"] == "icmp":
        out, into = _meetings(scene)
        began = time.monotonic()
        assert scene.hit.ask("ping", to=scene.there, count=3, timeout=2) == 3
        held = out + (into if scene.row["target"] == "netns" else 0)  # what comes in belongs to no socket
        assert HELD_S * held * 0.97 <= time.monotonic() - began < HELD_S * held + SLACK_S
        return
    ways = [(scene.hit, scene.peer, [scene.there, there]), (scene.peer, scene.hit, [scene.here, here])]
    for (sender, receiver, to), meetings in zip(ways, _meetings(scene), strict=True):
        began, came = time.monotonic(), list[int]()
        sender.ask("send", name="u", to=to, count=BYSTANDERS, size=970)
        while len(came) < BYSTANDERS and time.monotonic() - began < 10:
            came += receiver.ask("numbers", name="u")
        took = time.monotonic() - began
        assert sorted(came) == list(range(BYSTANDERS))
        assert (came != sorted(came)) == (meetings > 0 and scene.fault == "reorder"), came
        least = {"delay": HELD_S * meetings, "reorder": HELD_S, "bandwidth": BYSTANDERS * 970 / 50_000 * 0.7}[
            scene.fault
        ]
        assert least * bool(meetings) * 0.97 <= took < least * bool(meetings) * 2 + SLACK_S, (took, least, meetings)


def _datagrams(scene: Scene, here: int, there: int, struck: Struck) -> None:
    ways = [
        (scene.hit, scene.peer, [scene.there, there]),
        (scene.peer, scene.hit, [scene.here, here]),
    ]
    for (sender, receiver, to), chance in zip(ways, _chances(scene), strict=True):
        sender.ask("send", name="u", to=to, count=SENT)
        came = receiver.ask("numbers", name="u")
        if scene.fault == "duplicate":
            twice = len(came) - len(set(came))
            if chance > SHARE + 0.01:
                chance = (1 + SHARE) ** 2 - 1  # noqa: PLW2901 - copies of copies
            assert len(set(came)) == SENT
            bound = SIGMAS * math.sqrt(0.5 / SENT) if chance else 0.0
            assert abs(twice / SENT - chance) <= bound, (twice, chance, struck.counts())
        else:
            assert len(came) == len(set(came))
            assert _within(SENT - len(came), SENT, chance), (SENT - len(came), chance, struck.counts())


def _pings(scene: Scene, struck: Struck) -> None:
    """Each needs its way there and its way back."""
    row = scene.row
    out, into = _chances(scene)
    if row["target"] != "netns":
        into = 0.0  # what comes in belongs to no socket: the plan says so
    if scene.fault == "duplicate":
        assert scene.hit.ask("ping", to=scene.there, count=PINGS) == PINGS
        if out + into:
            specimens.wait_for(lambda: struck.counts().get("duplicated"), "the counts are told")
        counts = struck.counts()
        drawn = counts.get("duplicated", 0) + counts["missed"]
        assert (drawn > 0) == (out + into > 0), counts
        if drawn:
            assert abs(counts["duplicated"] / drawn - SHARE) < SIGMAS * math.sqrt(SHARE * (1 - SHARE) / drawn), counts
        return
    answered = scene.hit.ask("ping", to=scene.there, count=PINGS)
    chance = 1 - (1 - out) * (1 - into)
    assert _within(PINGS - answered, PINGS, chance), (answered, chance, struck.counts())


def _bystanders_pass(scene: Scene) -> None:
    """Another process's datagrams, and the target's own that the filter does not mean."""
    row, loopback = scene.row, scene.row["path"] == "loopback"
    quiet = scene.peer.ask("udp", name="quiet", address=scene.there)
    if row["target"] != "netns":
        _passes(scene.other, scene.peer, scene.there, quiet)
    if row["protocol"] in ("tcp", "icmp") or row["filter"] in ("ports", "remote-range", "local-ports"):
        _passes(scene.hit, scene.peer, scene.there, quiet)
    if row["filter"] in ("peer", "network", "zones") and not loopback:
        apart = scene.peer.ask("udp", name="apart", address=OTHER[scene.family])
        _passes(scene.hit, scene.peer, OTHER[scene.family], apart, "apart")
    scene.peer.ask("close", name="quiet")


def _passes(sender: Talker, peer: Talker, address: str, port: int, name: str = "quiet") -> None:
    source = "::" if ":" in address else "0.0.0.0"
    sender.ask("udp", name="by", address=source)
    sender.ask("send", name="by", to=[address, port], count=BYSTANDERS)
    assert peer.ask("numbers", name=name) == list(range(BYSTANDERS))
    sender.ask("close", name="by")


def _all_pass(scene: Scene, here: int, there: int) -> None:
    scene.hit.ask("numbers", name="u"), scene.peer.ask("numbers", name="u")
    scene.hit.ask("send", name="u", to=[scene.there, there], count=BYSTANDERS)
    assert scene.peer.ask("numbers", name="u") == list(range(BYSTANDERS))
    scene.peer.ask("send", name="u", to=[scene.here, here], count=BYSTANDERS)
    assert scene.hit.ask("numbers", name="u") == list(range(BYSTANDERS))
    assert scene.hit.ask("ping", to=scene.there, count=5) == 5
