"""The summary at the end of `squall run`: the verdict, what it rests on, and where the report is, in a dozen lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.hits import worded
from squall.reports.remarks import remarks
from squall.reports.wording import MISSING, duration, measure, number_of, one_line, within

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from squall.events import Finding
    from squall.reports.record import RunRecord

__all__ = ["print_summary", "run_summary", "to_text"]

_SIGNS = {"passed": "✓", "failed": "✗", "aborted": "■", "inconclusive": "?"}
_COLOURS = {"passed": "green", "failed": "red", "aborted": "magenta", "inconclusive": "yellow"}
_OUTCOMES = {"met": ("✓", "green"), "broken": ("✗", "red"), "unclear": ("?", "yellow")}
_FINDINGS_MAX = 12


def run_summary(record: RunRecord, report: Path | None = None) -> RenderableType:
    """The summary for a rich console; foreign text is never read as markup."""
    from rich.console import Group
    from rich.text import Text

    judgement = record.judgement
    colour = _COLOURS.get(judgement.verdict, "yellow")
    head = Text.assemble(
        (f"{_SIGNS.get(judgement.verdict, '?')} {one_line(judgement.verdict, 30)}", f"bold {colour}"),
        ("  " + one_line(record.name, 80), "bold"),
        (f"  ran {duration(record.length_s * 1e9)}", "dim"),
    )
    parts: list[RenderableType] = [head, Text(one_line(judgement.reason, 500), style="default")]
    parts += [Text(f"! {one_line(remark.text)}", style="yellow") for remark in remarks(record)]
    if judgement.findings:
        parts += [Text(), _table(judgement.findings)]
    parts += [Text(), _facts(record)]
    if report is not None:
        parts.append(Text.assemble(("report  ", "dim"), (str(report), "cyan"), no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _table(findings: tuple[Finding, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("expectation", overflow="fold", ratio=1)
    for phase in ("before", "during", "after"):
        table.add_column(phase, justify="right", no_wrap=True)
    rank = {"broken": 0, "unclear": 1}
    for finding in sorted(findings, key=lambda finding: rank.get(finding.outcome, 2))[:_FINDINGS_MAX]:
        sign, colour = _OUTCOMES.get(finding.outcome, ("?", "yellow"))
        numbers = [_number(finding, phase) for phase in ("before", "during", "after")]
        table.add_row(Text(sign, style=f"bold {colour}"), Text(one_line(finding.expectation, 120)), *map(Text, numbers))
    left = len(findings) - _FINDINGS_MAX
    if left > 0:
        table.add_row(Text(), Text(f"and {left} more in the report", style="dim"))
    return table


def _number(finding: Finding, phase: str) -> str:
    numbers = finding.numbers.get(phase)
    return measure(numbers.get("value"), finding.unit) if numbers else MISSING


def _facts(record: RunRecord) -> RenderableType:
    from rich.text import Text

    hits: list[str] = []
    for fault in record.faults:
        counted = worded(fault.hits, zeros=False)
        mechanisms = ", ".join(dict.fromkeys(one_line(plan.mechanism, 40) for plan in fault.plans))
        nothing = "nothing hit" if fault.hits else "hits not counted"
        hits.append(f"{one_line(fault.type, 60)} by {mechanisms or 'nothing'}: {counted or nothing}")
    open_steps = sum(step.state == "open" for step in record.undo)
    undone = (
        "nothing was changed"
        if not record.undo
        else f"{number_of(len(record.undo), 'step')}, {open_steps or 'none'} left open"
    )
    recover_ns = record.judgement.recover_ns
    recovered = f"in {duration(recover_ns)}" if recover_ns else within(recover_ns)
    lines = [
        ("faults  ", "; ".join(hits) or "nothing was injected"),
        (
            "times   ",
            f"detected in {duration(record.judgement.detect_ns)}, recovered {recovered}",
        ),
        ("undo    ", undone),
    ]
    text = Text()
    for number, (name, value) in enumerate(lines):
        text.append(("\n" if number else "") + name, style="dim")
        text.append(value)
    return text


def print_summary(record: RunRecord, report: Path | None = None) -> None:
    """Print the summary on standard output, in colour where that is a terminal."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False).print(run_summary(record, report), crop=False)


def to_text(record: RunRecord, report: Path | None = None, *, width: int = 100, colour: bool = False) -> str:
    """The summary as text of at most `width` columns (40 to 400), with ANSI colours where asked."""
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out, width=min(max(width, 40), 400), force_terminal=colour, color_system="standard" if colour else None,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    console.print(run_summary(record, report), crop=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
