"""Whoever reads the journal can undo: another process, in a bare interpreter, after the one that did it was killed."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from squall.actions import ClockSkew, FileLimit, Pause, PauseCycle, Worker, decode, encode
from squall.actions.worker import surviving
from squall.kernel import process_memory, vdso
from tests import specimens

if TYPE_CHECKING:
    from pathlib import Path

    from squall.actions import Action

DO_AND_DIE = """
import json, os, signal
from squall.actions import decode, encode
action = decode(json.loads(sys.argv[1])).prepare()
print(json.dumps(encode(action)), flush=True)
held = action.do()
os.kill(os.getpid(), signal.SIGKILL)
"""
UNDO = """
import json
from squall.actions import decode
action = decode(json.loads(sys.argv[1]))
if sys.argv[2] == "undo":
    action.undo()
look = action.verify()
print(json.dumps([look.normal, look.detail]))
"""


def do_and_die(action: Action) -> str:
    """Do the step in a process that is killed right after; what the journal would hold."""
    ran = specimens.elsewhere(DO_AND_DIE, json.dumps(encode(action)))
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    return ran.stdout.strip()


def undo(journalled: str, *, look_only: bool = False) -> tuple[bool, str]:
    """Undo (or only look) in another process: whether it is back to normal, and what was seen."""
    ran = specimens.elsewhere(UNDO, journalled, "look" if look_only else "undo")
    assert ran.returncode == 0, ran.stderr
    normal, detail = json.loads(ran.stdout)
    return normal, detail


def test_a_pause(beater: specimens.Beater) -> None:
    journalled = do_and_die(Pause(beater.identity, "beater"))
    assert beater.state == "T"
    assert undo(journalled, look_only=True) == (False, "its state is T")
    assert undo(journalled)[0]
    assert beater.moves()
    assert undo(journalled)[0]


def test_a_duty_cycle(beater: specimens.Beater, token: str) -> None:
    journalled = do_and_die(PauseCycle(token, beater.identity, "beater", 3_000_000_000, 3_600_000_000_000))
    assert undo(journalled)[0]
    assert not surviving(token)
    assert beater.moves()


def test_a_duty_cycle_whose_worker_is_stopped(beater: specimens.Beater, token: str) -> None:
    """A worker that was itself stopped cannot notice the end of its pipe: it is ended all the same."""
    cycle = PauseCycle(token, beater.identity, "beater", 3_500_000_000_000, 3_600_000_000_000)
    (life_line,) = cycle.do()
    specimens.wait_for(lambda: beater.state == "T", "it is stopped")
    os.kill(surviving(token)[0].pid, signal.SIGSTOP)
    os.close(life_line)
    assert undo(json.dumps(encode(cycle)))[0]
    cycle.undo()
    assert beater.moves()


def test_a_file_limit(beater: specimens.Beater) -> None:
    before = resource.prlimit(beater.pid, resource.RLIMIT_NOFILE)
    journalled = do_and_die(FileLimit(beater.identity, "beater", 0))
    assert resource.prlimit(beater.pid, resource.RLIMIT_NOFILE) != before
    assert undo(journalled, look_only=True)[0] is False
    assert undo(journalled)[0]
    assert resource.prlimit(beater.pid, resource.RLIMIT_NOFILE) == before


@specimens.needs_root
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
def test_a_clock_skew(beater: specimens.Beater) -> None:
    address, size = vdso.located(beater.pid)
    padding = vdso.own().padding
    journalled = do_and_die(ClockSkew("test/0.1", beater.identity, "beater"))
    assert process_memory.read(beater.pid, address, padding) != vdso.own().image[:padding]
    assert undo(journalled, look_only=True)[0] is False
    assert undo(journalled)[0]
    assert process_memory.read(beater.pid, address, size)[:padding] == vdso.own().image[:padding]
    assert beater.moves()


@pytest.mark.parametrize("module", ["cpu", "memory", "disk"])
def test_a_worker(token: str, module: str, tmp_path: Path) -> None:
    config = {
        "cpu": {"load": 0.1, "workers": 2},
        "memory": {"amount_bytes": 1 << 20, "spare_bytes": 0},
        "disk": {"path": str(tmp_path), "spare_bytes": 0, "fill_bytes": 1 << 20},
    }[module]
    worker = Worker(token, f"squall.workers.{module}", "test", config)
    (life_line,) = worker.do()
    assert undo(json.dumps(encode(worker)), look_only=True)[0] is False
    assert undo(json.dumps(encode(worker)))[0]
    assert not surviving(token)
    os.close(life_line)
    worker.undo()
    assert decode(json.loads(json.dumps(encode(worker)))) == worker
