"""A signal hits exactly one process and cannot be taken back."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from squall.actions import Signal
from squall.errors import TargetError
from tests import specimens


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT"])
def test_it_ends_the_process_by_that_signal(name: str) -> None:
    with specimens.sleeper() as specimen:
        action = Signal(specimen.identity, "sleep", name).prepare()
        assert action.do() == ()
        assert specimen.popen.wait(10) == -signal.Signals[name]
        action.undo()
        assert action.verify().normal
        assert action.counters() == {"signals": 1}
        assert action.describe() == f"send {name} to sleep (pid {specimen.pid})"


def test_a_process_that_has_ended_is_said_before_and_at_the_hit() -> None:
    with specimens.sleeper() as specimen:
        action = Signal(specimen.identity, "sleep", "SIGKILL").prepare()
        specimen.popen.kill()
        specimen.popen.wait()
    with pytest.raises(TargetError, match="ended before the signal was sent"):
        action.do()
    with pytest.raises(TargetError, match="has ended, or become another program"):
        action.prepare()


def test_a_successor_is_never_hit() -> None:
    with specimens.sleeper() as specimen:
        other = replace(specimen.identity, start_ticks=specimen.identity.start_ticks - 100)
        with pytest.raises(TargetError):
            Signal(other, "sleep", "SIGKILL").prepare()
        with pytest.raises(TargetError):
            Signal(other, "sleep", "SIGKILL").do()
        assert specimen.popen.poll() is None
