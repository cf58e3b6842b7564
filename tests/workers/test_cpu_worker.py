"""CPU is burnt to the asked share, in the target's cgroup, at the same priority."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from squall.actions import Worker

    Working = Callable[..., AbstractContextManager[tuple[Worker, int]]]


def burnt(pid: int) -> tuple[float, float]:
    """CPU seconds of a process by the scheduler's own count (ns), and how long it waited for a core."""
    run, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(run) / 1e9, int(waited) / 1e9


@dataclass(frozen=True)
class Measured:
    """Shares of one core over a measurement."""

    burnt: float
    waited: float
    """Ready to run, while others had every core."""

    def held(self, load: float, within: float = 0.05) -> bool:
        """Whether the load was held, or else all that is missing was spent waiting for a core."""
        return self.burnt <= load + within and self.burnt + self.waited >= load - within


def measure(token: str, seconds: float) -> list[Measured]:
    """What each process that burns took of a core."""
    workers = [stat.pid for stat in surviving(token) if stat.ppid != os.getpid()]
    before, began = [burnt(pid) for pid in workers], time.monotonic()
    time.sleep(seconds)  # the length of the measurement
    took = time.monotonic() - began
    after = [burnt(pid) for pid in workers]
    return [
        Measured((now[0] - then[0]) / took, (now[1] - then[1]) / took) for now, then in zip(after, before, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_the_share_is_held_within_five_points(working: Working, token: str, load: float) -> None:
    with working("cpu", load=load):
        (measured,) = measure(token, 2.0)
    assert measured.held(load), measured


@pytest.mark.slow
def test_each_worker_burns_its_own_share_and_takes_a_new_one(working: Working, token: str) -> None:
    with working("cpu", load=0.2, workers=3) as (worker, life_line):
        parts = measure(token, 2.0)
        assert len(parts) == 3
        assert all(part.held(0.2) for part in parts), parts
        pids = {stat.pid for stat in surviving(token)}
        assert worker.become(replace(worker, config={"load": 0.05, "workers": 1}), (life_line,))
        specimens.wait_for(lambda: len(surviving(token)) == 2, "two of three have ended")
        assert {stat.pid for stat in surviving(token)} < pids
        (measured,) = measure(token, 2.0)
        assert measured.held(0.05), measured
        assert worker.become(replace(worker, config={"load": 0.05, "workers": 2}), (life_line,))
        specimens.wait_for(lambda: len(surviving(token)) == 3, "another has begun")


def test_it_works_in_the_targets_cgroup_at_the_same_priority(working: Working, token: str) -> None:
    with specimens.own_cgroup("cpu") as cpu, specimens.own_cgroup("memory") as memory:
        with working("cpu", load=0.05, workers=2, cgroups=[str(cpu), str(memory)]):
            workers = {stat.pid for stat in surviving(token) if stat.ppid != os.getpid()}
            for folder in (cpu, memory) if cpu.parent != memory.parent else (memory,):
                assert {int(pid) for pid in (folder / "cgroup.procs").read_text().split()} == workers
            assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in workers} == {os.getpriority(os.PRIO_PROCESS, 0)}
        assert (memory / "cgroup.procs").read_text() == ""


@pytest.mark.slow
def test_a_quota_bounds_it_and_does_not_delay_its_end(working: Working, token: str) -> None:
    with specimens.own_cgroup("cpu") as cpu:
        specimens.limit_cpu(cpu, 0.2)
        with working("cpu", load=1.0, workers=2, cgroups=[str(cpu)]) as (_, life_line):
            assert sum(part.burnt for part in measure(token, 2.0)) <= 0.27
            end, null = os.dup(life_line), os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, life_line)
            os.close(null)
            os.close(end)
            specimens.wait_for(lambda: not surviving(token), "it has ended", seconds=1)


def test_it_lapses_when_one_of_its_processes_is_ended_by_somebody_else(working: Working, token: str) -> None:
    with working("cpu", load=0.05, workers=2) as (worker, _):
        victim = next(stat.pid for stat in surviving(token) if stat.ppid != os.getpid())
        os.kill(victim, 9)
        specimens.wait_for(lambda: not worker.in_force(), "it has lapsed")
