"""Memory is taken to the page, at once or like a leak, and never what the machine needs for itself."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import Worker
from squall.actions.worker import surviving
from squall.errors import ActionFailed
from squall.kernel.memory import machine_memory
from squall.workers import memory
from squall.workers.lifeline import Refused
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Working = Callable[..., AbstractContextManager[tuple[Worker, int]]]

MIB = 1 << 20
OWN_MIB_MAX = 24
"""What the worker's interpreter takes beside."""


def anonymous(token: str) -> int:
    """The resident private memory of the worker, in MiB."""
    (stat,) = surviving(token)
    rows = Path(f"/proc/{stat.pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon")) // 1024


def test_the_amount_is_resident_and_can_be_changed(working: Working, token: str) -> None:
    config = {"amount_bytes": 96 * MIB, "spare_bytes": 64 * MIB}
    with working("memory", **config) as (worker, life_line):
        specimens.wait_for(lambda: 96 <= anonymous(token) <= 96 + OWN_MIB_MAX, "it holds 96 MiB")
        assert worker.counters()["rss_bytes"] >= 96 * MIB
        for amount in (24, 130, 64):
            assert worker.become(replace(worker, config={**config, "amount_bytes": amount * MIB}), (life_line,))
            specimens.wait_for(lambda: amount <= anonymous(token) <= amount + OWN_MIB_MAX, f"it holds {amount} MiB")  # noqa: B023 - called at once


@pytest.mark.slow
def test_a_leak_grows_at_its_rate_up_to_the_amount(working: Working, token: str) -> None:
    with working("memory", amount_bytes=60 * MIB, spare_bytes=64 * MIB, rate_bytes_per_s=30 * MIB):
        specimens.wait_for(lambda: anonymous(token) >= OWN_MIB_MAX, "it has begun to grow")
        began, before = time.monotonic(), anonymous(token)
        time.sleep(1)  # the length of the measurement
        rate = (anonymous(token) - before) / (time.monotonic() - began)
        assert rate == pytest.approx(30, rel=0.35)
        specimens.wait_for(lambda: anonymous(token) >= 60, "it has grown to the amount")
        assert anonymous(token) <= 60 + OWN_MIB_MAX


def test_it_holds_back_before_the_machine_runs_short(working: Working, token: str) -> None:
    """More must stay available than there is: once it runs, it takes nothing and says that it is held back."""
    config: dict[str, object] = {"amount_bytes": 128 * MIB, "spare_bytes": 64 * MIB, "rate_bytes_per_s": 1 * MIB}
    with working("memory", **config) as (worker, life_line):
        assert "held_back" not in worker.counters()
        short = {**config, "rate_bytes_per_s": None, "spare_bytes": machine_memory().total}
        assert worker.become(replace(worker, config=short), (life_line,))
        specimens.wait_for(lambda: worker.counters().get("held_back") == 1, "it says that it is held back")
        assert anonymous(token) <= OWN_MIB_MAX
        assert worker.become(replace(worker, config={**short, "spare_bytes": 64 * MIB}), (life_line,))
        specimens.wait_for(lambda: anonymous(token) >= 128, "it holds what was asked")
        assert "held_back" not in worker.counters()
        assert worker.become(replace(worker, config=short), (life_line,))
        specimens.wait_for(lambda: anonymous(token) <= OWN_MIB_MAX, "it has given everything back")


def test_what_the_machine_cannot_spare_is_refused(token: str) -> None:
    there = machine_memory()
    config = {"amount_bytes": there.total, "spare_bytes": there.total // 10}
    with pytest.raises(Refused, match=r"iB are available on this machine, and .* of it must stay so"):
        memory.check(memory.Config(**config))
    with pytest.raises(ActionFailed, match=r"cannot be taken: .* must stay so"):
        Worker(token, "squall.workers.memory", "test", config).do()
    memory.check(memory.Config(amount_bytes=MIB, spare_bytes=MIB))


def test_it_is_charged_to_the_targets_cgroup(working: Working, token: str) -> None:
    with (
        specimens.own_cgroup("memory") as folder,
        working("memory", amount_bytes=32 * MIB, spare_bytes=64 * MIB, cgroups=[str(folder)]),
    ):
        specimens.wait_for(lambda: specimens.charged_memory(folder) >= 32 * MIB, "32 MiB are charged")
        assert (folder / "cgroup.procs").read_text().split() == [str(surviving(token)[0].pid)]


@pytest.mark.slow
def test_at_the_cgroups_limit_the_kernel_ends_it_and_not_the_target(working: Working) -> None:
    with specimens.own_cgroup("memory") as folder, specimens.sleeper() as target:
        specimens.limit_memory(folder, 64 * MIB)
        (folder / "cgroup.procs").write_text(str(target.pid))
        with working("memory", amount_bytes=256 * MIB, spare_bytes=64 * MIB, cgroups=[str(folder)]) as (worker, _):
            specimens.wait_for(lambda: not worker.in_force(), "the kernel has ended it")
        assert target.popen.poll() is None
        assert (folder / "cgroup.procs").read_text().split() == [str(target.pid)]
        os.kill(target.pid, 9)
