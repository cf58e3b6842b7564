"""The undo log, from the journal and the events together: the journal knows what happened after the engine died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import JournalError
from squall.recovery.journal import read_journal
from squall.reports.record import Moment, UndoStep

if TYPE_CHECKING:
    from pathlib import Path

    from squall.recovery.journal import Entry
    from squall.reports.story import Story

__all__ = ["UndoLog", "read_undo_log"]


@dataclass(frozen=True, slots=True)
class UndoLog:
    """Every step of a run, and what only the journal tells; `alive` says that the run's engine still runs."""

    steps: tuple[UndoStep, ...]
    moments: tuple[Moment, ...] = ()
    alive: bool = False
    started_wall_ns: int = 0
    notes: tuple[str, ...] = ()

    @property
    def last_s(self) -> float:
        """When the last thing that it knows of happened."""
        return max((t for step in self.steps for t in (step.done_s, step.undone_s) if t is not None), default=0.0)

    def undone_s(self, fault: str) -> float | None:
        """When the last action of this fault was undone; None while one is open or nothing was undone."""
        steps = [step for step in self.steps if step.fault == fault]
        times = [step.undone_s for step in steps if step.undone_s is not None]
        return max(times) if times and not any(step.state == "open" for step in steps) else None


def read_undo_log(path: Path, story: Story) -> UndoLog:
    """Merge a run's journal into what its events tell; a journal that cannot be read is a note, not an error."""
    steps = dict(story.steps)
    if not path.is_file():
        return UndoLog(_in_order(steps))
    try:
        view = read_journal(path)
    except (JournalError, OSError, KeyError, TypeError) as error:
        return UndoLog(_in_order(steps), notes=(f"The journal cannot be read: {error}.",))
    start_ns = story.first.wall_ns if story.first else view.started_ns
    for entry in view.entries:
        steps[entry.number] = _merge(entry, steps.get(entry.number), start_ns)
    moments = [
        Moment(step.undone_s, "good" if step.verified else "bad", f"undone by {step.by}: {step.description}", step.detail)
        for step in _in_order(steps) if step.undone_s is not None and step.by != "engine"
    ]  # fmt: skip
    alive = not view.closed and story.finished is None and view.engine is not None and view.engine.same_process()
    notes = tuple(f"A line of the journal is left out: {damage}" for damage in view.damage[:10])
    return UndoLog(_in_order(steps), tuple(moments), alive, view.started_ns, notes)


def _in_order(steps: dict[int, UndoStep]) -> tuple[UndoStep, ...]:
    return tuple(steps[number] for number in sorted(steps))


def _merge(entry: Entry, told: UndoStep | None, start_ns: int) -> UndoStep:
    """One step as the journal has it, in the events' words and times where those tell of it."""
    done_s = (entry.done_ns - start_ns) / 1e9 if entry.done_ns else None
    undone_s = (entry.undone_ns - start_ns) / 1e9 if entry.undone_ns else None
    irreversible = entry.action.recoverability == "irreversible"
    undone = entry.look is not None and entry.look.normal
    by_event = told is not None and told.state == "undone" and told.by == entry.undone_by
    return UndoStep(
        entry=entry.number,
        fault=entry.fault,
        action=entry.action.kind,
        description=told.description if told is not None else entry.action.describe(),
        done_s=told.done_s if told is not None and told.done_s is not None else done_s,
        undone_s=told.undone_s if told is not None and by_event else undone_s,
        verified=entry.look.normal if entry.look is not None else None,
        by=entry.undone_by,
        detail=entry.failure or (entry.look.detail if entry.look is not None else ""),
        state="irreversible" if irreversible else "undone" if undone else "open",
        by_hand="" if irreversible or undone else entry.action.describe_undo(),
    )
