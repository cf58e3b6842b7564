"""What surrounds Squall is broken: streams, terminals, folders, environment, limits, permissions, disks. No traceback, no residue."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.badluck.conftest import Spoilt

pytestmark = pytest.mark.slow
QUICK = ("--baseline", "300ms", "--within", "1s")


def verdict_of(squall: Spoilt) -> str:
    """Of the last run, from its events."""
    lines = (squall.runs[-1] / "events.jsonl").read_text().splitlines()
    found = [event["verdict"] for event in map(json.loads, lines) if "verdict" in event] or [
        event["data"]["verdict"] for event in map(json.loads, lines) if "verdict" in event.get("data", {})
    ]
    assert len(found) == 1
    return str(found[0])


def test_a_reader_who_has_seen_enough(squall: Spoilt) -> None:
    listing = squall.start("faults")
    assert listing.stdout is not None
    listing.stdout.close()
    assert listing.stderr is not None
    assert "Traceback" not in listing.stderr.read()
    listing.stderr.close()
    assert listing.wait(30) in (0, 1)


def test_a_run_whose_reader_goes_away_recovers_and_reports(squall: Spoilt, target: specimens.Specimen) -> None:
    run = squall.start(
        "inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK, stderr=subprocess.STDOUT
    )
    assert run.stdout is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.wait(30) == 130
    assert squall.open_runs == []
    assert verdict_of(squall) == "inconclusive"


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_closed_streams_give_their_numbers_to_nothing(
    squall: Spoilt, target: specimens.Specimen, closed: tuple[int, ...]
) -> None:
    """A journal that became descriptor 2 would be replaced by the guardian's log."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    done = squall.pause(target.pid, preexec_fn=close)
    assert done.returncode == 0, done.stderr
    assert squall.open_runs == []
    assert (squall.runs[-1] / "report.html").exists()


def test_a_terminal_that_is_closed_in_mid_run(squall: Spoilt, target: specimens.Specimen) -> None:
    """SIGHUP comes, and every write to the terminal fails from then on."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(2), os.O_RDWR))

    run = squall.start(
        "inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK,
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)
    specimens.wait_for(lambda: target.state == "T", "the pause is on")
    os.close(ours)
    assert run.wait(30) == 130
    assert squall.open_runs == []
    assert verdict_of(squall) == "inconclusive"
    assert (squall.runs[-1] / "report.html").exists()


def test_nohup_is_respected(squall: Spoilt, target: specimens.Specimen) -> None:
    squall.before = ("nohup",)
    with squall.pausing(target.pid, "1s") as run:
        run.send_signal(signal.SIGHUP)
        assert run.wait(30) == 0


def test_ctrl_z_does_not_stop_a_run(squall: Spoilt, target: specimens.Specimen) -> None:
    with squall.pausing(target.pid, "1s") as run:
        run.send_signal(signal.SIGTSTP)
        assert run.wait(30) == 0


@pytest.mark.parametrize("words", [("timeout", "60"), ("env", "-i")])
def test_started_by_another_command(squall: Spoilt, target: specimens.Specimen, words: tuple[str, ...]) -> None:
    squall.before = (*words, f"SQUALL_STATE={squall.state}") if words[0] == "env" else words
    assert squall.pause(target.pid).returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"TERM": "no-such-terminal", "COLUMNS": "20", "LINES": "3", "FORCE_COLOR": "1"},
        {"TMPDIR": "/no/such/folder", "HOME": "/no/such/home"},
    ],
)
def test_an_odd_environment(squall: Spoilt, target: specimens.Specimen, environment: dict[str, str]) -> None:
    squall.environment = environment
    done = squall.pause(target.pid)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_working_folder_that_is_gone(squall: Spoilt, target: specimens.Specimen, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def go() -> None:
        os.chdir(gone)
        gone.rmdir()

    assert squall.pause(target.pid, preexec_fn=go).returncode == 0


def test_a_state_folder_with_a_long_name_can_be_stopped(
    squall: Spoilt, target: specimens.Specimen, tmp_path: Path
) -> None:
    """A socket's path is at most 107 bytes long."""
    squall.state = tmp_path / ("x" * 150) / ("ü" * 60)
    with squall.pausing(target.pid) as run:
        assert squall("stop", "--no-wait").returncode == 0
        assert run.wait(30) == 3


def test_few_file_descriptors(squall: Spoilt, target: specimens.Specimen) -> None:
    done = squall.pause(target.pid, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)))
    assert done.returncode in (0, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert squall.open_runs == []


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@specimens.needs_root
def test_a_disk_that_fills_up_in_mid_run_and_one_that_is_full(squall: Spoilt, target: specimens.Specimen) -> None:
    with specimens.small_disk(1) as disk:
        squall.state = disk / "state"
        with squall.pausing(target.pid) as run:
            fill(disk / "fill")
            out, err = run.communicate(timeout=30)
            assert run.returncode not in (0, 5), err
            assert "No space left on device" in out + err
            [events] = (squall.state / "runs").glob("*/events.jsonl")
            assert json.loads(events.read_text().splitlines()[-1])["kind"] == "run-finished"
        assert squall.open_runs == []
        refused = squall.pause(target.pid)
        assert refused.returncode in (1, 4), refused.stderr
        assert "No space left on device" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert squall.open_runs == []


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """Squall and what it needs where an ordinary user can read it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user: run the tests with sudo to see this")
    folder = Path(tempfile.mkdtemp(prefix="squall-test-installed-"))  # pytest's own folders are root's alone
    folder.chmod(0o755)
    shutil.copytree(specimens.SOURCE / "squall", folder / "squall", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        sysconfig.get_paths()["purelib"], folder / "packages",
        ignore=shutil.ignore_patterns("__pycache__", "*mypy*", "*ruff*", "*playwright*", "sphinx*", "scipy*", "numpy*"),
    )  # fmt: skip
    yield folder
    shutil.rmtree(folder)


class Nobody:
    """`squall` as user nobody."""

    def __init__(self, installed: Path, state: Path) -> None:
        python = specimens._readable_python()
        if python is None:
            pytest.skip("no Python >= 3.11 here that user `nobody` may run: install python3 for all users")
        self.argv = [*specimens._as_nobody(), python, "-m", "squall"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{installed}:{installed / 'packages'}",
            "SQUALL_STATE": str(state),
        }

    def __call__(self, *words: str, **popen: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]  # what the caller passes on is run's own
            [*self.argv, *words], env=self.environment, capture_output=True, text=True, timeout=60, cwd="/", check=False,
            **popen,
        )  # fmt: skip


def test_another_users_process_is_refused_before_the_baseline_and_leaves_nothing(
    installed: Path, tmp_path: Path
) -> None:
    state = installed / f"state-{tmp_path.name}"
    state.mkdir()
    os.chown(state, specimens.NOBODY, specimens.NOBODY)
    squall = Nobody(installed, state)
    with specimens.sleeper() as target:
        for fault in ("process.pause", "process.kill", "process.crash", "stress.fd"):
            more = ("--signal", "SIGABRT") if fault == "process.crash" else ()
            done = squall("inject", fault, "-t", f"pid:{target.pid}", "-d", "1s", *QUICK, *more)
            assert done.returncode == 4, (fault, done.stderr)
            assert "belongs to another user; run as that user or as root" in done.stderr, done.stderr
        assert squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s", "--dry-run").returncode == 4
        assert target.state == "S"
    assert list((state / "open").iterdir()) == list((state / "runs").iterdir()) == []


def test_another_users_state_folder(installed: Path, squall: Spoilt) -> None:
    assert squall("halt").returncode == 0
    squall.state.chmod(0o700)
    nobody = Nobody(installed, squall.state)
    for words in (("list",), ("inject", "process.pause", "-t", "pid:999999", "-d", "1s")):
        done = nobody(*words)
        assert done.returncode in (1, 4), done.stderr
        assert "SQUALL_STATE" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_user_who_may_start_no_more_processes_gets_no_guardian_and_no_fault(installed: Path, tmp_path: Path) -> None:
    state = installed / f"state-{tmp_path.name}"
    state.mkdir()
    os.chown(state, specimens.NOBODY, specimens.NOBODY)
    squall = Nobody(installed, state)
    with specimens.started(*specimens._as_nobody(), "sleep", "60") as target:
        specimens.wait_for(lambda: b"sleep" in Path(f"/proc/{target.pid}/cmdline").read_bytes(), "it sleeps")
        specimens.wait_for(lambda: Path(f"/proc/{target.pid}").stat().st_uid == specimens.NOBODY, "it is nobody's")
        done = squall(
            "inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "5s", *QUICK,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)),
        )  # fmt: skip
        assert done.returncode in (1, 4), (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert target.state == "S"
    assert list(state.glob("open/*")) == []
