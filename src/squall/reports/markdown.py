"""The report as Markdown for a pull request's comment: short, and deaf to whatever markup a name may hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from squall.reports.hits import worded
from squall.reports.remarks import remarks
from squall.reports.wording import (
    MISSING,
    clock,
    duration,
    measure,
    moment,
    number_of,
    one_line,
    percent,
    printable,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from squall.reports.record import RunRecord

__all__ = ["escape", "fence", "table", "to_markdown"]

_MARKS = {"passed": "✅", "failed": "❌", "aborted": "🛑", "inconclusive": "❔"}
_OUTCOMES = {"met": "✅ met", "broken": "❌ broken", "unclear": "❔ cannot tell"}
_SOURCE_LINES_MAX = 200
_STEPS_MAX = 40
_SPECIAL = re.compile(
    r"(?P<reference>[@#](?=\w)|:(?=//)|(?<![\w/])w(?=ww\.))|[\\`*_{}\[\]()#+!|~<>&$]|^[-=]", re.IGNORECASE
)
_NO_SPACE = "&#8203;"
"""A space without width: it parts what a forge would otherwise take for a mention, an issue or a link."""


def escape(text: object, most: int = 300) -> str:
    """Foreign text for Markdown, on one line: a name can be no link, image, tag, table cell, heading nor mention.

    What means something in Markdown becomes an HTML entity. Mentions and links are looked for in the rendered text too,
    where an entity does not hide them, so these are parted.
    """
    return _SPECIAL.sub(_harmless, one_line(text, most))


def _harmless(match: re.Match[str]) -> str:
    return match[0] + _NO_SPACE if match["reference"] else f"&#{ord(match[0])};"


def fence(text: str, language: str) -> str:
    """A code block whose fence is longer than any row of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are escaped already."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def to_markdown(record: RunRecord) -> str:
    """The report as Markdown text."""
    judgement = record.judgement
    parts = [
        f"## {_MARKS.get(judgement.verdict, '')} {escape(record.name)}: {escape(judgement.verdict, 30)}",
        f"**{escape(judgement.reason, 600)}**",
        escape(record.description, 600),
        "\n".join(f"> {escape(remark.text, 600)}" for remark in remarks(record)),
        _summary(record),
        _findings(record),
        _faults(record),
        _undo(record),
        _source(record),
        _footer(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _footer(record: RunRecord) -> str:
    parts = [f"run {record.run}", clock(record.started_wall_ns), f"seed {record.seed}", f"squall {record.squall}"]
    parts += [f"trace {record.trace_id}"] if record.trace_id else []
    return f"<sub>{' · '.join(escape(part, 120) for part in parts)}</sub>"


def _summary(record: RunRecord) -> str:
    main = record.main
    rows = []
    if main is not None:
        rows.append([f"p95 of {escape(main.name)}", *(escape(duration(stats.p95_ns)) for stats in main.phases)])
        rows.append([f"errors of {escape(main.name)}", *(escape(percent(stats.error_rate)) for stats in main.phases)])
    times = (
        f"Time to detect {duration(record.judgement.detect_ns)}, time to recover {within(record.judgement.recover_ns)}."
    )
    return "\n\n".join([table(["", "before", "during", "after"], rows), escape(times)] if rows else [escape(times)])


def _findings(record: RunRecord) -> str:
    rows = []
    for finding in record.judgement.findings:
        numbers = [_number(finding.numbers.get(phase), finding.unit) for phase in ("before", "during", "after")]
        name = f"{escape(finding.expectation)}<br>{escape(finding.reason)}"
        rows.append(
            [_OUTCOMES.get(finding.outcome, escape(finding.outcome)), name, escape(finding.series, 80), *numbers]
        )
    return (
        "### Expectations\n\n" + table(["", "expectation", "series", "before", "during", "after"], rows) if rows else ""
    )


def _number(numbers: dict[str, float] | None, unit: str) -> str:
    if not numbers or numbers.get("value") is None:
        return MISSING
    low, high = measure(numbers.get("low"), unit), measure(numbers.get("high"), unit)
    return f"{escape(measure(numbers['value'], unit))}<br><sub>{escape(f'{low} to {high}')}</sub>"


def _faults(record: RunRecord) -> str:
    rows = []
    for fault in record.faults:
        mechanisms = ", ".join(dict.fromkeys(plan.mechanism for plan in fault.plans)) or "none"
        on_s = sum(window.end_s - window.start_s for window in fault.windows)
        hits = worded(fault.hits) or "not counted"
        targets = ", ".join(target.title for target in fault.targets[:5]) or "none"
        rows.append(
            [escape(fault.type), escape(targets), escape(mechanisms), escape(duration(on_s * 1e9)), escape(hits)]
        )
    return (
        "### Injected\n\n" + table(["fault", "target", "mechanism", "on for", "hits"], rows)
        if rows
        else "Nothing was injected."
    )


def _undo(record: RunRecord) -> str:
    if not record.undo:
        return ""
    rows = []
    for step in record.undo[:_STEPS_MAX]:
        seen = {"undone": "back to normal", "open": "**not undone**", "irreversible": "nothing to undo"}[step.state]
        times = [moment(at_s) if at_s is not None else MISSING for at_s in (step.done_s, step.undone_s)]
        rows.append([escape(step.description), *map(escape, times), escape(step.by) or MISSING, seen])
    open_steps = sum(step.state == "open" for step in record.undo)
    title = f"Undo log: {number_of(len(record.undo), 'step')}, {open_steps or 'none'} open"
    body = table(["step", "done", "undone", "by", "looked at"], rows)
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _source(record: RunRecord) -> str:
    lines = printable(record.source).splitlines()
    if not lines:
        return ""
    if len(lines) > _SOURCE_LINES_MAX:
        lines = [*lines[:_SOURCE_LINES_MAX], f"# ... {len(lines) - _SOURCE_LINES_MAX} more lines"]
    return "<details><summary>The document</summary>\n\n" + fence("\n".join(lines), "yaml") + "\n\n</details>"
