"""The unit that recovers at boot: what it says, what it runs, and where it cannot be installed."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import CannotInject
from squall.recovery import boot_unit

if TYPE_CHECKING:
    from pathlib import Path

    from squall.recovery import State


def test_what_the_unit_runs_undoes_an_orphan(new_run: Any, state: State) -> None:
    from squall.actions import FileLimit
    from squall.targets import ProcessIdentity

    with subprocess.Popen(["sleep", "60"]) as process:
        _, journal, executor = new_run()
        executor.apply("0-x", FileLimit(ProcessIdentity.of(process.pid), "sleep", 3))
        journal.release()  # engine and guardian are gone, as after a power cut
        [line] = [line for line in boot_unit.text(state).splitlines() if line.startswith("ExecStart=")]
        done = subprocess.run(shlex.split(line.removeprefix("ExecStart=")), capture_output=True, text=True, check=False)
        process.kill()
    assert done.returncode == 0
    assert "1 steps undone" in done.stderr
    assert state.open_runs() == []


def test_without_systemd_it_says_what_to_do_instead(state: State, tmp_path: Path) -> None:
    with pytest.raises(CannotInject, match="has no systemd; run `squall recover`"):
        boot_unit.install(state, tmp_path / "nowhere" / "squall-recover.service")


def test_a_unit_that_cannot_be_enabled_is_an_error(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemctl
    with pytest.raises(CannotInject, match="systemctl daemon-reload failed"):
        boot_unit.install(state, tmp_path / "squall-recover.service")


def test_taking_it_away_is_harmless_when_it_is_not_there(tmp_path: Path) -> None:
    assert "is not there" in boot_unit.uninstall(tmp_path / "squall-recover.service")
