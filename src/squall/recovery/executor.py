"""Does and undoes steps: intent on disk, do, done on disk; on the way back undo, verify, undone on disk."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.actions import Action, Adjustable, Look
from squall.errors import ActionFailed, CannotInject, Conflict, Halted, JournalError, SquallError
from squall.recovery.journal import Entry, Journal, read_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from squall.recovery.state import RunFolder, State

__all__ = ["Executor", "Reverted", "undo_entries"]


@dataclass(frozen=True, slots=True)
class Reverted:
    """What came of undoing one entry."""

    entry: Entry
    look: Look


class Executor:
    """The steps of one run. Thread-safe; it alone owns the descriptors that keep steps on."""

    def __init__(self, state: State, run: RunFolder, journal: Journal) -> None:
        self._state, self._run, self._journal = state, run, journal
        self._held: dict[int, Sequence[int]] = {}
        self._lock = threading.RLock()

    def check(self, actions: Iterable[Action]) -> None:
        """Raise Conflict, naming the other run, when another run holds what these would touch; changes nothing."""
        wanted = {name for action in actions for name in action.objects()}
        for other in self._state.open_runs():
            if other.id == self._run.id:
                continue
            try:
                view = read_journal(other.journal)
            except JournalError as error:
                raise Conflict(f"whether run {other.id} holds the same thing cannot be told: {error}") from error
            for entry in view.open_entries:
                both = wanted & set(entry.objects)
                if both:
                    raise Conflict(
                        f"run {view.name} ({other.id}) holds the same thing: {entry.action.describe()} [{min(both)}]"
                    )

    def apply(self, fault: str, action: Action) -> Entry:
        """Do one step; when it fails it is undone, and the error says whether the machine is back to normal.

        CannotInject (nothing was touched) from the step's own preparation, a conflict or a halt; ActionFailed when the
        step itself failed.
        """
        with self._lock:
            if self._state.halted:
                raise Halted(
                    f"squall is halted ({self._state.halt_flag}): nothing new starts until `squall halt --off`"
                )
            complete = action.prepare()
            with self._state.locked():
                self.check([complete])
                entry = self._journal.intend(fault, complete)
            try:
                self._held[entry.number] = complete.do()
                self._journal.done(entry)
            except BaseException as error:
                reverted = self._revert(entry)
                if isinstance(error, (OSError, SquallError)) and not isinstance(error, CannotInject):
                    state = "taken back" if reverted.look.normal else f"NOT back to normal ({reverted.look.detail})"
                    raise ActionFailed(f"could not {complete.describe()}: {error}; it was {state}") from error
                raise
            return entry

    def adjust(self, entry: Entry, action: Action) -> bool:
        """Change a step that is on to new arguments without a gap; False when it cannot."""
        with self._lock:
            if not entry.open or not isinstance(entry.action, Adjustable):
                return False
            before = entry.action
            self._journal.adjusted(entry, action)
            if entry.action.become(action, self._held.get(entry.number, ())):
                return True
            self._journal.adjusted(entry, before)
            return False

    def revert(self, entries: Iterable[Entry]) -> list[Reverted]:
        """Undo these, last first, whatever happens to any of them; what is already undone is left alone."""
        with self._lock:
            return [self._revert(entry) for entry in sorted(entries, key=lambda e: -e.number) if entry.open]

    def revert_all(self) -> list[Reverted]:
        """Undo everything that is open, last first."""
        return self.revert(list(self._journal.view.entries))

    @property
    def open_entries(self) -> list[Entry]:
        """What is in force."""
        return self._journal.view.open_entries

    def _revert(self, entry: Entry) -> Reverted:
        for fd in self._held.pop(entry.number, ()):
            os.close(fd)
        return undo_entry(self._journal, entry, "engine")

    def close(self, farewell: Callable[[], None] | None = None) -> list[Entry]:
        """Close the journal when nothing is open; else leave it for `squall recover` and return what is open.

        `farewell` is called in between: while the run's marker is there the next command finds it, should the guardian
        never leave. On a disk that takes no more, the marker may stay although nothing is open: that is harmless.
        """
        left = self.open_entries
        if not left:
            with contextlib.suppress(OSError):
                self._journal.close()
        self._journal.release()
        if farewell is not None:
            farewell()
        if not left:
            with contextlib.suppress(OSError):
                self._state.mark_closed(self._run)
        return left


def undo_entry(journal: Journal, entry: Entry, by: str) -> Reverted:
    """Undo and look; errors become part of what was seen, a full disk does not stop the undoing."""
    look = _undone(entry.action)
    try:
        journal.undone(entry, look, by)
    except OSError as error:
        # The machine is as `look` says; only the record is missing, so whoever reads it will undo once more: harmless.
        entry.look = look
        look = Look(look.normal, f"{look.detail}; not recorded: {error.strerror}")
    return Reverted(entry, look)


def _undone(action: Action) -> Look:
    """Undo it and look; where undoing fails, what is seen decides: a step that was never done needs no undoing."""
    trouble = ""
    try:
        action.undo()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other steps must still be undone, and it must be said
        trouble = f"could not be undone: {type(error).__name__}: {error}"
    try:
        look = action.verify()
    except Exception as error:  # noqa: BLE001 - as above
        return Look(normal=False, detail=trouble or f"could not be looked at: {type(error).__name__}: {error}")
    if not trouble:
        return look
    return Look(look.normal, f"{look.detail}, although it {trouble}" if look.normal else trouble)


def undo_entries(journal: Journal, by: str, told: Callable[[Reverted], None] | None = None) -> list[Reverted]:
    """Undo everything open in a journal, last first."""
    done = []
    for entry in reversed(journal.view.open_entries):
        reverted = undo_entry(journal, entry, by)
        done.append(reverted)
        if told is not None:
            told(reverted)
    return done
