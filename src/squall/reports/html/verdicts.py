"""The verdict and the outcomes of expectations as icon and word, never as colour alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.html.scales import Linear
from squall.reports.html.tags import Html, el, join
from squall.reports.wording import MISSING, count, measure, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.events import Finding

__all__ = ["badge", "expectations", "icon"]

_ICONS = {
    "passed": "M5 12.5l4.5 4.5L19 7.5",
    "met": "M5 12.5l4.5 4.5L19 7.5",
    "failed": "M6.5 6.5l11 11M17.5 6.5l-11 11",
    "broken": "M6.5 6.5l11 11M17.5 6.5l-11 11",
    "aborted": "M7 7h10v10H7z",
    "inconclusive": "M8.5 9a3.5 3.5 0 1 1 5 3.2c-1 .5-1.5 1.2-1.5 2.3M12 18v.5",
    "unclear": "M8.5 9a3.5 3.5 0 1 1 5 3.2c-1 .5-1.5 1.2-1.5 2.3M12 18v.5",
}

_WORDS = {"met": "met", "broken": "broken", "unclear": "cannot tell"}


def icon(name: str) -> Html:
    """A small drawing; the word beside it says the same."""
    return el(
        "svg", el("path", d=_ICONS.get(name, _ICONS["unclear"])), viewBox="0 0 24 24", class_="icon", aria_hidden="true"
    )


def badge(verdict: str) -> Html:
    """The verdict, large."""
    return el("span", icon(verdict), el("span", one_line(verdict, 30)), class_=f"badge {_class(verdict)}")


def _class(outcome: str) -> str:
    return outcome if outcome in _ICONS else "unclear"


def expectations(findings: Sequence[Finding]) -> Html:
    """Each expectation with its numbers before, during and after, their intervals, and a drawing of both."""
    rows = [_row(finding) for finding in findings]
    head = el(
        "tr",
        *(
            el("th", title, scope="col")
            for title in ("Outcome", "Expectation", "Before", "During", "After", "Evidence")
        ),
    )
    return el("table", el("thead", head), el("tbody", rows), class_="expectations stack")


def _row(finding: Finding) -> Html:
    word = _WORDS.get(finding.outcome, str(finding.outcome))
    said = not finding.series or finding.expectation.startswith(finding.series)
    on = None if said else el("span", f"on {one_line(finding.series, 80)}", class_="quiet")
    cells = [
        el(
            "td",
            el("span", icon(finding.outcome), word, class_=f"outcome {_class(finding.outcome)}"),
            data_label="Outcome",
        ),
        el(
            "th",
            el("b", one_line(finding.expectation, 200)),
            on,
            el("span", one_line(finding.reason), class_="reason"),
            scope="row",
        ),
        *(_number(finding, phase) for phase in ("before", "during", "after")),
        el("td", _whiskers(finding), class_="drawing", data_label="Evidence"),
    ]
    return el("tr", cells, class_=_class(finding.outcome))


def _number(finding: Finding, phase: str) -> Html:
    numbers = finding.numbers.get(phase)
    if not numbers or numbers.get("value") is None:
        return el("td", MISSING, class_="number", data_label=phase.capitalize())
    if numbers.get("n") == 1:
        return el(
            "td", el("b", measure(numbers["value"], finding.unit)), class_="number", data_label=phase.capitalize()
        )
    low, high = numbers.get("low"), numbers.get("high")
    interval = (
        f"{measure(low, finding.unit)} to {measure(high, finding.unit)}" if low is not None and high is not None else ""
    )
    samples = f"n = {count(numbers['n'])}" if numbers.get("n") is not None else ""
    return el(
        "td", el("b", measure(numbers["value"], finding.unit)), el("span", interval, class_="quiet"), el("span", samples, class_="quiet"),
        class_="number", data_label=phase.capitalize(),
    )  # fmt: skip


_WIDTH, _ROW, _LEFT = 220, 20, 46


def _whiskers(finding: Finding) -> Html | None:
    """The three numbers as dots with their intervals, against the threshold."""
    known = {phase: n for phase, n in finding.numbers.items() if n.get("value") is not None}
    ends = [float(n[key]) for n in known.values() for key in ("value", "low", "high") if n.get(key) is not None]
    if not ends:
        return None
    most = max([*ends, finding.threshold or 0.0]) * 1.08 or 1.0
    scale = Linear(most, _WIDTH - _LEFT - 8)

    def x(value: float) -> float:
        return _LEFT + scale.height - scale.y(value)

    parts = []
    for index, phase in enumerate(("before", "during", "after")):
        y = 10 + index * _ROW
        parts.append(el("text", phase, x=str(_LEFT - 8), y=y + 4.0, text_anchor="end"))
        parts.append(el("line", x1=str(_LEFT), x2=str(_WIDTH - 8), y1=str(y), y2=str(y), class_="rail"))
        if numbers := known.get(phase):
            value = float(numbers["value"])
            low, high = float(numbers.get("low", value)), float(numbers.get("high", value))
            parts.append(el("line", x1=x(low), x2=x(high), y1=str(y), y2=str(y), class_=f"whisker {phase}"))
            parts.append(el("circle", cx=x(value), cy=str(y), r="4", class_=f"dot {phase}"))
    if finding.threshold is not None:
        at = x(finding.threshold)
        parts.append(el("line", x1=at, x2=at, y1="0", y2=str(3 * _ROW), class_="bound"))
    label = "; ".join(f"{phase} {measure(n['value'], finding.unit)}" for phase, n in known.items())
    limit = f", limit {measure(finding.threshold, finding.unit)}" if finding.threshold is not None else ""
    return el(
        "svg", join(parts), viewBox=f"0 0 {_WIDTH} {3 * _ROW}", class_="whiskers", role="img", aria_label=label + limit
    )
