"""The guardian as the engine sees it, and its own code run in this process with a stand-in engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.kernel import proc
from squall.recovery import Guard, read_journal
from squall.recovery import guardian as guardian_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from squall.recovery import State


def wait_for(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_starts_guards_and_goes(new_run: Any, state: State) -> None:
    run, journal, executor = new_run()
    guard = Guard.start(state, run, journal)
    assert os.getsid(guard.identity.pid) == guard.identity.pid, "a session of its own"
    guard.beat(10)
    assert not guard.lost()
    executor.close()
    guard.farewell()
    assert not guard.identity.same_process()
    assert not (run.path / "guardian.log").exists(), "it had nothing to say"


def test_the_engine_notices_that_it_is_gone(new_run: Any, state: State) -> None:
    run, journal, _ = new_run()
    guard = Guard.start(state, run, journal)
    os.kill(guard.identity.pid, signal.SIGKILL)
    wait_for(guard.lost)
    guard.farewell()


def test_told_to_end_it_says_so_first(new_run: Any, state: State) -> None:
    run, journal, executor = new_run()
    guard = Guard.start(state, run, journal)
    os.kill(guard.identity.pid, signal.SIGTERM)
    wait_for(guard.lost)
    executor.close()
    guard.farewell()
    assert not guard.identity.same_process()


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the engine: it does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def run_guardian(state: State, engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the guardian's main() here, watching `engine`; what it ignores and catches is put back afterwards."""
    numbers = (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTSTP,
        signal.SIGPIPE,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGTERM,
    )
    before = {number: signal.getsignal(number) for number in numbers}
    score = Path("/proc/self/oom_score_adj").read_text()

    def go(journal: Any, run: Any, talk: bytes, *, close: bool = False) -> tuple[int, bytes]:
        ours, theirs = socket.socketpair()
        pidfd = os.pidfd_open(engine.pid)
        stat = proc.read_stat(engine.pid)
        assert stat is not None
        words = [
            "guardian",
            state.path,
            run.path,
            os.dup(journal.fd),
            pidfd,
            theirs.detach(),
            engine.pid,
            stat.start_ticks,
        ]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        ours.sendall(talk)
        if close:
            ours.shutdown(socket.SHUT_RDWR)
        journal.release()
        status = guardian_module.main()
        os.close(pidfd)
        heard = ours.recv(4096) if not close else b""
        ours.close()
        return status, heard

    yield go
    for number, handler in before.items():
        signal.signal(number, handler)
    Path("/proc/self/oom_score_adj").write_text(score)


def test_bye_ends_it_without_a_deed(new_run: Any, run_guardian: Any, touch: Any, tmp_path: Path, engine: Any) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    status, heard = run_guardian(journal, run, b"beat 9999999999999999999\nbye\n")
    assert (status, heard[:6]) == (0, b"ready\n")
    assert (tmp_path / "a").exists()
    assert engine.poll() is None


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("dies", "died"),
        ("stops", "stopped by a signal"),
        ("overruns", "overran"),
        ("closes", "closed its end"),
        ("hangs", "silent"),
    ],
)
def test_whatever_becomes_of_the_engine_all_is_undone(
    new_run: Any, run_guardian: Any, touch: Any, tmp_path: Path, engine: Any, ending: str, reason: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: State,
) -> None:  # fmt: skip
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    talk = b"beat 9223372036854775807\n"
    if ending == "dies":
        engine.kill()
    elif ending == "stops":
        engine.send_signal(signal.SIGSTOP)
    elif ending == "overruns":
        talk = b"beat 1\n"
    elif ending == "hangs":
        monkeypatch.setattr(guardian_module, "_SILENCE_S", 0.1)
    status, _ = run_guardian(journal, run, talk, close=ending == "closes")
    assert status == 0
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert engine.wait(5) == -signal.SIGKILL
    view = read_journal(run.journal)
    assert view.closed
    assert view.entries[0].undone_by == "guardian"
    assert state.open_runs() == []


def test_what_it_cannot_undo_it_says_and_leaves_open(
    new_run: Any,
    run_guardian: Any,
    touch: Any,
    tmp_path: Path,
    engine: Any,
    capsys: pytest.CaptureFixture[str],
    state: State,
) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a"), refuse="undo"))
    engine.kill()
    status, _ = run_guardian(journal, run, b"")
    assert status == 5
    assert f"LEFT BEHIND: touch {tmp_path / 'a'}" in capsys.readouterr().err
    assert state.open_runs() == [run]
