"""A duty cycle makes a process slow, keeps its time, and always ends with the process running."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import PauseCycle
from squall.actions.worker import surviving
from squall.errors import ActionFailed, TargetError
from squall.targets import ProcessIdentity
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from squall.actions import Action

    Doing = Callable[[Action], AbstractContextManager[tuple[Action, tuple[int, ...]]]]

MS = 1_000_000

COUNTS_ITS_WAKING = """
import os, signal, sys, time
stops = 0
def woken(*_):
    global stops
    stops += 1
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic_ns()}\\n")
signal.signal(signal.SIGCONT, woken)
print("ready", flush=True)
while True:
    signal.pause()
"""


def share_of_time_stopped(specimen: specimens.Specimen, seconds: float) -> float:
    """How often the process is seen standing still when one looks at random."""
    looks = stopped = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        looks += 1
        stopped += specimen.state == "T"
        time.sleep(0.0013)
    return stopped / looks


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_it_stands_still_for_its_share_of_the_time(
    beater: specimens.Beater, token: str, doing: Doing, share: float
) -> None:
    cycle = PauseCycle(token, beater.identity, "beater", int(share * 40 * MS), 40 * MS)
    with doing(cycle):
        assert share_of_time_stopped(beater, 1.5) == pytest.approx(share, abs=0.15)
    assert beater.moves()


@pytest.mark.slow
def test_its_times_do_not_drift(tmp_path: Path, token: str, doing: Doing) -> None:
    """The process wakes at whole periods from the first waking, however many have passed."""
    log = tmp_path / "woken"
    log.touch()
    with specimens.python(COUNTS_ITS_WAKING, str(log)) as specimen:
        with doing(PauseCycle(token, specimen.identity, "it", 5 * MS, 20 * MS)):
            specimens.wait_for(lambda: len(log.read_text().splitlines()) > 60, "it was woken 60 times")
        times = [int(line) for line in log.read_text().splitlines()]
    off = [(when - times[0] + 10 * MS) % (20 * MS) - 10 * MS for when in times[:60]]
    assert abs(sorted(off)[len(off) // 2]) < 5 * MS


def test_it_counts_its_stops(tmp_path: Path, token: str, doing: Doing) -> None:
    """It never says more than the process has felt, and at most one less."""
    log = tmp_path / "woken"
    log.touch()
    with specimens.python(COUNTS_ITS_WAKING, str(log)) as specimen:
        with doing(PauseCycle(token, specimen.identity, "it", 2 * MS, 20 * MS)) as (action, _):
            assert isinstance(action, PauseCycle)
            specimens.wait_for(lambda: action.counters()["stops"] >= 10, "it says that it has stopped it ten times")
            assert len(log.read_text().splitlines()) >= 9
        assert action.counters() == {"stops": 0}


def test_it_takes_a_new_duty_cycle_without_a_gap(beater: specimens.Beater, token: str, doing: Doing) -> None:
    cycle = PauseCycle(token, beater.identity, "beater", 1 * MS, 3_600_000 * MS)
    with doing(cycle) as (action, held):
        assert isinstance(action, PauseCycle)
        assert beater.moves()
        worker = surviving(token)
        assert action.become(replace(cycle, stopped_ns=3_500_000 * MS), held)
        specimens.wait_for(lambda: beater.state == "T", "it is stopped")
        assert action.become(cycle, held)
        specimens.wait_for(lambda: beater.state != "T", "it goes on")
        assert [stat.pid for stat in surviving(token)] == [stat.pid for stat in worker]
        assert not action.become(replace(cycle), ())


@pytest.mark.parametrize("end", ["close", "SIGTERM", "SIGHUP"])
def test_the_worker_lets_go_when_its_owner_ends(beater: specimens.Beater, token: str, end: str) -> None:
    cycle = PauseCycle(token, beater.identity, "beater", 3_500_000 * MS, 3_600_000 * MS).prepare()
    (life_line,) = cycle.do()
    specimens.wait_for(lambda: beater.state == "T", "it is stopped")
    assert cycle.in_force()
    if end == "close":
        os.close(life_line)
    else:
        os.kill(surviving(token)[0].pid, signal.Signals[end])
    specimens.wait_for(lambda: beater.state != "T", "it goes on", seconds=2)
    assert beater.moves()
    specimens.wait_for(lambda: not cycle.in_force(), "the worker has ended", seconds=2)
    if end != "close":
        os.close(life_line)
    cycle.undo()
    assert cycle.verify().normal


def test_a_worker_that_was_killed_while_it_stopped_is_undone(beater: specimens.Beater, token: str) -> None:
    cycle = PauseCycle(token, beater.identity, "beater", 3_500_000 * MS, 3_600_000 * MS).prepare()
    (life_line,) = cycle.do()
    specimens.wait_for(lambda: beater.state == "T", "it is stopped")
    os.kill(surviving(token)[0].pid, signal.SIGKILL)
    specimens.wait_for(lambda: not cycle.in_force(), "the worker has ended")
    os.close(life_line)
    assert beater.state == "T"
    assert not cycle.verify().normal
    cycle.undo()
    cycle.undo()
    assert cycle.verify().normal
    assert beater.moves()


def test_it_goes_on_when_the_target_has_ended(beater: specimens.Beater, token: str, doing: Doing) -> None:
    with doing(PauseCycle(token, beater.identity, "beater", 5 * MS, 10 * MS)) as (action, _):
        assert isinstance(action, PauseCycle)
        beater.popen.kill()
        beater.popen.wait()
        time.sleep(0.05)
        assert action.in_force()


def test_a_successor_is_never_stopped(beater: specimens.Beater, token: str) -> None:
    other = replace(beater.identity, start_ticks=beater.identity.start_ticks - 100)
    with pytest.raises(TargetError):
        PauseCycle(token, other, "beater", 5 * MS, 10 * MS).prepare()
    with pytest.raises(ActionFailed, match=r"beater \(pid \d+\) has ended"):
        PauseCycle(token, other, "beater", 5 * MS, 10 * MS).do()
    assert beater.moves()


def test_undo_before_do_changes_nothing(beater: specimens.Beater, token: str) -> None:
    cycle = PauseCycle(token, beater.identity, "beater", 5 * MS, 10 * MS)
    cycle.undo()
    assert cycle.verify().normal
    assert not cycle.in_force()
    assert cycle.describe() == f"stop beater (pid {beater.pid}) for 50% of every 10 ms"
    assert ProcessIdentity.of(beater.pid) == beater.identity
