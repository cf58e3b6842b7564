"""What runs left whose engine and guardian both died: found by an open marker without a lock, undone by whoever comes next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.errors import Conflict, JournalError
from squall.recovery.executor import Reverted, undo_entries
from squall.recovery.journal import Journal

if TYPE_CHECKING:
    from squall.recovery.state import RunFolder, State

__all__ = ["Recovered", "recover_orphans", "recover_run"]


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
        journal = Journal.adopt(run.journal)
    except Conflict:
        return None
    except FileNotFoundError:  # killed between the marker and the journal: nothing was announced
        state.mark_closed(run)
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
            if not journal.view.closed:
                journal.close()
            state.mark_closed(run)
            run.control.unlink(missing_ok=True)
    except OSError as error:
        found.residue.append(f"{run.journal}: {error.strerror}")
    finally:
        journal.release()
    return found
