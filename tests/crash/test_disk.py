"""A disk that is full, read-only, or that takes no more of this process, from any point of a run on.

The run ends with a message that says so, the target is back to normal, and nothing is left but the run's files.
"""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

import pytest

from squall.actions import Look, Pause
from squall.engine.clock import SystemClock
from squall.engine.log import EventLog
from squall.events import Problem, decode
from squall.recovery import Journal, read_journal
from squall.targets import ProcessIdentity
from tests.crash.test_matrix import ALL, spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.world import World

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SAID = {
    "disk-full": "No space left on device",
    "disk-read-only": "Read-only file system",
    "files-no-larger": "File too large",
}
DEATHS = (*SAID, "disk-full-engine", "disk-read-only-engine", "disk-full-both", "disk-read-only-both")
"""The last four: who is killed right after; the guardian, or the next command, has a disk that takes no more."""
SCENARIOS = ("pause", "file-limit", "toxic-tcp", "worker-cpu", "pulses")


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_run_ends_clearly_and_leaves_nothing(small_world: World, scenario: str, death: str) -> None:
    world = small_world
    count = len(world.points(scenario))
    for run in world.state.all_runs():
        world.forget(run)
    told = 0
    for at in spread(count, 24 if ALL else 2, 0.2 * DEATHS.index(death) % 1):
        ended = world.run(scenario, death=death, at=at)
        where = f"{scenario}: {death} {ended.point} (status {ended.status})\n{ended.log}"
        try:
            world.expect_target_normal(ended, recover=death.endswith("-both"))  # while the disk is as bad as before
        finally:
            world.tidy()
        try:
            world.expect_normal(ended, recover=True, kept=False)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        assert "Traceback" not in ended.log, where
        if death not in SAID:
            continue
        assert ended.status in (100, 101, 104, 106), where
        told += SAID[death] in ended.log
        if ended.status == 104:
            assert SAID[death] in ended.log, where
    assert told or death not in SAID, f"no run of {scenario} said {SAID[death]!r}"


@contextlib.contextmanager
def no_larger(path: Path, more: int) -> Iterator[None]:
    """Only so many bytes more can be written to this file, and to any other as large."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_a_line_does_not_spoil_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal.create(path, "a-run", "a-name")
    entry = journal.intend("0-process.pause", Pause(ProcessIdentity.mine(), "itself"))  # never done
    with no_larger(path, 10), pytest.raises(OSError, match=r"File too large: .*journal\.jsonl"):
        journal.done(entry)
    journal.undone(entry, Look(normal=True, detail="as before"), "engine")
    journal.close()
    view = read_journal(path)
    assert view.damage == []
    assert view.closed
    assert view.entries[0].look == Look(normal=True, detail="as before")


def test_half_a_line_does_not_spoil_the_events(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, "a-run", SystemClock())
    log.emit(Problem("0-x", "first"))
    with no_larger(path, 10):
        log.emit(Problem("0-x", "lost"))
    assert log.failure is not None
    log.emit(Problem("0-x", "last"))
    log.close()
    assert [decode(line).event for line in path.read_text().splitlines()] == [
        Problem("0-x", "first"),
        Problem("0-x", "last"),
    ]
