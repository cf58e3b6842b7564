"""Workers say when they are ready or why not, and nothing of them stays, however they or their owner end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import Worker
from squall.actions.worker import spawn, surviving
from squall.errors import ActionFailed
from squall.kernel import proc
from squall.workers.lifeline import HELD_BACK
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Working = Callable[..., AbstractContextManager[tuple[Worker, int]]]

CONFIGS: dict[str, dict[str, object]] = {
    "cpu": {"load": 1.0, "workers": 2},
    "memory": {"amount_bytes": 8 << 20, "spare_bytes": 0},
    "disk": {"path": "/var/tmp", "spare_bytes": 0, "fill_bytes": 4 << 20, "write_bytes_per_s": 1 << 20},  # noqa: S108 - a real disk's folder
}
OWNER = """
import json, os, signal, sys
from squall.actions import Worker
worker = Worker(sys.argv[1], "squall.workers." + sys.argv[2], "test", json.loads(sys.argv[3]))
held = worker.do()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("module", CONFIGS)
def test_it_ends_with_its_owners_pipe(token: str, module: str) -> None:
    worker = Worker(token, f"squall.workers.{module}", "test", CONFIGS[module])
    (life_line,) = worker.do()
    assert worker.in_force()
    assert worker.counters()["workers"] == (3 if module == "cpu" else 1)
    os.close(life_line)
    specimens.wait_for(lambda: not surviving(token), "it has ended", seconds=1)
    worker.undo()
    assert worker.verify().normal
    assert not worker.in_force()
    assert worker.counters()["workers"] == 0


@pytest.mark.parametrize("module", CONFIGS)
def test_it_ends_when_its_owner_is_killed(token: str, module: str) -> None:
    import json

    ran = specimens.elsewhere(OWNER, token, module, json.dumps(CONFIGS[module]))
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    specimens.wait_for(lambda: not surviving(token), "it has ended", seconds=1)


@pytest.mark.parametrize("module", CONFIGS)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_nothing_is_left_of_one_that_was_killed(token: str, module: str, name: str) -> None:
    worker = Worker(token, f"squall.workers.{module}", "test", CONFIGS[module])
    (life_line,) = worker.do()
    (parent,) = (stat.pid for stat in surviving(token) if stat.ppid == os.getpid())
    os.kill(parent, signal.Signals[name])
    specimens.wait_for(lambda: not surviving(token), "it and its children have ended", seconds=2)
    os.close(life_line)
    worker.undo()
    assert not Path(f"/proc/{parent}").exists()
    assert worker.verify().normal


def test_undo_is_idempotent_reaps_and_is_harmless_before_do(token: str) -> None:
    worker = Worker(token, "squall.workers.cpu", "test", CONFIGS["cpu"])
    worker.undo()
    assert worker.verify().normal
    (life_line,) = worker.do()
    pids = [stat.pid for stat in surviving(token)]
    assert not worker.verify().normal
    worker.undo()
    worker.undo()
    os.close(life_line)
    assert worker.verify() == worker.verify()
    assert worker.verify().normal
    assert not any((stat := proc.read_stat(pid)) and stat.ppid == os.getpid() for pid in pids)


def test_a_worker_of_another_run_is_left_alone(token: str) -> None:
    worker = Worker(token, "squall.workers.memory", "test", CONFIGS["memory"])
    (life_line,) = worker.do()
    Worker(token + "0", worker.module, "another", worker.config).undo()
    assert worker.in_force()
    os.close(life_line)
    worker.undo()


def test_what_it_cannot_do_is_the_error(token: str) -> None:
    for config, said in (
        (
            {"load": 0.5, "cgroups": ["/sys/fs/cgroup/squall-never-made"]},
            "cannot be joined .No such file or directory.: it is gone",
        ),
        ({"load": 0.5, "speed": 3}, "unexpected keyword argument 'speed'"),
    ):
        with pytest.raises(ActionFailed, match=said):
            Worker(token, "squall.workers.cpu", "test", config).do()
        assert not surviving(token)


def test_a_module_that_cannot_start_is_an_error(token: str) -> None:
    with pytest.raises(ActionFailed, match=r"the worker squall\.workers\.none ended before it was ready"):
        spawn("squall.workers.none", token, ["{}"])
    assert not surviving(token)


def test_it_is_known_by_name_and_mark_and_goes_first(working: Working, token: str) -> None:
    with working("memory", **CONFIGS["memory"]):
        (stat,) = surviving(token)
        assert stat.comm == "squall-memory"
        assert proc.environment_value(stat.pid, "SQUALL_RUN") == token.partition("/")[0]
        assert Path(f"/proc/{stat.pid}/oom_score_adj").read_text().strip() == "1000"
        assert os.getsid(stat.pid) == stat.pid
    assert len(HELD_BACK) <= 15


def test_a_new_configuration_needs_the_same_module_and_a_life_line(working: Working, token: str) -> None:
    with working("memory", **CONFIGS["memory"]) as (worker, life_line):
        other = Worker(token, "squall.workers.cpu", "test", CONFIGS["cpu"])
        assert not worker.become(other, (life_line,))
        assert not worker.become(worker, ())
        (stat,) = surviving(token)
        os.kill(stat.pid, signal.SIGKILL)
        specimens.wait_for(lambda: (now := proc.read_stat(stat.pid)) is None or now.gone, "it has ended")
        assert not worker.become(worker, (life_line,))


def test_one_that_stands_by_is_the_one_that_works(token: str) -> None:
    worker = Worker(token, "squall.workers.cpu", "test", {"load": 0.1, "workers": 1})
    worker.stand_by()
    worker.stand_by()
    specimens.wait_for(lambda: surviving(token), "it stands by")
    [ready] = surviving(token)
    (life_line,) = worker.do()
    try:
        assert ready.pid in {stat.pid for stat in surviving(token)}
        worker.dismiss()
        assert worker.in_force(), "what works is not dismissed"
    finally:
        os.close(life_line)
        worker.undo()
    assert worker.verify().normal


def test_one_that_stood_by_and_died_is_started_anew(token: str) -> None:
    worker = Worker(token, "squall.workers.cpu", "test", {"load": 0.1, "workers": 1})
    worker.stand_by()
    specimens.wait_for(lambda: surviving(token), "it stands by")
    [ready] = surviving(token)
    os.kill(ready.pid, signal.SIGKILL)
    specimens.wait_for(lambda: not surviving(token), "it is gone")
    (life_line,) = worker.do()
    try:
        assert worker.in_force()
    finally:
        os.close(life_line)
        worker.undo()


def test_one_that_is_dismissed_leaves_nothing_and_neither_does_one_whose_owner_dies(token: str) -> None:
    worker = Worker(token, "squall.workers.cpu", "test", {"load": 0.1, "workers": 1})
    worker.stand_by()
    worker.dismiss()
    worker.dismiss()
    assert worker.verify().normal
    ran = specimens.elsewhere(OWNER.replace("held = worker.do()", "worker.stand_by()"), token, "cpu", "{}")
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    specimens.wait_for(lambda: not surviving(token), "it has ended")
