"""What runs left whose engine and guardian both died: found by an open marker without a lock, undone by whoever comes next."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.errors import Conflict, JournalError
from squall.kernel import proc
from squall.recovery.executor import Reverted, undo_entries
from squall.recovery.journal import Journal, read_journal
from squall.targets.limits import OWN_MARK

if TYPE_CHECKING:
    from squall.recovery.state import RunFolder, State

__all__ = ["Recovered", "recover_orphans", "recover_run"]

_WOKEN_S = 3.0
"""How long a guardian that was found stopped may take to undo everything."""


@dataclass(slots=True)
class Recovered:
    """What came of one orphan: the steps undone, and what could not be, in words (none, one trusts)."""

    run: RunFolder
    reverted: list[Reverted] = field(default_factory=list)
    residue: list[str] = field(default_factory=list)


def recover_orphans(state: State, by: str = "recover") -> list[Recovered]:
    """Undo every orphaned run, oldest first; runs that are on are left alone. Never raises for what one journal holds."""
    return [found for run in state.open_runs() if (found := recover_run(state, run, by)) is not None]


def recover_run(state: State, run: RunFolder, by: str = "recover") -> Recovered | None:
    """Undo one run if it is an orphan; None when it is on."""
    found = Recovered(run)
    try:
        journal = _adopt(run)
    except Conflict:
        return None
    except FileNotFoundError:  # killed between the marker and the journal: nothing was announced
        _close(state, run)
        return found
    except (JournalError, OSError) as error:
        found.residue.append(str(error))
        return found
    try:
        found.reverted = undo_entries(journal, by)
        found.residue += [
            f"{one.entry.action.describe()}: {one.look.detail}; by hand: {one.entry.action.describe_undo()}"
            for one in found.reverted
            if not one.look.normal
        ]
        found.residue += journal.view.damage
        if not found.residue:
            _close(state, run, journal)
    finally:
        journal.release()
    return found


def _close(state: State, run: RunFolder, journal: Journal | None = None) -> None:
    """Write down that nothing is open; on a disk that takes no more the marker stays, and whoever finds it looks again."""
    if journal is not None and not journal.view.closed:
        with contextlib.suppress(OSError):
            journal.close()
    run.remove_sockets()
    with contextlib.suppress(OSError):
        state.mark_closed(run)  # last: once the marker is gone nobody looks at this run again


def _adopt(run: RunFolder) -> Journal:
    """Take over the journal; a guardian that was stopped before its engine died is woken first, to do its work."""
    try:
        return Journal.adopt(run.journal)
    except Conflict:
        if not _wake(run):
            raise
    deadline = time.monotonic() + _WOKEN_S
    while True:
        try:
            return Journal.adopt(run.journal)
        except Conflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _wake(run: RunFolder) -> bool:
    """Let the stopped processes of a run go on whose engine is gone; whether there were any."""
    with contextlib.suppress(JournalError):
        engine = read_journal(run.journal).engine
        if engine is not None and engine.same_process():
            return False
    woken = False
    for pid in proc.carriers(OWN_MARK, run.id):
        stat = proc.read_stat(pid)
        if stat is not None and stat.stopped:
            with contextlib.suppress(PermissionError):
                woken = proc.send_signal(pid, stat.start_ticks, signal.SIGCONT) or woken
    return woken
