"""The command line as a user runs it: in a process, with a state folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Squall:
    """Runs `squall ...` and waits for it."""

    state: Path

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SQUALL_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "120"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "squall", *words], env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture
def squall(tmp_path: Path) -> Squall:
    return Squall(tmp_path / "state")
