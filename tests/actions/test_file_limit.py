"""A process runs out of descriptors, and gets its old limit back unless somebody else has set another."""

from __future__ import annotations

import errno
import os
import resource
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import FileLimit
from squall.errors import TargetError
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from squall.actions import Action

    Doing = Callable[[Action], AbstractContextManager[tuple[Action, tuple[int, ...]]]]

NOFILE = resource.RLIMIT_NOFILE
OPENS_WHEN_ASKED = """
import os, signal, sys
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(6)]
os.close(held[2])
held.append(os.dup2(held[0], 40))
def attempt(*_):
    got, stopped_by = [], 0
    try:
        while len(got) < 50:
            got.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        stopped_by = error.errno
    os.write(1, f"{len(got)} {stopped_by}\\n".encode())
    for fd in got:
        os.close(fd)
signal.signal(signal.SIGUSR1, attempt)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def opener() -> Iterator[specimens.Specimen]:
    """A process that, on SIGUSR1, opens up to 50 files, says how many it could and why it stopped, and closes them."""
    with specimens.python(OPENS_WHEN_ASKED) as specimen:
        yield specimen


def attempt(opener: specimens.Specimen) -> tuple[int, int]:
    """How many files it could open, and the errno that stopped it."""
    opener.popen.send_signal(signal.SIGUSR1)
    assert opener.popen.stdout is not None
    count, number = opener.popen.stdout.readline().split()
    return int(count), int(number)


@pytest.mark.parametrize("leave", [0, 1, 5])
def test_exactly_so_many_more_can_be_opened(opener: specimens.Specimen, doing: Doing, leave: int) -> None:
    before = resource.prlimit(opener.pid, NOFILE)
    with doing(FileLimit(opener.identity, "opener", leave)) as (action, _):
        assert attempt(opener) == (leave, errno.EMFILE)
        assert not action.verify().normal
        assert str(before[0]) in action.describe_undo()
    assert resource.prlimit(opener.pid, NOFILE) == before
    assert attempt(opener) == (50, 0)


def test_undo_is_idempotent_and_harmless_before_do(opener: specimens.Specimen) -> None:
    before = resource.prlimit(opener.pid, NOFILE)
    FileLimit(opener.identity, "opener", 0).undo()
    action = FileLimit(opener.identity, "opener", 0).prepare()
    action.undo()
    assert action.verify().normal
    action.do()
    action.undo()
    action.undo()
    assert resource.prlimit(opener.pid, NOFILE) == before


def test_a_limit_that_somebody_else_has_set_since_is_left_alone(opener: specimens.Specimen) -> None:
    action = FileLimit(opener.identity, "opener", 0).prepare()
    action.do()
    resource.prlimit(opener.pid, NOFILE, (77, resource.prlimit(opener.pid, NOFILE)[1]))
    action.undo()
    assert resource.prlimit(opener.pid, NOFILE)[0] == 77
    assert action.verify().normal


def test_a_limit_that_changed_before_it_could_be_lowered_is_an_error(opener: specimens.Specimen) -> None:
    action = FileLimit(opener.identity, "opener", 0).prepare()
    resource.prlimit(opener.pid, NOFILE, (77, resource.prlimit(opener.pid, NOFILE)[1]))
    with pytest.raises(TargetError, match="has changed since it was read"):
        action.do()
    assert resource.prlimit(opener.pid, NOFILE)[0] == 77


def test_a_limit_lower_than_asked_for_is_refused(opener: specimens.Specimen) -> None:
    resource.prlimit(opener.pid, NOFILE, (20, resource.prlimit(opener.pid, NOFILE)[1]))
    with pytest.raises(TargetError, match="leaving 500 would change nothing"):
        FileLimit(opener.identity, "opener", 500).prepare()


def test_a_successor_and_a_gone_process_are_left_alone(opener: specimens.Specimen) -> None:
    before = resource.prlimit(opener.pid, NOFILE)
    action = FileLimit(opener.identity, "opener", 0).prepare()
    successor = replace(action, process=replace(action.process, start_ticks=action.process.start_ticks - 100))
    with pytest.raises(TargetError):
        successor.do()
    assert resource.prlimit(opener.pid, NOFILE) == before
    resource.prlimit(opener.pid, NOFILE, (action.soft, before[1]))
    successor.undo()
    assert resource.prlimit(opener.pid, NOFILE)[0] == action.soft
    opener.popen.kill()
    opener.popen.wait()
    action.undo()
    assert action.verify().detail == "the process has ended"
    with pytest.raises(TargetError, match="has ended"):
        FileLimit(action.process, "opener", 0).prepare()


def test_children_started_meanwhile_get_the_old_limit_back_too() -> None:
    starts_a_child = """
import signal, subprocess, sys
def start(*_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    print(child.pid, flush=True)
signal.signal(signal.SIGUSR1, start)
print("ready", flush=True)
while True:
    signal.pause()
"""
    with specimens.python(starts_a_child) as specimen:
        before = resource.prlimit(specimen.pid, NOFILE)
        action = FileLimit(specimen.identity, "specimen", 20).prepare()
        action.do()
        specimen.popen.send_signal(signal.SIGUSR1)
        assert specimen.popen.stdout is not None
        child = int(specimen.popen.stdout.readline())
        try:
            assert resource.prlimit(child, NOFILE)[0] == action.soft, "it inherited the low one"
            action.undo()
            assert resource.prlimit(child, NOFILE) == resource.prlimit(specimen.pid, NOFILE) == before
        finally:
            os.kill(child, signal.SIGKILL)
