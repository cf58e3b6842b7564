"""Two runs and what differs between them, in the order and words that every format of the comparison shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.analysis import Comparison, Timeline, compare
from squall.analysis.compare import Measured
from squall.reports.loading import load_run, read_columns
from squall.reports.wording import duration

if TYPE_CHECKING:
    from squall.analysis import Difference
    from squall.reports.record import RequestSeries, RunRecord

__all__ = ["CHANGES", "TwoRuns", "compare_runs", "pairs_of", "sentence", "shown", "signed"]

CHANGES = {"better": "better", "worse": "worse", "same": "the same", "unclear": "cannot tell"}
"""The words for each kind of change, of the second run against the first."""


@dataclass(frozen=True, slots=True)
class TwoRuns:
    """Two runs and what differs between them: `a` is what `b` is held against."""

    a: RunRecord
    b: RunRecord
    comparison: Comparison


def compare_runs(a: Path, b: Path) -> TwoRuns:
    """Read two runs' folders and compare what they measured; InputError where one is no run's folder."""
    records = load_run(Path(a)), load_run(Path(b))
    one, other = (_measured(record) for record in records)
    return TwoRuns(*records, compare(one, other, records[0].seed))


def _measured(record: RunRecord) -> Measured:
    columns, _ = read_columns(record.folder / "samples.bin")
    return Measured(
        record.run, {series.name: series for series in columns}, _timeline(record), record.judgement.recover_ns
    )


def _timeline(record: RunRecord) -> Timeline:
    def ns(at_s: float) -> int:
        return record.started_mono_ns + round(at_s * 1e9)

    spans = tuple((ns(window.start_s), ns(window.end_s)) for fault in record.faults for window in fault.windows)
    return Timeline(record.started_mono_ns, spans, 0, ns(record.length_s))


def shown(two: TwoRuns) -> list[Difference]:
    """The differences in the order of interest: of requests only, phase by phase, clear changes first."""
    requests = {series.name for record in (two.a, two.b) for series in record.requests}
    order = {"worse": 0, "better": 1, "unclear": 2, "same": 3}
    phases = {"during": 0, "after": 1, "before": 2}
    found = [d for d in two.comparison.differences if d.series in requests]
    return sorted(found, key=lambda d: (d.series, phases[d.phase], order[d.change]))


def sentence(two: TwoRuns) -> str:
    """What a person who reads one line reads."""
    changed = {change: [d for d in shown(two) if d.change == change] for change in ("worse", "better")}
    parts = [
        f"{len(found)} {'number is' if len(found) == 1 else 'numbers are'} {change}"
        for change, found in changed.items()
        if found
    ]
    recovery = two.comparison.recovery
    judged = two.a.judgement.by_analysis and two.b.judgement.by_analysis
    if judged and recovery in ("better", "worse"):
        parts.append(f"recovery is {recovery}")
    if not parts:
        return "Nothing differs by more than chance and by enough to matter."
    return f"Against {two.a.run}: {', '.join(parts)}. A difference that is not chance is not yet an effect of what was changed."


def signed(difference: Difference, value: float) -> str:
    """A difference with its sign, in its unit."""
    return ("+" if value > 0 else "") + (
        f"{value * 100:.3g} points" if difference.unit == "ratio" else duration(value) if value else "0 s"
    )


def pairs_of(two: TwoRuns) -> list[tuple[RequestSeries, RequestSeries]]:
    """The series of requests that both runs have, the one with the most requests first."""
    others = {series.name: series for series in two.b.requests}
    both = [(series, others[series.name]) for series in two.a.requests if series.name in others]
    return sorted(both, key=lambda pair: -(pair[0].requests + pair[1].requests))
