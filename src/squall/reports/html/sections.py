"""The parts of a report's page, each one function from the record to markup."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from squall.events import PASSED_BY
from squall.reports.hits import counts_of
from squall.reports.html.documents import coloured
from squall.reports.html.gauges import gauges
from squall.reports.html.parts import pairs, section
from squall.reports.html.tags import Child, Html, el
from squall.reports.html.verdicts import badge, expectations
from squall.reports.remarks import remarks
from squall.reports.wording import MISSING, clock, count, duration, moment, one_line, percent, printable, within

if TYPE_CHECKING:
    from squall.reports.record import Moment, Phase, RunRecord

__all__ = [
    "again",
    "cards",
    "document",
    "findings",
    "gauge_section",
    "headline",
    "timeline",
    "warnings",
]


def headline(record: RunRecord) -> Html:
    """The verdict with its reason: what a person who reads one line reads."""
    types = ", ".join(dict.fromkeys(fault.type for fault in record.faults)) or "nothing injected"
    facts = [
        clock(record.started_wall_ns),
        f"ran {duration(record.length_s * 1e9)}",
        types,
        f"run {one_line(record.run, 100)}",
    ]
    return el(
        "header",
        el("p", el("span", _mark(), "Squall", class_="brand"), el("span", "experiment report"), class_="kicker"),
        el("h1", one_line(record.name, 120)),
        el("p", one_line(record.description, 600), class_="description") if record.description else None,
        el(
            "div", badge(record.judgement.verdict), el("p", one_line(record.judgement.reason, 600)),
            class_=f"verdict {record.judgement.verdict}",
        ),
        el("ul", *(el("li", fact) for fact in facts), class_="facts"),
    )  # fmt: skip


def _mark() -> Html:
    return el(
        "svg",
        el("path", d="M3 8h11a3 3 0 1 0-3-3M3 12h15a3 3 0 1 1-3 3M3 16h8a2.5 2.5 0 1 1-2.5 2.5"),
        viewBox="0 0 24 24",
        class_="mark",
        aria_hidden="true",
    )


def warnings(record: RunRecord) -> Html | None:
    """What a reader must know before the numbers."""
    told = [el("li", one_line(remark.text, 800), class_=remark.tone) for remark in remarks(record)]
    return el("ul", told, class_="warnings") if told else None


def cards(record: RunRecord) -> Html:
    """The few numbers that most readers look for."""
    names = dict.fromkeys(name for fault in record.faults for name in counts_of(fault.hits))
    totals = {name: sum(fault.hits.get(name, 0) for fault in record.faults) for name in names}
    most = max(totals.items(), key=_hit_rank, default=None)
    rest = ", ".join(f"{count(value)} {name}" for name, value in totals.items() if most and name != most[0])
    judgement = record.judgement
    return el(
        "section",
        _phases_card(record, "p95 latency", "ns"),
        _phases_card(record, "Error rate", "ratio"),
        _card("Time to detect", duration(judgement.detect_ns), "from the fault's start until it could be told from the samples"),
        _card("Time to recover", within(judgement.recover_ns), "from the fault's end until the steady state held again"),
        _card("Hits", count(most[1]) if most else MISSING, _hits_note(most, rest)),
        class_="cards", aria_label="Summary",
    )  # fmt: skip


def _hits_note(most: tuple[str, int] | None, rest: str) -> str:
    if most is None:
        return "the mechanism does not count"
    return f"{one_line(most[0], 60)}{'; ' + one_line(rest, 120) if rest else ''}"


def _hit_rank(item: tuple[str, int]) -> tuple[bool, int, bool, str]:
    """Which counter is shown large: hits before misses, things that people count before bytes."""
    name, value = item
    preferred = ("requests", "connections", "signals", "packets", "calls")
    rank = len(preferred) - preferred.index(name) if name in preferred else 0
    return (name not in PASSED_BY, rank, value > 0, name)


def _card(title: str, value: str, note: str) -> Html:
    return el("div", el("h3", title), el("p", value, class_="value"), el("p", note, class_="quiet"), class_="card")


def _phases_card(record: RunRecord, title: str, unit: str) -> Html:
    """Before, during and after, of the main series: the analysis's numbers where it has them."""
    words = {phase: _phase_number(record, phase, unit) for phase in ("before", "during", "after")}
    cells = [el("div", el("dt", phase), el("dd", value), class_=phase) for phase, value in words.items()]
    on = record.main.name if record.main else "no requests"
    return el(
        "div",
        el("h3", title),
        el("dl", cells, class_="phases"),
        el("p", f"of {one_line(on, 60)}", class_="quiet"),
        class_="card wide",
    )


def _phase_number(record: RunRecord, phase: Phase, unit: str) -> str:
    main = record.main
    if main is None:
        return MISSING
    for finding in record.judgement.findings:
        value = finding.numbers.get(phase, {}).get("value")
        if finding.series == main.name and finding.unit == unit and value is not None:
            return duration(value) if unit == "ns" else percent(value)
    stats = next(stats for stats in main.phases if stats.phase == phase)
    return duration(stats.p95_ns) if unit == "ns" else percent(stats.error_rate)


def findings(record: RunRecord) -> Html:
    """The expectations."""
    if not record.judgement.findings:
        return section(
            "expectations",
            "Expectations",
            el("p", "The run ended before its expectations were judged.", class_="empty"),
        )
    note = "Numbers are for each phase, with their 95 % confidence intervals. The bar is the limit."
    return section("expectations", "Expectations", expectations(record.judgement.findings), note=note)


def gauge_section(record: RunRecord) -> Html | None:
    """The process probes and other gauges."""
    if not record.gauges:
        return None
    return section("gauges", "Looked at meanwhile", gauges(record))


def timeline(record: RunRecord) -> Html:
    """What happened, in order."""
    items = [el("li", el("time", moment(item.at_s)), _told(item), class_=item.tone) for item in record.timeline]
    whole = el("ol", items, class_="timeline") if items else el("p", "No events.", class_="empty")
    return section("timeline", "Timeline", whole)


def _told(item: Moment) -> Html:
    return el("span", el("b", item.title), el("span", item.detail, class_="quiet") if item.detail else None)


def document(record: RunRecord) -> Html:
    """The experiment as it was run."""
    if not record.source:
        return section(
            "document", "The document", el("p", "The run's folder holds no experiment.yaml.", class_="empty")
        )
    return section(
        "document",
        "The document",
        el("pre", el("code", coloured(printable(record.source))), tabindex="0", aria_label="The experiment's document"),
    )


def _trace(record: RunRecord) -> list[tuple[str, Child]]:
    if not record.trace_id:
        return []
    link = el("a", record.trace_id, href=record.trace_url, rel="noreferrer") if record.trace_url else record.trace_id
    return [("trace", link)]


def again(record: RunRecord) -> Html:
    """On what it ran, and how to run it once more."""
    command = f"squall run {shlex.quote(str(record.folder / 'experiment.yaml'))} --seed {record.seed}"
    facts = [
        *((one_line(name, 60), one_line(value)) for name, value in record.host.items()),
        ("squall", one_line(record.squall, 60) or MISSING),
        ("seed", str(record.seed)),
        ("run", one_line(record.run, 120)),
        *_trace(record),
        ("exit status", MISSING if record.ending.exit_status is None else str(record.ending.exit_status)),
    ]
    replays = "The seed replays the selection, the times and the mechanisms' draws; when packets move is the kernel's."
    shown = el("pre", el("code", one_line(command, 4000)), class_="command", tabindex="0", aria_label="Command")
    return section("again", "Where, and how to run it again", shown, pairs(facts), el("p", replays, class_="note"))
