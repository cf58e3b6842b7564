"""How a run ended, and what can be said of it where it ended before it was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.record import Ending, Judgement
from squall.reports.wording import ago, moment

if TYPE_CHECKING:
    from squall.reports.journal import UndoLog
    from squall.reports.story import Story

__all__ = ["ending_of", "judgement_of"]


_BY = {"guardian": "the guardian", "recover": "`squall recover`", "halt": "`squall halt`", "boot": "the unit at boot"}


def ending_of(story: Story, journal: UndoLog, length_s: float) -> Ending:
    """Whether the run finished, runs on, or lost its engine; and then who undid what was open, and how soon."""
    open_steps = sum(step.state == "open" for step in journal.steps)
    finished = story.finished
    if finished is not None:
        residue = tuple(map(str, finished.residue))
        return Ending("finished", int(finished.exit_status), residue, story.signal, story.last_s, None, "", open_steps)
    if story.first is None and not journal.steps:
        return Ending("never-began")
    if journal.alive:
        return Ending("running", signal=story.signal, last_sign_s=max(story.last_s, length_s), open_steps=open_steps)
    rescued = [step for step in journal.steps if step.undone_s is not None and step.by not in ("", "engine")]
    last_sign_s = story.last_s
    after_s, by = None, ""
    if rescued:
        last = max(rescued, key=lambda step: step.undone_s or 0.0)
        after_s, by = max(0.0, (last.undone_s or 0.0) - last_sign_s), last.by
    return Ending("died", None, (), story.signal, last_sign_s, after_s, by, open_steps)


def judgement_of(story: Story, ending: Ending) -> Judgement:
    """What stands in for a verdict where the run was not judged: aborted if that is known, else inconclusive."""
    told = death(ending)
    if story.abort is not None:
        return Judgement("aborted", f"{story.abort.reason} {told}".strip(), by_analysis=False)
    if ending.how == "running":
        return Judgement("inconclusive", "The run is not over: this is what it has done so far.", by_analysis=False)
    if ending.how == "never-began":
        return Judgement("inconclusive", "The run has no events: it ended before it began.", by_analysis=False)
    if ending.how == "died":
        return Judgement("inconclusive", f"{told} The run was not judged.", by_analysis=False)
    interrupted = f"The run was interrupted by {story.signal} before it was judged." if story.signal else ""
    return Judgement("inconclusive", interrupted or "The run ended before it was judged.", by_analysis=False)


def death(ending: Ending) -> str:
    """A sentence on the engine's death and what came after; empty where it did not die."""
    if ending.how != "died":
        return ""
    died = f"The engine died; its last sign of life is from {moment(ending.last_sign_s)}"
    if ending.open_steps:
        steps = "1 step is" if ending.open_steps == 1 else f"{ending.open_steps} steps are"
        return f"{died}; {steps} not undone yet: run `squall recover`."
    if ending.after_death_s is None:
        return f"{died}; nothing was open then."
    by = _BY.get(ending.recovered_by, ending.recovered_by)
    return f"{died}; {by} had undone everything {ago(ending.after_death_s)} later."
