"""What drives a middleware: two files, held by a worker, gone with it; sdk/PROTOCOL.md is the contract."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import MiddlewareWorker
from squall.actions.worker import surviving
from squall.errors import ActionFailed
from squall.kernel import proc
from squall.targets.middleware import registrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAULT: dict[str, Any] = {
    "id": "0-http.delay", "require_header": False, "header": "X-Chaos-Enabled", "sample": 1.0, "method": "", "path": "",
    "headers": {}, "delay_min_ns": 5, "delay_max_ns": 5, "abort_status": None, "abort_body": "", "abort_headers": {},
    "seed": 7,
}  # fmt: skip


def register(folder: Path, name: str, *, ticks: int | None = None, counts: tuple[int, ...] = (0, 0, 0)) -> Path:
    """Say that this process has a middleware of this name, which has counted so much."""
    stat = proc.read_stat(os.getpid())
    assert stat is not None
    head = struct.pack("<8sQQ", b"SQCHAOS1", os.getpid(), stat.start_ticks if ticks is None else ticks)
    path = folder / f"{name}.{os.getpid()}.live"
    path.write_bytes((head + struct.pack("<3Q", *counts)).ljust(96, b"\0") + b"python 0.1.0".ljust(32, b"\0"))
    return path


def step(folder: Path, run: str = "r1", **fault: Any) -> MiddlewareWorker:
    config = {"folder": str(folder), "name": "shop", "run": run, "fault": {**FAULT, **fault}}
    return MiddlewareWorker(
        token=f"{run}/{os.getpid()}", module="squall.workers.middleware", purpose="delay", config=config, linger_s=2.0
    )


@pytest.fixture
def on(tmp_path: Path) -> Iterator[tuple[MiddlewareWorker, tuple[int, ...]]]:
    """A step that has been done, and its life line."""
    register(tmp_path, "shop", counts=(10, 4, 0))
    made = step(tmp_path)
    held = made.do()
    yield made, held
    for fd in held:
        os.close(fd)
    made.undo()
    assert made.verify().normal


def ahead_s(folder: Path) -> float:
    until = int.from_bytes((folder / "shop.lease").read_bytes(), "little")
    return (until - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_writes_the_faults_and_renews_the_lease(tmp_path: Path, on: Any) -> None:
    told = json.loads((tmp_path / "shop.json").read_text())
    assert told == {"version": 1, "run": "r1", "faults": [FAULT]}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "shop.json", tmp_path / "shop.lease")} == {0o644}
    first = (tmp_path / "shop.lease").read_bytes()
    assert 0 < ahead_s(tmp_path) <= 1
    wait_for(lambda: (tmp_path / "shop.lease").read_bytes() != first)
    assert on[0].in_force()
    assert on[0].verify().normal is False


def test_its_end_takes_both_away(tmp_path: Path) -> None:
    made = step(tmp_path)
    (life_line,) = made.do()
    os.close(life_line)
    wait_for(lambda: not surviving(made.token))
    assert list(tmp_path.iterdir()) == []
    made.undo()
    made.undo()
    assert made.verify().normal


def test_killed_its_lease_ends_and_its_undo_takes_the_files_away(tmp_path: Path) -> None:
    made = step(tmp_path)
    (life_line,) = made.do()
    (worker,) = surviving(made.token)
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not surviving(made.token))
    assert not made.in_force()
    assert made.verify().normal is False
    assert ahead_s(tmp_path) <= 1
    os.close(life_line)
    made.undo()
    assert made.verify().normal
    assert list(tmp_path.iterdir()) == []


def test_it_becomes_another_without_a_gap(tmp_path: Path, on: Any) -> None:
    made, held = on
    new = step(tmp_path, delay_max_ns=9)
    assert made.become(new, held)
    wait_for(lambda: json.loads((tmp_path / "shop.json").read_text())["faults"][0]["delay_max_ns"] == 9)
    assert 0 < ahead_s(tmp_path) <= 1


def test_it_counts_what_came_since(tmp_path: Path, on: Any) -> None:
    wait_for(lambda: on[0].counters() == {"delayed": 0, "left": 0})
    register(tmp_path, "shop", counts=(17, 9, 0))
    wait_for(lambda: on[0].counters() == {"delayed": 5, "left": 2})
    (tmp_path / f"shop.{os.getpid()}.live").unlink()  # the service ended: what it counted stays counted
    time.sleep(0.3)
    assert on[0].counters() == {"delayed": 5, "left": 2}


def test_a_second_one_is_refused(tmp_path: Path, on: Any) -> None:
    with pytest.raises(ActionFailed, match="driven by run r1 already"):
        step(tmp_path, "r2").do()
    step(tmp_path, "r2").undo()  # harmless to the first
    assert on[0].in_force()
    assert (tmp_path / "shop.json").exists()


def test_a_lease_that_somebody_removed_counts_as_lapsed(tmp_path: Path, on: Any) -> None:
    (tmp_path / "shop.lease").unlink()
    wait_for((tmp_path / "shop.lease").exists)
    wait_for(lambda: not on[0].in_force())
    assert ahead_s(tmp_path) <= 1


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match="No such file"):
        step(tmp_path / "nowhere").do()


def test_registrations_are_believed_when_their_process_lives(tmp_path: Path) -> None:
    register(tmp_path, "shop", counts=(3, 2, 1))
    register(tmp_path, "shop.front")
    (found,) = registrations(tmp_path, "shop")
    assert (found.pid, found.requests, found.delayed, found.aborted, found.language) == (
        os.getpid(),
        3,
        2,
        1,
        "python 0.1.0",
    )
    register(tmp_path, "shop", ticks=1)  # another process, that had this pid
    assert registrations(tmp_path, "shop") == []
    for spoilt in (b"", b"x" * 128, (tmp_path / f"shop.front.{os.getpid()}.live").read_bytes() + b"more"):
        (tmp_path / f"shop.{os.getpid()}.live").write_bytes(spoilt)
        assert registrations(tmp_path, "shop") == []
