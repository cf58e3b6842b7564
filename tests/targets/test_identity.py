"""Who a process is: the same process after exec, another after its pid was given again."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from squall.errors import TargetError
from squall.targets import ProcessIdentity, ProcessTarget
from tests import specimens

EXEC_ON_SIGNAL = """
import os, signal, time
def become(*_):
    os.execv("/bin/sleep", ["sleep", "600"])
signal.signal(signal.SIGUSR1, become)
print("ready", flush=True)
while True:
    time.sleep(600)
"""


def test_an_identity_survives_json() -> None:
    mine = ProcessIdentity.mine()
    assert ProcessIdentity.from_json(mine.to_json()) == mine
    assert mine.pid == os.getpid()
    assert mine.same_process()
    assert mine.same_program()


def test_nobody_has_no_identity() -> None:
    with specimens.sleeper() as specimen:
        identity = specimen.identity
    assert identity.stat() is None
    assert not identity.same_process()
    assert not identity.signal(signal.SIGKILL)
    with pytest.raises(TargetError, match=f"there is no process {identity.pid}"):
        ProcessIdentity.of(identity.pid)


@pytest.mark.parametrize("field", [{"start_ticks": 1}, {"boot_id": "another-boot"}])
def test_a_successor_with_the_same_pid_is_never_signalled(field: dict[str, object]) -> None:
    with specimens.sleeper() as specimen:
        other = replace(specimen.identity, **field)  # type: ignore[arg-type]  # the fields of the parametrisation
        assert not other.same_process()
        assert not other.same_program()
        assert not other.signal(signal.SIGKILL)
        assert specimen.popen.poll() is None
        assert other.key != specimen.identity.key


def test_exec_makes_it_another_program_but_not_another_process() -> None:
    with specimens.python(EXEC_ON_SIGNAL) as specimen:
        before = specimen.identity
        target = ProcessTarget(before, "it")
        assert target.alive()
        os.kill(specimen.pid, signal.SIGUSR1)
        specimens.wait_for(lambda: not before.same_program(), "it is sleep now")
        assert before.same_process()
        assert not target.alive()
        assert before.key == specimen.identity.key
        assert before.signal(signal.SIGTERM)
        assert specimen.popen.wait(5) == -signal.SIGTERM


def test_a_zombie_is_nobody() -> None:
    with specimens.sleeper() as specimen:
        identity = specimen.identity
        os.kill(specimen.pid, signal.SIGKILL)
        specimens.wait_for(lambda: specimen.state == "Z", "it is a zombie")
        assert not identity.same_process()
        with pytest.raises(TargetError):
            ProcessIdentity.of(specimen.pid)
