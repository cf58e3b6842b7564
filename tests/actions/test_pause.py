"""A paused process stands still, and goes on whatever has happened meanwhile."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import Look, Pause
from squall.errors import TargetError
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from squall.actions import Action

    Doing = Callable[[Action], AbstractContextManager[tuple[Action, tuple[int, ...]]]]

EXEC_WHEN_LET_GO = """
import os, signal
def become(*_):
    os.execv("/bin/sleep", ["sleep", "600"])
signal.signal(signal.SIGCONT, become)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_it_stands_still_and_goes_on(beater: specimens.Beater, doing: Doing) -> None:
    with doing(Pause(beater.identity, "beater")) as (action, _):
        assert beater.state == "T"
        assert not beater.moves(within_s=0.2)
        assert action.verify() == Look(normal=False, detail="its state is T")
    assert beater.moves()


def test_undo_is_idempotent_and_harmless_before_do(beater: specimens.Beater) -> None:
    action = Pause(beater.identity, "beater").prepare()
    action.undo()
    assert beater.moves()
    action.do()
    for _ in range(3):
        action.undo()
    assert action.verify().normal
    assert beater.moves()


def test_undo_is_harmless_when_the_process_is_gone(beater: specimens.Beater) -> None:
    action = Pause(beater.identity, "beater").prepare()
    action.do()
    beater.popen.kill()
    beater.popen.wait()
    action.undo()
    assert action.verify().normal
    assert action.verify().detail == "the process has ended"


def test_a_zombie_needs_no_undo(beater: specimens.Beater) -> None:
    action = Pause(beater.identity, "beater").prepare()
    action.do()
    beater.popen.kill()
    specimens.wait_for(lambda: beater.state == "Z", "it is a zombie")
    action.undo()
    assert action.verify().normal


def test_undo_leaves_a_successor_alone(beater: specimens.Beater) -> None:
    """Somebody else's stopped process that has the pid now stays stopped."""
    identity = beater.identity
    os.kill(beater.pid, signal.SIGSTOP)
    specimens.wait_for(lambda: beater.state == "T", "it is stopped")
    Pause(replace(identity, start_ticks=identity.start_ticks - 100), "beater").undo()
    assert not beater.moves(within_s=0.2)
    os.kill(beater.pid, signal.SIGCONT)


def test_a_process_that_somebody_else_has_stopped_is_refused(beater: specimens.Beater) -> None:
    os.kill(beater.pid, signal.SIGSTOP)
    specimens.wait_for(lambda: beater.state == "T", "it is stopped")
    with pytest.raises(
        TargetError, match=f"is stopped already, not by this run; let it go on first .kill -CONT {beater.pid}"
    ):
        Pause(beater.identity, "beater").prepare()
    assert beater.state == "T"


def test_a_process_that_became_another_program_is_refused_but_still_let_go(doing: Doing) -> None:
    with specimens.python(EXEC_WHEN_LET_GO) as specimen:
        before = specimen.identity
        with doing(Pause(before, "it")):
            assert specimen.state == "T"
        specimens.wait_for(lambda: not before.same_program(), "it has become sleep")
        with pytest.raises(TargetError, match="become another program"):
            Pause(before, "it").prepare()
        os.kill(specimen.pid, signal.SIGSTOP)
        specimens.wait_for(lambda: specimen.state == "T", "it is stopped")
        Pause(before, "it").undo()
        assert Pause(before, "it").verify().normal


def test_a_process_whose_first_thread_has_ended_can_be_paused(doing: Doing) -> None:
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with specimens.python(script) as specimen:
        specimens.wait_for(lambda: specimen.state == "Z", "its first thread has ended")
        with doing(Pause(specimen.identity, "it")) as (action, _):
            assert not action.verify().normal


def test_it_says_how_a_person_undoes_it(beater: specimens.Beater) -> None:
    action = Pause(beater.identity, "beater")
    assert action.describe_undo() == f"kill -CONT {beater.pid}"
    assert action.objects() == (beater.identity.key,)
    assert action.counters() == {"stops": 1}
