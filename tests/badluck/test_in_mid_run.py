"""What happens to a run and its target while the fault is on; and what a user types wrong. Each ends with a clear word and nothing left.

Where each line of "bad input and bad luck" is tested:

    unknown keys, wrong units, impossible ranges   tests/experiment/test_bad_documents.py, test_fuzz.py; tests/cli; below
    a target that matches nothing / too much       tests/targets/test_find_processes.py, test_selection.py; tests/cli
    a protected process                            tests/targets/test_limits.py; tests/engine; tests/cli
    a target that dies or restarts                 tests/engine/test_run.py
    a target that execs in mid-run                 below
    a pid that is reused                           tests/kernel/test_proc.py (a real one), tests/actions/test_pause.py
    a port in use                                  tests/engine/test_run.py, tests/actions/test_proxied.py
    no permission                                  tests/actions/test_unprivileged.py; test_surroundings.py
    a full disk                                    tests/recovery/test_executor.py; test_surroundings.py (a real one)
    a newer, corrupt or torn journal               tests/recovery/test_journal.py; tests/cli
    a clock that jumps, a suspended machine        tests/engine/test_run.py, by an injected clock
"""

from __future__ import annotations

import contextlib
import os
import signal
import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.cli.inject import parse_target
from squall.errors import InputError
from squall.kernel import proc
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.badluck.conftest import Spoilt

BECOMES_ANOTHER = """
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: os.execvp("sleep", ["sleep", "600"]))
os.write(1, b"ready\\n")
while True: time.sleep(0.01)
"""
PULSES = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: pulses}}
spec:
  targets: {{process: {{pid: {pid}}}}}
  steadyState: [{{name: here, command: "true", every: 100ms}}]
  faults: [{{type: process.pause, pulse: {{on: 100ms, off: 300ms}}}}]
  baseline: 300ms
  duration: 20s
  recovery: {{within: 1s}}
"""


@pytest.mark.slow
def test_a_target_that_becomes_another_program_between_two_pulses(squall: Spoilt, tmp_path: Path) -> None:
    with specimens.python(BECOMES_ANOTHER) as target:
        document = tmp_path / "pulses.yaml"
        document.write_text(PULSES.format(pid=target.pid))
        with squall.start("run", str(document)) as run:
            specimens.wait_for(lambda: target.state == "T", "the first pulse")
            os.kill(target.pid, signal.SIGUSR1)
            out, err = run.communicate(timeout=40)
        assert run.returncode == 6, out + err
        assert "has ended, or become another program" in err
        assert proc.command_line(target.pid) == ["sleep", "600"]
        assert target.state == "S", "the program that it became is left alone"
    assert squall.open_runs == []


@pytest.fixture
def sleepers() -> Iterator[list[specimens.Specimen]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(specimens.sleeper()) for _ in range(3)]


@pytest.mark.slow
def test_orphans_are_undone_once_by_three_commands_at_once(squall: Spoilt, sleepers: list[specimens.Specimen]) -> None:
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(squall.pausing(one.pid)) for one in sleepers]
        for run in runs:
            for guardian in proc.children_of(run.pid):
                os.kill(guardian, signal.SIGKILL)
            run.kill()
    assert [one.state for one in sleepers] == ["T"] * 3
    commands = [squall.start("recover"), squall.start("recover"), squall.start("list")]
    for command in commands:
        _, err = command.communicate(timeout=60)
        assert command.returncode == 0, err
        assert "Traceback" not in err
    for one in sleepers:
        specimens.wait_for(lambda one=one: one.state == "S", "it goes on")  # type: ignore[misc]  # bound now, not later
    assert squall.open_runs == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "pid:0", "-d", "1s"), "process.pid: 0: must be at least 1"),
        (("-t", "port:70000", "-d", "1s"), "process.port: 70000: must be at most 65535"),
        (("-t", "port:٣", "-d", "1s"), "cannot be read"),
        (("-t", "route:127.0.0.1:1-", "-d", "1s"), "the shell takes the >"),
        (
            ("-t", "route:x->y", "-d", "1s"),
            "does not have the right form (allowed: Where clients connect, `host:port`)",
        ),
        (("-t", "pid:4711", "-d", "3"), "--duration: '3' is not a duration"),
        (("-t", "pid:4711", "-d", "1e999s"), "--duration: '1e999s' is not a duration"),
        (("-t", "pid:4711", "-d", "1us"), "--duration: '1us' is out of range: 100ms to 24h is allowed"),
        (("-t", "pid:4711", "-d", "1s", "--baseline", "-1s"), "--baseline: '-1s' is not a duration"),
        (("-t", "pid:4711", "-d", "1s", "--within", "9h"), "--within: '9h' is out of range: 100ms to 1h is allowed"),
        (("-t", "pid:4711", "-d", "1s", "--mode", "fixed"), "needs a `value`"),
        (("-t", "pid:4711", "-d", "1s", "--follow"), "a pid cannot be followed"),
        (("-t", "pid:4711", "-d", "1s", "--probe", "nope"), "--probe nope: tcp: 'nope' does not have the right form"),
        (("-t", "cgroup:x", "-d", "1s"), "squall: process.pause happens to a process"),
    ],
)
def test_a_wrong_option_is_named(squall: Spoilt, words: tuple[str, ...], said: str) -> None:
    done = squall("inject", "process.pause", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    for foreign in ("Traceback", "Pydantic", "Input should", "pattern"):
        assert foreign not in done.stderr
    assert not squall.state.exists()


@given(st.one_of(st.text(max_size=30), st.from_regex(r"(pid|port|command|unit|cgroup|route):.{0,12}", fullmatch=True)))
@settings(max_examples=300)
def test_any_target_is_read_or_refused(text: str) -> None:
    try:
        found = parse_target(text)
    except InputError:
        return
    assert len(found) == 1


@given(st.lists(st.text(string.printable, max_size=8), max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_words_are_answered_without_a_traceback(words: list[str]) -> None:
    from squall.cli.app import squall_command

    status: object = 0
    try:
        squall_command.main(["inject", "process.pause", "--dry-run", *words], prog_name="squall")
    except SystemExit as ended:
        status = ended.code
    assert status in (0, 2, 4)
