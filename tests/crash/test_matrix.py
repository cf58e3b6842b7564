"""Every action x every point where the journal or the machine changes x every way to die.

`make crash` runs all of it (SQUALL_CRASH=all); otherwise a spread sample, the same one each time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from squall.actions import ACTIONS
from tests.crash.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.crash.conftest import Crew
    from tests.crash.world import Ended, World

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ALL = os.environ.get("SQUALL_CRASH") == "all"
EVERYWHERE = ("engine", "guardian", "both", "engine-stopped")
"""The ways to die that `make crash` tries at every point."""
SOMEWHERE = {
    "engine-term": 12, "engine-segv": 12, "engine-hup": 6, "engine-int": 6, "engine-quit": 6, "guardian-term": 12,
    "both-term": 12, "group": 12, "session": 12, "guardian-stopped": 3, "engine-while-guardian-stopped": 6, "workers": 12,
}  # fmt: skip
"""Others, and at how many points of each scenario `make crash` tries them."""
BOTH = {"both", "engine-while-guardian-stopped"}
"""Where nobody is left: the next command recovers."""
SAMPLE = 2
"""Points for each scenario and way to die when not all are run."""
ORDERLY = {
    "engine-term",
    "engine-hup",
    "engine-int",
    "engine-quit",
    "guardian",
    "guardian-term",
    "guardian-stopped",
    "workers",
}
"""Deaths that an engine survives long enough to conclude its run itself."""


def spread(count: int, wanted: int, shift: float) -> list[int]:
    """So many of the points 1..count, evenly, beginning somewhere else for each shift (0 to below 1)."""
    wanted = min(wanted, count)
    return sorted({min(count, 1 + int((number + shift) * count / wanted)) for number in range(wanted)})


def cells(points: int, deaths: tuple[str, ...], scenario: str) -> list[tuple[str, int]]:
    found = []
    for number, death in enumerate(deaths):
        wanted = points if ALL and death in EVERYWHERE else SOMEWHERE.get(death, SAMPLE) if ALL else SAMPLE
        if not ALL and death in SOMEWHERE:
            slow = death == "guardian-stopped" and list(SCENARIOS).index(scenario) % 5
            wanted = 0 if slow else 1  # its engine waits some seconds for it: not for every scenario
        shift = (number * 0.37 + list(SCENARIOS).index(scenario) * 0.61) % 1
        found += [(death, at) for at in spread(points, wanted, shift if wanted < points else 0)]
    return found


def check(world: World, scenario: str, death: str, ended: Ended, **how: bool) -> None:
    try:
        world.expect_normal(ended, recover=death in BOTH, **how)
        assert ended.status != 105, "residue"
        assert "Traceback" not in ended.log, "a crash of Squall's own"
        if death in ORDERLY and ended.point:
            assert ended.status >= 100 or _told_before_it_listened(ended), f"the engine ended with {ended.status}"
    except AssertionError as error:
        raise AssertionError(
            f"{scenario}: {death} {ended.point} (status {ended.status}): {error}\n{ended.log}"
        ) from error


def _told_before_it_listened(ended: Ended) -> bool:
    """A signal before the run has begun, or after it has ended, ends the process as it does any other."""
    return ended.status in (-15, -1, -2, -3)


@pytest.mark.parametrize("deaths", [EVERYWHERE, tuple(SOMEWHERE)], ids=["everywhere", "somewhere"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_machine_is_back_to_normal(crew: Crew, scenario: str, deaths: tuple[str, ...]) -> None:
    if missing := SCENARIOS[scenario].missing():
        pytest.skip(missing)
    points = crew.points(scenario)
    assert len(points) > 30

    def cell(world: World, which: tuple[str, int]) -> None:
        death, at = which
        check(world, scenario, death, world.run(scenario, death=death, at=at))

    crew.each(cells(len(points), deaths, scenario), cell)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_guardian_dies_while_it_undoes(crew: Crew, scenario: str) -> None:
    if missing := SCENARIOS[scenario].missing():
        pytest.skip(missing)
    points = crew.points(scenario)
    done = max(number for number, name in enumerate(points, 1) if name.startswith("after") and name.endswith(".do")) + 3

    def cell(world: World, guardian_at: int) -> None:
        ended = world.run(scenario, death="engine", at=done, guardian_at=guardian_at)
        check(world, scenario, "both", ended)

    crew.each(range(1, 25) if ALL else (2, 7), cell)


def test_every_action_is_in_the_matrix(crew: Crew) -> None:
    ours = {kind for kind, action in ACTIONS.items() if action.__module__.startswith("squall.")}
    taken = {kind for scenario in SCENARIOS.values() for kind in scenario.kinds}
    assert taken == ours
    for name, scenario in SCENARIOS.items():
        if not scenario.missing():
            done = {
                point.removeprefix("after ").removesuffix(".do") for point in crew.points(name) if point.endswith(".do")
            }
            assert {kind for kind in done if not kind.startswith("before")} == scenario.kinds, name


def test_what_a_service_stop_takes_leaves_the_guardian(crew: Crew) -> None:
    if missing := SCENARIOS["guardian-cgroup"].missing():
        pytest.skip(missing)
    points = crew.points("guardian-cgroup")
    moved = points.index("after guardian-cgroup.do") + 1
    undone = points.index("before guardian-cgroup.undo") + 1
    inside = range(moved, undone + 1)

    def cell(world: World, at: int) -> None:
        check(world, "guardian-cgroup", "cgroup", world.run("guardian-cgroup", death="cgroup", at=at))

    crew.each(inside if ALL else [inside[len(inside) * n // 4] for n in range(4)], cell)
