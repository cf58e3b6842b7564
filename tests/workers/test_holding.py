"""A worker that holds programs: its counts are read from outside, its lease is renewed, a lapse is said, its end is theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import KernelWorker
from squall.actions.worker import surviving
from squall.kernel import proc
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
LOOP = Path(__file__).resolve().parents[1] / "programs" / "loop.py"


@contextmanager
def held() -> Iterator[tuple[KernelWorker, int, int]]:
    """A step that watches a loop's runtime, done: the step, its life line, its worker's pid."""
    with subprocess.Popen([sys.executable, LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == b"ready\n"
        stat = proc.read_stat(loop.pid)
        assert stat is not None
        config: dict[str, Any] = {
            "pid": loop.pid, "start_ticks": stat.start_ticks, "name": "loop", "long_wait_ns": 1, "late_timer_ns": 1,
        }  # fmt: skip
        action = KernelWorker(f"test-{os.getpid()}/1", "squall.workers.runtime", "watch a loop", config)
        [life_line] = action.do()
        [worker] = surviving(action.token)
        try:
            yield action, life_line, worker.pid
        finally:
            os.close(life_line)
            action.undo()
            assert action.verify().normal
            loop.kill()


def uprobes(pid: int) -> int:
    """How many uprobes a process holds."""
    found = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(one.readlink()) == "anon_inode:[perf_event]"
        except OSError:
            continue
    return found


def test_a_question_on_the_life_line_is_answered_in_the_counts() -> None:
    with held() as (action, life_line, worker):
        assert uprobes(worker) >= 2
        os.write(life_line, json.dumps({"take": 5}).encode() + b"\n")
        wait_for(lambda: action.counters().get("taken") == 5, "the worker has answered")
        assert action.in_force()
        assert "lapses" not in action.counters()


def test_a_worker_that_stands_still_loses_its_lease_and_says_so_ever_after() -> None:
    with held() as (action, _, worker):
        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda: proc.read_stat(worker).stopped, "it stands still")  # type: ignore[union-attr]  # it lives
        assert action.in_force(), "its lease still runs, as far as anybody can tell"
        stopped = time.monotonic()
        wait_for(lambda: time.monotonic() > stopped + 1.2, "its lease is over")
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: not action.in_force(), "the lapse is noticed")


def test_a_worker_that_is_killed_leaves_nothing() -> None:
    with held() as (action, _, worker):
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not surviving(action.token), "it is gone")
        assert action.counters() == {}
        assert not action.in_force()


def test_the_end_of_the_pipe_ends_it() -> None:
    with held() as (action, life_line, _):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, life_line)  # the pipe's last writing end is closed
        os.close(null)
        wait_for(lambda: not surviving(action.token), "it has ended by itself")
