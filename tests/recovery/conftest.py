"""A state folder, a run in it, and a step that touches nothing but a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.base import ACTIONS, Action, Look
from squall.recovery import Executor, Journal, RunFolder, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Touch(Action, kind="test-touch", recoverability="guarded"):
    """Makes a file; `refuse` names the method that fails."""

    path: str
    refuse: str = ""

    def prepare(self) -> Touch:
        self._maybe_fail("prepare")
        return self

    def do(self) -> tuple[int, ...]:
        Path(self.path).touch()
        self._maybe_fail("do")
        return (os.open(self.path, os.O_RDONLY),)

    def undo(self) -> None:
        self._maybe_fail("undo")
        Path(self.path).unlink(missing_ok=True)

    def verify(self) -> Look:
        there = Path(self.path).exists()
        return Look(normal=not there, detail="it is there" if there else "it is gone")

    def objects(self) -> tuple[str, ...]:
        return (f"path:{self.path}",)

    def describe(self) -> str:
        return f"touch {self.path}"

    def describe_undo(self) -> str:
        return f"rm {self.path}"

    def _maybe_fail(self, method: str) -> None:
        if self.refuse == method:
            raise OSError(5, f"{method} was told to fail")


del ACTIONS[Touch.kind]  # it exists for the tests of this folder alone


@pytest.fixture(autouse=True)
def touch(monkeypatch: pytest.MonkeyPatch) -> type[Touch]:
    monkeypatch.setitem(ACTIONS, Touch.kind, Touch)
    return Touch


@pytest.fixture
def state(tmp_path: Path) -> State:
    one = State(tmp_path / "state")
    one.create()
    return one


@pytest.fixture
def new_run(state: State) -> Iterator[Callable[[str], tuple[RunFolder, Journal, Executor]]]:
    """Makes a run that is on: its folder, its journal and its executor."""
    journals: list[Journal] = []

    def make(name: str = "a-run") -> tuple[RunFolder, Journal, Executor]:
        run = state.new_run(name)
        state.mark_open(run)
        journal = Journal.create(run.journal, run.id, name)
        journals.append(journal)
        return run, journal, Executor(state, run, journal)

    yield make
    for journal in journals:
        journal.release()
