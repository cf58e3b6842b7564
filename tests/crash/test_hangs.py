"""What neither lives nor dies: workers that are killed in mid-run, a guardian that is stopped."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from squall.kernel import proc
from squall.recovery import Executor, Guard, Journal, guard
from tests.crash.scenarios import SCENARIOS, Place

if TYPE_CHECKING:
    from tests.crash.conftest import Crew
    from tests.crash.world import World

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@pytest.mark.parametrize("scenario", ["pause-cycle", "worker-cpu", "worker-memory", "worker-disk", "toxic-tcp"])
def test_a_lease_that_lapses_makes_the_run_inconclusive(crew: Crew, scenario: str) -> None:
    points = crew.points(scenario)
    done = max(number for number, name in enumerate(points, 1) if name.startswith("after") and name.endswith(".do"))
    world = crew.worlds[0]
    place = Place(world.target.pid, world.name, world.pulse()[2], world.listen, str(world.folder / "fill"))
    spec = SCENARIOS[scenario].document(place)
    spec["duration"] = spec["faults"][0]["duration"] = "8s"
    began = time.monotonic()
    ended = world.run(scenario, death="workers", at=done, spec=spec)
    assert time.monotonic() - began < 7, "it is noticed while the fault should be on"
    assert ended.status == 106, ended.log
    assert "no longer in force" in ended.log
    world.expect_normal(ended)


def test_the_engine_notices_a_guardian_that_stands_still(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SILENCE_S", 0.3)
    run = world.state.new_run("hangs")
    world.state.mark_open(run)
    journal = Journal.create(run.journal, run.id, "hangs")
    one = Guard.start(world.state, run, journal)
    try:
        for _ in range(20):  # it answers: all is well, however long
            one.beat(60)
            time.sleep(0.03)
            assert not one.lost()
        os.kill(one.identity.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not one.lost():
            assert time.monotonic() < deadline, "nobody noticed"
            one.beat(60)
            time.sleep(0.02)
    finally:
        os.kill(one.identity.pid, signal.SIGCONT)
        Executor(world.state, run, journal).close()
        one.farewell()
    assert proc.read_stat(one.identity.pid) is None
