"""The journal: durable, one writer, forgiving of a torn end and of nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.errors import Conflict, JournalError
from squall.recovery import Journal, read_journal, recover_orphans

if TYPE_CHECKING:
    from pathlib import Path

    from squall.recovery import State


def test_what_is_written_is_read_back(new_run: Any, touch: Any, tmp_path: Path) -> None:
    run, _journal, executor = new_run()
    entry = executor.apply("0-x", touch(str(tmp_path / "a")))
    view = read_journal(run.journal)
    assert (view.run, view.name, view.closed) == (run.id, "a-run", False)
    assert [(one.fault, one.action, one.open) for one in view.entries] == [("0-x", entry.action, True)]
    executor.revert_all()
    assert executor.close() == []
    view = read_journal(run.journal)
    assert view.closed
    assert view.entries[0].look is not None
    assert view.entries[0].look.normal
    assert view.entries[0].undone_by == "engine"


def test_a_held_journal_cannot_be_adopted(new_run: Any) -> None:
    run, journal, _ = new_run()
    with pytest.raises(Conflict):
        Journal.adopt(run.journal)
    journal.release()
    Journal.adopt(run.journal).release()


def test_a_torn_end_is_ignored_and_cut_off_before_anything_is_appended(
    new_run: Any, touch: Any, tmp_path: Path, state: State
) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    journal.release()
    with run.journal.open("ab") as file:
        file.write(b'{"n":0,"op":"und')
    assert len(read_journal(run.journal).open_entries) == 1
    [found] = recover_orphans(state)
    assert found.residue == []
    assert not (tmp_path / "a").exists()
    assert all(json.loads(line) for line in run.journal.read_text().splitlines())


def test_a_damaged_line_does_not_keep_the_rest_from_being_undone(
    new_run: Any, touch: Any, tmp_path: Path, state: State
) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    journal.release()
    lines = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(lines[0] + b"\x00\xff garbage\n" + b"".join(lines[1:]))
    [found] = recover_orphans(state)
    assert not (tmp_path / "a").exists()
    assert len(found.residue) == 1
    assert "journal.jsonl:2 cannot be read" in found.residue[0]
    assert [one.residue for one in recover_orphans(state)] == [found.residue], "it is said until somebody forgets it"


def test_a_newer_journal_is_refused_and_not_touched(new_run: Any, state: State) -> None:
    run, journal, _ = new_run()
    journal.release()
    data = run.journal.read_bytes().replace(b'"squall-journal":1', b'"squall-journal":2')
    run.journal.write_bytes(data)
    with pytest.raises(JournalError, match="newer Squall"):
        read_journal(run.journal)
    [found] = recover_orphans(state)
    assert "newer Squall" in found.residue[0]
    assert run.journal.read_bytes() == data


def test_a_step_of_an_unknown_kind_is_damage(new_run: Any, touch: Any, tmp_path: Path, state: State) -> None:
    run, journal, executor = new_run()
    executor.apply("0-x", touch(str(tmp_path / "a")))
    journal.release()
    run.journal.write_bytes(run.journal.read_bytes().replace(b"test-touch", b"teleport"))
    [found] = recover_orphans(state)
    assert any("unknown kind 'teleport'" in line for line in found.residue)


@pytest.mark.parametrize("content", [b"", b'{"squall-jour'])
def test_a_journal_whose_first_line_never_got_there_announced_nothing(state: State, content: bytes) -> None:
    run = state.new_run("x")
    state.mark_open(run)
    run.journal.write_bytes(content)
    [found] = recover_orphans(state)
    assert found.residue == []
    assert state.open_runs() == []


def test_a_marker_without_a_journal_is_taken_away(state: State) -> None:
    state.mark_open(state.new_run("x"))
    assert [one.residue for one in recover_orphans(state)] == [[]]
    assert state.open_runs() == []


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), cut=st.integers(0, 2000))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    path.write_bytes(
        (b'{"squall-journal":1,"run":"r","name":"n","boot":"b","engine":null,"wall_ns":1}\n' + data + b"\n")[:cut]
    )
    try:
        view = read_journal(path)
    except JournalError:
        return
    assert view.open_entries == []


def test_the_room_is_set_aside_without_changing_the_length(new_run: Any) -> None:
    run, _, _ = new_run()
    info = run.journal.stat()
    assert info.st_size < 1000
    assert info.st_blocks * 512 >= 64 * 1024 or info.st_blocks == 0, "where the file system cannot, it goes without"
