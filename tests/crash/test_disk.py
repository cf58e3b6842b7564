"""A disk that is full, read-only, or that takes no more of this process, from any point of a run on.

The run ends with a message that says so, the target is back to normal, and nothing is left but the run's files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.crash.test_matrix import ALL, spread

if TYPE_CHECKING:
    from tests.crash.world import World

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SAID = {
    "disk-full": "No space left on device",
    "disk-read-only": "Read-only file system",
    "files-no-larger": "File too large",
}
DEATHS = (*SAID, "disk-full-engine", "disk-read-only-engine")
"""The last two: the engine is killed right after, and its guardian has a disk that takes no more."""
SCENARIOS = ("pause", "file-limit", "toxic-tcp", "worker-cpu", "pulses")


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_run_ends_clearly_and_leaves_nothing(small_world: World, scenario: str, death: str) -> None:
    world = small_world
    count = len(world.points(scenario))
    for run in world.state.all_runs():
        world.forget(run)
    told = 0
    for at in spread(count, 24 if ALL else 4, 0.2 * DEATHS.index(death)):
        ended = world.run(scenario, death=death, at=at)
        where = f"{scenario}: {death} {ended.point} (status {ended.status})\n{ended.log}"
        try:
            world.expect_target_normal(ended)  # while the disk is as bad as before
        finally:
            world.tidy()
        try:
            world.expect_normal(ended, recover=True, kept=False)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        assert "Traceback" not in ended.log, where
        if death not in SAID:
            continue
        assert ended.status in (100, 101, 104, 106), where
        told += SAID[death] in ended.log
        if ended.status == 104:
            assert SAID[death] in ended.log, where
    assert told or death not in SAID, f"no run of {scenario} said {SAID[death]!r}"


def test_a_small_world_needs_root() -> None:
    """So that a run without root says what it left out."""
    if os.geteuid() != 0:
        pytest.skip("disks are filled and made read-only by root only: run the tests with sudo to see this")
