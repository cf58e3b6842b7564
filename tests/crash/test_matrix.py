"""Every action x every point where the journal or the machine changes x every way to die.

`make crash` runs all of it (SQUALL_CRASH=all); otherwise a spread sample, another one for each scenario.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.crash.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.crash.conftest import World

pytestmark = [pytest.mark.crash, pytest.mark.slow]

VICTIMS = ("engine", "guardian", "both", "stop")
SAMPLE = 4
"""Points for each scenario and victim when not all are run."""
ALL = os.environ.get("SQUALL_CRASH") == "all"


def spread(count: int, shift: int) -> list[int]:
    """Which of the points 1..count a cell dies at."""
    if ALL or count <= SAMPLE:
        return list(range(1, count + 1))
    step = count / SAMPLE
    return sorted({min(count, 1 + int((number + shift / 4) * step)) for number in range(SAMPLE)})


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_machine_is_back_to_normal(world: World, scenario: str, victim: str) -> None:
    points = world.points(scenario)
    world.expect_normal()
    assert len(points) > 20
    for at in spread(len(points), VICTIMS.index(victim)):
        status = world.run(world.order(scenario, victim=victim, at=at))
        where = f"{scenario}: {victim} at point {at}, {points[at - 1]} (status {status})"
        try:
            world.expect_normal(recover=victim == "both")
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_guardian_dies_while_it_undoes(world: World, scenario: str) -> None:
    points = world.points(scenario)
    done = next(number for number, name in enumerate(points, 1) if name.startswith("after") and name.endswith(".do")) + 3
    for guardian_at in range(1, 14 if ALL else 14) if ALL else (1, 4, 7, 10):
        world.run(world.order(scenario, victim="engine", at=done, guardian_at=guardian_at))
        world.expect_normal(recover=True)
