"""What a run comes to: from its times, its samples and what ended it to a verdict and an exit status."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.analysis import Facts, Timeline, judge
from squall.errors import JournalError, ResidueError, SquallError
from squall.probes.samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from squall.engine.stages import Driven
    from squall.engine.watchdog import Ending
    from squall.events import Verdict, VerdictReached
    from squall.experiment.model import Experiment
    from squall.recovery import Entry, RunFolder

__all__ = ["Conclusion", "Outcome", "Times", "residue_of"]

_EXIT_STATUS: dict[Verdict, int] = {"passed": 0, "failed": 1, "aborted": 3, "inconclusive": 6}
_RESIDUE, _INTERRUPTED = 5, 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its folder, its verdict and what the command line exits with."""

    run: RunFolder
    verdict: Verdict
    exit_status: int
    reason: str = ""
    residue: tuple[str, ...] = ()


@dataclass(slots=True)
class Times:
    """When the stages were, CLOCK_MONOTONIC ns; 0: not reached."""

    baseline_ns: int = 0
    fault_ns: int = 0
    recovered_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What is known of a run at its end; `error` is what kept it from going on, if anything did."""

    times: Times
    ending: Ending
    facts: Facts
    error: SquallError | None
    faults: Sequence[Driven]

    def verdict(self, experiment: Experiment, run: RunFolder) -> VerdictReached:
        """Judge the samples in the run's folder."""
        timeline = self._timeline()
        try:
            series = read_samples(run.samples)
        except (OSError, JournalError):  # none were taken, or the disk took none: that cannot pass
            series = {}
        verdict = judge(experiment, series, timeline, self._facts(injected=bool(timeline.faults)))
        if self.error is not None and not timeline.faults:
            verdict = replace(verdict, reason=f"nothing was injected: {self.error}")
        return verdict

    def exit_status(self, verdict: Verdict, residue: Sequence[str]) -> int:
        """Where several apply: 5 residue, 130 interrupted, 3 aborted, 4 could not inject, 6 inconclusive, 1 failed, 0 passed."""
        if residue or isinstance(self.error, ResidueError):
            return _RESIDUE
        if self.ending.cause == "interrupted":
            return _INTERRUPTED
        if verdict != "aborted" and self.error is not None:
            return self.error.exit_status
        return _EXIT_STATUS[verdict]

    def _timeline(self) -> Timeline:
        spans = tuple(sorted(span for driven in self.faults for span in driven.spans))
        end_ns = self.times.end_ns
        return Timeline(self.times.baseline_ns or end_ns, spans, self.times.recovered_ns if spans else 0, end_ns)

    def _facts(self, *, injected: bool) -> Facts:
        cause, reason = self.ending.cause, self.ending.reason
        interrupted = reason if cause == "interrupted" or (cause == "error" and not self.facts.lease_lapsed) else ""
        return replace(
            self.facts,
            aborted=reason if cause not in (None, "interrupted", "error") else "",
            interrupted=interrupted or (str(self.error) if self.error is not None and injected else ""),
            not_injected=str(self.error) if self.error is not None and not injected else self.facts.not_injected,
            never_hit=", ".join(driven.planned.id for driven in self.faults if driven.hit_nothing),
            targets_lost=tuple(
                label for driven in self.faults if driven.planned.step.fault.reversible for label in driven.lost
            ),
        )


def residue_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """What is left behind, in words: what it is, what was seen of it, and how to remove it by hand."""
    return tuple(
        f"{entry.action.describe()}: {entry.look.detail if entry.look else 'not undone'}; by hand: {entry.action.describe_undo()}"
        for entry in entries
    )
