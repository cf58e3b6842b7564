"""The parts of a report's page, each one function from the record to markup."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from squall.reports.endings import death
from squall.reports.html.documents import coloured
from squall.reports.html.gauges import gauges
from squall.reports.html.tags import Html, el, join
from squall.reports.html.verdicts import badge, expectations, icon
from squall.reports.wording import clock, count, duration, moment, one_line, percent, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from squall.reports.html.tags import Child
    from squall.reports.record import FaultRecord, Phase, Plan, RunRecord

__all__ = [
    "again",
    "cards",
    "document",
    "faults",
    "findings",
    "gauge_section",
    "headline",
    "section",
    "timeline",
    "undo_log",
    "warnings",
]


def section(name: str, title: str, *children: Child, note: str = "") -> Html:
    """A section with its heading."""
    heading = el("h2", title, id=f"{name}-title")
    return el(
        "section",
        heading,
        el("p", note, class_="note") if note else None,
        *children,
        id=name,
        aria_labelledby=f"{name}-title",
    )


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
    """What a reader must know before anything else: a dead engine, something left behind, a load that fell behind."""
    ending = record.ending
    told: list[tuple[str, str]] = []
    if ending.how == "died":
        told.append(("bad" if ending.open_steps else "plain", death(ending)))
    if ending.how == "running":
        told.append(("plain", "This run is not over yet: the report shows what it has done so far."))
    if record.abort is not None:
        told.append(("bad", f"Aborted {moment(record.abort.at_s)} ({record.abort.cause}): {record.abort.reason}"))
    if ending.signal:
        told.append(("plain", f"Interrupted by {ending.signal}."))
    told += [("bad", f"Left behind: {item}") for item in ending.residue]
    if record.load_behind:
        told.append(("plain", f"The load could not be sent as intended: {record.load_behind}"))
    told += [("plain", note) for note in record.notes]
    return (
        el("ul", *(el("li", one_line(text, 800), class_=tone) for tone, text in told), class_="warnings")
        if told
        else None
    )


def cards(record: RunRecord) -> Html:
    """The few numbers that most readers look for."""
    hits = {name: value for fault in record.faults for name, value in fault.hits.items()}
    totals = {name: sum(fault.hits.get(name, 0) for fault in record.faults) for name in hits}
    most = max(totals.items(), key=lambda item: _hit_rank(item[0]), default=None)
    rest = ", ".join(f"{count(value)} {name}" for name, value in totals.items() if most and name != most[0])
    judgement = record.judgement
    return el(
        "section",
        _phases_card(record, "p95 latency", "ns"),
        _phases_card(record, "Error rate", "ratio"),
        _card("Time to detect", duration(judgement.detect_ns), "from the fault's start until it could be told from the samples"),
        _card("Time to recover", duration(judgement.recover_ns), "from the fault's end until the steady state held again"),
        _card("Hits", count(most[1]) if most else "–", _hits_note(most, rest)),
        class_="cards", aria_label="Summary",
    )  # fmt: skip


def _hits_note(most: tuple[str, int] | None, rest: str) -> str:
    if most is None:
        return "the mechanism does not count"
    return f"{one_line(most[0], 60)}{'; ' + one_line(rest, 120) if rest else ''}"


def _hit_rank(name: str) -> tuple[int, str]:
    """Which counter is shown large: things that people count, before bytes."""
    preferred = ("requests", "connections", "signals", "packets", "calls")
    return (len(preferred) - preferred.index(name) if name in preferred else 0, name)


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
        return "–"
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


def faults(record: RunRecord) -> Html:
    """What was injected, on whom, by which mechanism, and how often it hit."""
    if not record.faults:
        return section("injected", "What was injected", el("p", "Nothing was injected.", class_="empty"))
    return section("injected", "What was injected", *(_fault(fault) for fault in record.faults))


def _fault(fault: FaultRecord) -> Html:
    on_s = sum(window.end_s - window.start_s for window in fault.windows)
    state = (
        "never switched on"
        if not fault.windows
        else f"on for {duration(on_s * 1e9)}, from {moment(fault.windows[0].start_s)}"
    )
    facts: list[tuple[str, Child]] = [("When", state + (f", in {fault.pulses} pulses" if fault.pulses > 1 else ""))]
    if fault.parameters:
        facts.append(("Asked", _parameters(fault.parameters)))
    if fault.took_on_ns is not None:
        off = f", off in {duration(fault.took_off_ns)}" if fault.took_off_ns is not None else ""
        facts.append(("Switched", f"on in {duration(fault.took_on_ns)}{off} at the slowest"))
    hits = ", ".join(f"{count(value)} {name}" for name, value in fault.hits.items())
    facts.append(("Hits", el("b", one_line(hits, 300)) if hits else "not counted by this mechanism"))
    return el(
        "article", el("h3", one_line(fault.type, 80), el("span", one_line(fault.id, 80), class_="quiet")), _facts(facts),
        [_plan(plan) for plan in _distinct(fault.plans)], _targets(fault), class_="fault",
    )  # fmt: skip


_PLANS_MAX = 20


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    return list(plans[:_PLANS_MAX])


def _facts(facts: Iterable[tuple[str, Child]]) -> Html:
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="pairs")


def _parameters(parameters: dict[str, object]) -> Html:
    shown = [(name, value) for name, value in parameters.items() if value not in (None, "", {}, [])]
    return join(
        [
            el(
                "span",
                el("span", one_line(name, 60), class_="quiet"),
                " ",
                el("code", one_line(value, 200)),
                class_="parameter",
            )
            for name, value in shown
        ]
    )


def _plan(plan: Plan) -> Html:
    refused = [el("li", el("b", one_line(name, 60)), " – ", one_line(reason)) for name, reason in plan.refused]
    facts: list[tuple[str, Child]] = [
        ("Target", one_line(plan.target)),
        ("Mechanism", el("b", one_line(plan.mechanism, 80))),
        ("Accuracy", one_line(plan.accuracy)),
        ("When its owner dies", _RECOVERABILITY.get(plan.recoverability, one_line(plan.recoverability))),
        ("Not covered", _list(plan.not_covered) if plan.not_covered else "nothing that is known"),
        ("Steps", _list(plan.actions)),
        ("Undone by", _list(plan.undos)),
        ("Not taken", el("ul", refused) if refused else "no other mechanism can do this here"),
    ]
    return _facts(facts)


_RECOVERABILITY = {
    "lease": "lease: it ends by itself",
    "guarded": "guarded: the guardian undoes it",
    "irreversible": "irreversible: recovery is the system's own",
}


def _list(items: Sequence[str]) -> Html:
    return el("ul", *(el("li", one_line(item)) for item in items[:50]))


def _targets(fault: FaultRecord) -> Html:
    shown = fault.targets[:100]
    items = [
        el(
            "details", el("summary", one_line(target.title, 200)),
            el("dl", *(el("div", el("dt", one_line(k, 60)), el("dd", el("code", one_line(v, 2000)))) for k, v in target.facts), class_="pairs small"),
        )
        for target in shown
    ]  # fmt: skip
    more = (
        el("p", f"and {len(fault.targets) - len(shown)} more", class_="quiet")
        if len(fault.targets) > len(shown)
        else None
    )
    title = f"{len(fault.targets)} of {fault.matched} that matched" if fault.matched else "no target was selected"
    return el("div", el("h4", "Targets: ", title), items, more, class_="targets")


_STEPS_MAX = 400


def undo_log(record: RunRecord) -> Html:
    """Every change to the machine, and how it was taken back."""
    if not record.undo:
        return section("undo", "Undo log", el("p", "Nothing on the machine was changed.", class_="empty"))
    head = el(
        "tr", *(el("th", title, scope="col") for title in ("Step", "Done", "Undone", "By", "Looked at afterwards"))
    )
    rows = []
    for step in record.undo[:_STEPS_MAX]:
        state, word = _STATES[step.state] if step.verified is not False else ("broken", "not back to normal")
        seen = el("span", icon(state), word, class_=f"outcome {state}")
        by_hand = el("span", "by hand: ", el("code", one_line(step.by_hand)), class_="reason") if step.by_hand else None
        rows.append(el(
            "tr",
            el("th", el("b", one_line(step.description)), el("span", f"{step.entry} · {one_line(step.action, 60)} · {one_line(step.fault, 80)}", class_="quiet"), scope="row"),
            el("td", moment(step.done_s) if step.done_s is not None else "–", class_="number", data_label="Done"),
            el("td", moment(step.undone_s) if step.undone_s is not None else "–", class_="number", data_label="Undone"),
            el("td", one_line(step.by, 60) or "–", data_label="By"),
            el("td", seen, el("span", one_line(step.detail), class_="reason") if step.detail else None, by_hand, data_label="Looked at afterwards"),
        ))  # fmt: skip
    more = len(record.undo) - len(rows)
    left = el("p", f"{more} more steps are in journal.jsonl.", class_="quiet") if more > 0 else None
    return section(
        "undo",
        "Undo log",
        el("table", el("thead", head), el("tbody", rows), class_="stack"),
        left,
        note=_undo_note(record),
    )


_STATES = {
    "undone": ("met", "back to normal"),
    "open": ("broken", "not undone yet"),
    "irreversible": ("unclear", "nothing to undo"),
}


def _undo_note(record: RunRecord) -> str:
    open_steps = sum(step.state == "open" for step in record.undo)
    if open_steps:
        return f"{open_steps} of {len(record.undo)} steps are still open: run `squall recover`."
    return f"All {len(record.undo)} steps are closed; nothing is left behind." if not record.ending.residue else ""


def timeline(record: RunRecord) -> Html:
    """What happened, in order."""
    items = [
        el(
            "li", el("time", moment(item.at_s)), el("span", el("b", item.title), el("span", item.detail, class_="quiet") if item.detail else None),
            class_=item.tone,
        )
        for item in record.timeline
    ]  # fmt: skip
    return section(
        "timeline", "Timeline", el("ol", items, class_="timeline") if items else el("p", "No events.", class_="empty")
    )


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


def again(record: RunRecord) -> Html:
    """On what it ran, and how to run it once more."""
    command = f"squall run {shlex.quote(str(record.folder / 'experiment.yaml'))} --seed {record.seed}"
    facts = [
        *((one_line(name, 60), one_line(value)) for name, value in record.host.items()),
        ("squall", one_line(record.squall, 60) or "–"),
        ("seed", str(record.seed)),
        ("run", one_line(record.run, 120)),
        ("exit status", "–" if record.ending.exit_status is None else str(record.ending.exit_status)),
    ]
    return section(
        "again", "Where, and how to run it again", el("pre", el("code", one_line(command, 4000)), class_="command", tabindex="0", aria_label="Command"),
        _facts(facts), el("p", "The seed replays the selection, the times and the mechanisms' draws; when packets move is the kernel's.", class_="note"),
    )  # fmt: skip
