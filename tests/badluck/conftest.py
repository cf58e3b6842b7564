"""A service to break, and `squall` as a user runs it, with what a test wants to spoil."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = ("--baseline", "300ms", "--within", "1s", "--quiet")


@dataclass
class Spoilt:
    """Runs `squall ...` with a state folder of its own; `environment` and `popen` hold what is spoilt."""

    state: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    """Words before the command: nice, setpriv, ..."""

    def start(self, *words: str, **popen: object) -> subprocess.Popen[str]:
        """In the background, its output kept."""
        environment = {**os.environ, "SQUALL_STATE": str(self.state), "NO_COLOR": "1", **self.environment}
        given = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **popen,
        }
        argv = [*self.before, sys.executable, "-m", "squall", *words]
        return subprocess.Popen(argv, env=environment, **given)  # type: ignore[call-overload, no-any-return]

    def __call__(self, *words: str, **popen: object) -> subprocess.CompletedProcess[str]:
        """To its end."""
        process = self.start(*words, **popen)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def pause(self, pid: int, duration: str = "500ms", **popen: object) -> subprocess.CompletedProcess[str]:
        """A short pause of a process, from beginning to end."""
        return self("inject", "process.pause", "-t", f"pid:{pid}", "-d", duration, *QUICK, **popen)

    @contextlib.contextmanager
    def pausing(self, pid: int, duration: str = "30s", **popen: object) -> Iterator[subprocess.Popen[str]]:
        """A pause that is on; whatever is left of it afterwards is ended."""
        process = self.start("inject", "process.pause", "-t", f"pid:{pid}", "-d", duration, *QUICK, **popen)
        try:
            specimens.wait_for(lambda: stopped(pid) or process.poll() is not None, "the pause is on")
            yield process
        finally:
            process.kill()
            process.communicate()

    @property
    def open_runs(self) -> list[str]:
        """What is on, or was left."""
        folder = self.state / "open"
        return sorted(one.name for one in folder.iterdir()) if folder.exists() else []

    @property
    def runs(self) -> list[Path]:
        """Every run's folder."""
        folder = self.state / "runs"
        return sorted(folder.iterdir()) if folder.exists() else []


def stopped(pid: int) -> bool:
    """Whether a signal has stopped this process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def squall(tmp_path: Path) -> Spoilt:
    return Spoilt(tmp_path / "state")


@pytest.fixture
def target() -> Iterator[specimens.Specimen]:
    """A process to pause; whatever happened, it must go on afterwards."""
    with specimens.sleeper() as process:
        yield process
        specimens.wait_for(lambda: process.state in ("S", "R", "Z", ""), "the target goes on", seconds=8)
