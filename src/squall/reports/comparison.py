"""Two runs side by side, aligned at the moment when their faults began: as Markdown, for a terminal, and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.analysis import Comparison, Timeline, compare
from squall.analysis.compare import Measured
from squall.reports.loading import load_run, read_columns
from squall.reports.markdown import escape, table
from squall.reports.wording import duration, measure, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.analysis import Difference
    from squall.reports.record import RunRecord

__all__ = [
    "CHANGES",
    "TwoRuns",
    "compare_runs",
    "comparison_to_markdown",
    "comparison_to_text",
    "sentence",
    "shown",
    "signed",
]

CHANGES = {"better": "better", "worse": "worse", "same": "the same", "unclear": "cannot tell"}
"""The words for each kind of change, of the second run against the first."""

_MARKS = {"better": "✅", "worse": "❌", "same": "=", "unclear": "❔"}
_WHATS = {"errorRate": "errors"}


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
    if recovery in ("better", "worse"):
        parts.append(f"recovery is {recovery}")
    if not parts:
        return "Nothing differs by more than chance and by enough to matter."
    return f"Against {two.a.run}: {', '.join(parts)}. A difference that is not chance is not yet an effect of what was changed."


def signed(difference: Difference, value: float) -> str:
    """A difference with its sign, in its unit."""
    return ("+" if value > 0 else "") + (
        f"{value * 100:.3g} points" if difference.unit == "ratio" else duration(value) if value else "0 s"
    )


def _cells(difference: Difference) -> list[str]:
    interval = f"{signed(difference, difference.low)} to {signed(difference, difference.high)}"
    return [
        one_line(difference.series, 60),
        difference.phase,
        _WHATS.get(difference.what, difference.what),
        measure(difference.a.value, difference.unit),
        measure(difference.b.value, difference.unit),
        signed(difference, difference.value),
        interval,
        CHANGES[difference.change],
    ]


_HEAD = ("series", "phase", "number", "a", "b", "b - a", "95 % interval", "b is")


def _facts(two: TwoRuns) -> Iterator[tuple[str, str, str]]:
    """What else can be set side by side: a name, a's and b's."""
    a, b = two.a, two.b
    yield "run", one_line(a.run, 120), one_line(b.run, 120)
    yield "verdict", one_line(a.judgement.verdict, 30), one_line(b.judgement.verdict, 30)
    yield "time to detect", duration(a.judgement.detect_ns), duration(b.judgement.detect_ns)
    yield "time to recover", duration(a.judgement.recover_ns), duration(b.judgement.recover_ns)
    yield "seed", str(a.seed), str(b.seed)
    for name, owner in two.comparison.only_in.items():
        where = [one_line(name, 80) if owner == record.run else "" for record in (a, b)]
        yield "series only in one", where[0], where[1]


def comparison_to_markdown(two: TwoRuns) -> str:
    """The comparison as Markdown for a pull request's comment."""
    rows = [[*map(escape, cells[:-1]), f"{_MARKS[d.change]} {cells[-1]}"] for d in shown(two) for cells in [_cells(d)]]
    parts = [
        f"## {escape(two.a.name)} against {escape(two.b.name)}",
        f"**{escape(sentence(two), 600)}**",
        table(["", "a", "b"], [[escape(cell) for cell in fact] for fact in _facts(two)]),
        table(_HEAD, rows) if rows else "The runs have no series of requests in common.",
    ]
    return "\n\n".join(parts) + "\n"


def comparison_to_text(two: TwoRuns) -> str:
    """The comparison as plain lines for a terminal, in columns."""
    facts = [["", "a", "b"], *(list(fact) for fact in _facts(two))]
    rows = [list(_HEAD), *(_cells(difference) for difference in shown(two))]
    return "\n\n".join([sentence(two), _columns(facts), _columns(rows)]) + "\n"


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
