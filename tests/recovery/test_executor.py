"""Doing and undoing: intent before the deed, the way back whatever happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import ActionFailed, Conflict, Halted
from squall.recovery import read_journal, recover_orphans

if TYPE_CHECKING:
    from squall.recovery import State


def test_a_step_that_fails_is_taken_back(new_run: Any, touch: Any, tmp_path: Path) -> None:
    run, _, executor = new_run()
    with pytest.raises(ActionFailed, match="do was told to fail; it was taken back"):
        executor.apply("0-x", touch(str(tmp_path / "a"), refuse="do"))
    assert not (tmp_path / "a").exists()
    assert executor.open_entries == []
    assert executor.close() == []
    assert read_journal(run.journal).closed


def test_a_step_that_cannot_be_prepared_leaves_no_trace(new_run: Any, touch: Any, tmp_path: Path) -> None:
    run, _, executor = new_run()
    with pytest.raises(OSError, match="prepare was told to fail"):
        executor.apply("0-x", touch(str(tmp_path / "a"), refuse="prepare"))
    assert read_journal(run.journal).entries == []


def test_what_cannot_be_undone_stays_open_and_does_not_stop_the_others(
    new_run: Any, touch: Any, tmp_path: Path, state: State
) -> None:
    run, _, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    executor.apply("0-x", touch(str(tmp_path / "b"), refuse="undo"))
    executor.apply("0-x", touch(str(tmp_path / "c")))
    reverted = executor.revert_all()
    assert [(one.entry.number, one.look.normal) for one in reverted] == [(2, True), (1, False), (0, True)]
    assert "undo was told to fail" in reverted[1].look.detail
    assert [entry.number for entry in executor.close()] == [1]
    assert state.open_runs() == [run], "it is left to squall recover"
    [found] = recover_orphans(state)
    assert found.residue == [
        f"touch {tmp_path / 'b'}: could not be undone: OSError: [Errno 5] undo was told to fail; by hand: rm {tmp_path / 'b'}"
    ]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_held_while_a_step_is_on(new_run: Any, touch: Any, tmp_path: Path) -> None:
    _, _, executor = new_run()
    before = open_descriptors()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    assert open_descriptors() == before + 1
    executor.revert_all()
    assert open_descriptors() == before


def test_two_runs_never_hold_the_same_thing(new_run: Any, touch: Any, tmp_path: Path) -> None:
    first, _, one = new_run("first")
    _, _, two = new_run("second")
    one.apply("0-x", touch(str(tmp_path / "a")))
    with pytest.raises(Conflict, match=rf"run first \({first.id}\) holds the same thing: touch"):
        two.apply("0-x", touch(str(tmp_path / "a")))
    one.revert_all()
    two.apply("0-x", touch(str(tmp_path / "a")))
    two.revert_all()


def test_nothing_starts_while_halted(new_run: Any, touch: Any, tmp_path: Path, state: State) -> None:
    _, _, executor = new_run()
    state.halt_flag.touch()
    with pytest.raises(Halted, match="halt --off"):
        executor.apply("0-x", touch(str(tmp_path / "a")))
    assert not (tmp_path / "a").exists()


def test_an_orphan_is_undone_by_whoever_comes_next_and_once(
    new_run: Any, touch: Any, tmp_path: Path, state: State
) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    assert recover_orphans(state) == [], "it is on"
    journal.release()  # as when engine and guardian are both gone
    [found] = recover_orphans(state, by="a test")
    assert [one.look.normal for one in found.reverted] == [True]
    assert read_journal(run.journal).entries[0].undone_by == "a test"
    assert recover_orphans(state) == []


def test_a_full_disk_keeps_a_step_from_being_done_but_never_from_being_undone(
    new_run: Any, touch: Any, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if fd == journal.fd:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        executor.apply("0-x", touch(str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()
    [reverted] = executor.revert_all()
    assert reverted.look.normal
    assert "not recorded" in reverted.look.detail
    assert not (tmp_path / "a").exists()
    monkeypatch.undo()
    executor.close()
    assert [one.residue for one in recover_orphans(state)] in ([], [[]])
    assert state.open_runs() == []
