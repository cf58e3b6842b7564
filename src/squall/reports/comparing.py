"""The comparison of two runs in every format: what `squall compare` shows."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from squall.reports.html.side_by_side import to_html
from squall.reports.markdown import escape, table
from squall.reports.two_runs import CHANGES, TwoRuns, compare_runs, sentence, shown, signed
from squall.reports.wording import duration, measure, one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from squall.analysis import Difference

__all__ = ["TwoRuns", "load", "to_html", "to_json", "to_markdown", "to_text"]

VERSION = 1

_MARKS = {"better": "✅", "worse": "❌", "same": "=", "unclear": "❔"}
_WHATS = {"errorRate": "errors"}


def load(a: Path, b: Path) -> TwoRuns:
    """Read two runs' folders and compare `b` against `a`; InputError where one is no run's folder."""
    return compare_runs(a, b)


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


def to_markdown(two: TwoRuns) -> str:
    """The comparison as Markdown for a pull request's comment."""
    rows = [[*map(escape, cells[:-1]), f"{_MARKS[d.change]} {cells[-1]}"] for d in shown(two) for cells in [_cells(d)]]
    parts = [
        f"## {escape(two.a.name)} against {escape(two.b.name)}",
        f"**{escape(sentence(two), 600)}**",
        table(["", "a", "b"], [[escape(cell) for cell in fact] for fact in _facts(two)]),
        table(_HEAD, rows) if rows else "The runs have no series of requests in common.",
    ]
    return "\n\n".join(parts) + "\n"


def to_text(two: TwoRuns) -> str:
    """The comparison as plain lines for a terminal, in columns."""
    facts = [["", "a", "b"], *(list(fact) for fact in _facts(two))]
    rows = [list(_HEAD), *(_cells(difference) for difference in shown(two))]
    return "\n\n".join([sentence(two), _columns(facts), _columns(rows)]) + "\n"


def to_json(two: TwoRuns) -> str:
    """The comparison as one versioned JSON document: both runs, and each difference with its interval (ns or a ratio)."""
    runs = {
        letter: {
            "run": printable(record.run),
            "name": printable(record.name),
            "verdict": record.judgement.verdict,
            "detect_ns": record.judgement.detect_ns,
            "recover_ns": record.judgement.recover_ns,
        }
        for letter, record in (("a", two.a), ("b", two.b))
    }
    whole = {
        "squall-comparison": VERSION,
        **runs,
        "sentence": sentence(two),
        "recovery": two.comparison.recovery,
        "differences": [dataclasses.asdict(difference) for difference in shown(two)],
        "only_in": {printable(name): printable(run) for name, run in two.comparison.only_in.items()},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
