"""What was injected, on whom, by which mechanism, how often it hit, and how each step was taken back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from squall.reports.hits import worded
from squall.reports.html.parts import pairs, section
from squall.reports.html.tags import Html, el, join
from squall.reports.html.verdicts import icon
from squall.reports.wording import MISSING, duration, moment, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.reports.html.tags import Child
    from squall.reports.record import FaultRecord, Plan, RunRecord, SelectedTarget, UndoStep

__all__ = ["faults", "undo_log"]


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
    hits = worded(fault.hits)
    facts.append(("Hits", el("b", one_line(hits, 500)) if hits else "not counted by this mechanism"))
    return el(
        "article", el("h3", one_line(fault.type, 80), el("span", one_line(fault.id, 80), class_="quiet")), pairs(facts),
        [_plan(plan) for plan in fault.plans[:_PLANS_MAX]], _targets(fault), class_="fault",
    )  # fmt: skip


_PLANS_MAX = 20


def _parameters(parameters: dict[str, object]) -> Html:
    shown = [(name, value) for name, value in parameters.items() if value not in (None, "", {}, [])]
    return join(
        [
            el(
                "span",
                el("span", one_line(name, 60), class_="quiet"),
                " ",
                el("code", one_line(_written(value), 200)),
                class_="parameter",
            )
            for name, value in shown
        ]
    )


def _written(value: object) -> str:
    """As a document says it: JSON for what is no text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _plan(plan: Plan) -> Html:
    refused = [el("li", el("b", one_line(name, 60)), f" {MISSING} ", one_line(reason)) for name, reason in plan.refused]
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
    return pairs(facts)


_RECOVERABILITY = {
    "lease": "lease: it ends by itself",
    "guarded": "guarded: the guardian undoes it",
    "irreversible": "irreversible: recovery is the system's own",
}


def _list(items: Sequence[str]) -> Html:
    return el("ul", *(el("li", one_line(item)) for item in items[:50]))


_TARGETS_MAX = 100


def _targets(fault: FaultRecord) -> Html:
    shown = [_target(target) for target in fault.targets[:_TARGETS_MAX]]
    left = len(fault.targets) - len(shown)
    title = f"{len(fault.targets)} of {fault.matched} that matched" if fault.matched else "no target was selected"
    more = el("p", f"and {left} more", class_="quiet") if left > 0 else None
    return el("div", el("h4", "Targets: ", title), shown, more, class_="targets")


def _target(target: SelectedTarget) -> Html:
    facts = [(one_line(name, 60), el("code", one_line(value, 2000))) for name, value in target.facts]
    return el("details", el("summary", one_line(target.title, 200)), pairs(facts), class_="small")


_STEPS_MAX = 400


def undo_log(record: RunRecord) -> Html:
    """Every change to the machine, and how it was taken back."""
    if not record.undo:
        return section("undo", "Undo log", el("p", "Nothing on the machine was changed.", class_="empty"))
    titles = ("Step", "Done", "Undone", "By", "Looked at afterwards")
    head = el("tr", *(el("th", title, scope="col") for title in titles))
    rows = [_step(step) for step in record.undo[:_STEPS_MAX]]
    more = len(record.undo) - len(rows)
    left = el("p", f"{more} more steps are in journal.jsonl.", class_="quiet") if more > 0 else None
    whole = el("table", el("thead", head), el("tbody", rows), class_="stack")
    return section("undo", "Undo log", whole, left, note=_undo_note(record))


def _step(step: UndoStep) -> Html:
    state, word = _STATES[step.state] if step.verified is not False else ("broken", "not back to normal")
    where = f"{step.entry} · {one_line(step.action, 60)} · {one_line(step.fault, 80)}"
    seen = [
        el("span", icon(state), word, class_=f"outcome {state}"),
        el("span", one_line(step.detail), class_="reason") if step.detail else None,
        el("span", "by hand: ", el("code", one_line(step.by_hand)), class_="reason") if step.by_hand else None,
    ]
    return el(
        "tr",
        el("th", el("b", one_line(step.description)), el("span", where, class_="quiet"), scope="row"),
        el("td", _when(step.done_s), class_="number", data_label="Done"),
        el("td", _when(step.undone_s), class_="number", data_label="Undone"),
        el("td", one_line(step.by, 60) or MISSING, data_label="By"),
        el("td", seen, data_label="Looked at afterwards"),
    )


def _when(at_s: float | None) -> str:
    return moment(at_s) if at_s is not None else MISSING


_STATES = {
    "undone": ("met", "back to normal"),
    "open": ("broken", "not undone yet"),
    "irreversible": ("unclear", "nothing to undo"),
}


def _all_closed(steps: int) -> str:
    return "The one step is closed" if steps == 1 else f"All {steps} steps are closed"


def _undo_note(record: RunRecord) -> str:
    open_steps = sum(step.state == "open" for step in record.undo)
    if open_steps:
        return f"{open_steps} of {len(record.undo)} steps are still open: run `squall recover`."
    return "" if record.ending.residue else f"{_all_closed(len(record.undo))}; nothing is left behind."
