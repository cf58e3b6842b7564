"""The page of a comparison: both runs' charts on one axis that counts from the moment when the fault began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.html.charts import chart
from squall.reports.html.page import backdrop_of, chart_data, page
from squall.reports.html.parts import section
from squall.reports.html.scales import Frame
from squall.reports.html.tags import Html, el
from squall.reports.html.verdicts import badge, icon
from squall.reports.two_runs import CHANGES, pairs_of, sentence, shown, signed
from squall.reports.wording import MISSING, clock, duration, measure, one_line

if TYPE_CHECKING:
    from squall.analysis import Difference
    from squall.reports.record import RunRecord
    from squall.reports.two_runs import TwoRuns

__all__ = ["to_html"]

_CHARTS_MAX = 12


def to_html(two: TwoRuns) -> str:
    """The comparison of two runs as one self-contained HTML file."""
    pairs = pairs_of(two)[:_CHARTS_MAX]
    frames = _frames(two)
    figures: list[Html] = []
    data: list[dict[str, object]] = []
    for pair in pairs:
        for letter, record, frame, series in zip("ab", (two.a, two.b), frames, pair, strict=True):
            figures.append(chart(series, backdrop_of(record, frame), len(data), of=letter, beside=pair))
            data.append(chart_data(series, frame))
    numbers = [_row(difference) for difference in shown(two)]
    titles = ("Series", "Phase", "Number", "a", "b", "b - a", "95 % interval", "b is")
    head = el("tr", *(el("th", title, scope="col") for title in titles))
    whole = el("table", el("thead", head), el("tbody", numbers), class_="stack")
    empty = el("p", "The runs have no series of requests in common.", class_="empty")
    return page(
        f"{one_line(two.a.name, 100)} against {one_line(two.b.name, 100)}",
        el(
            "header",
            el("p", "Squall comparison of two runs", class_="kicker"),
            el("h1", _title(two)),
            el("p", sentence(two), class_="description"),
        ),
        el(
            "main",
            el("section", _side("a", two.a), _side("b", two.b), class_="sides"),
            section("charts", "Both runs, from the moment the fault began", figures or empty),
            section("numbers", "What differs", whole if numbers else empty),
            id="content",
        ),
        data=data,
    )


def _title(two: TwoRuns) -> str:
    names = dict.fromkeys(one_line(record.name, 100) for record in (two.a, two.b))
    return " against ".join(names)


def _side(letter: str, record: RunRecord) -> Html:
    judgement = record.judgement
    facts = [
        clock(record.started_wall_ns),
        f"detected in {duration(judgement.detect_ns)}" if judgement.detect_ns is not None else "not detected",
        f"recovered in {duration(judgement.recover_ns)}" if judgement.recover_ns is not None else "not recovered",
    ]
    return el(
        "div",
        el("h3", f"{letter}: {one_line(record.run, 120)}"),
        badge(judgement.verdict),
        el("p", one_line(judgement.reason), class_="quiet"),
        el("ul", *(el("li", fact) for fact in facts), class_="facts"),
        class_="card",
    )


def _frames(two: TwoRuns) -> tuple[Frame, Frame]:
    """One stretch of time for both, relative to each one's fault (to its beginning where it had none)."""
    zeros = [record.injected.start_s if record.injected else 0.0 for record in (two.a, two.b)]
    before = max(zeros)
    after = max(record.length_s - zero for record, zero in zip((two.a, two.b), zeros, strict=True))
    a, b = (Frame(zero - before, zero + max(after, 1.0), zero) for zero in zeros)
    return a, b


_STATES = {"better": "met", "worse": "broken", "same": "same", "unclear": "unclear"}


def _row(difference: Difference) -> Html:
    interval = f"{signed(difference, difference.low)} to {signed(difference, difference.high)}"
    state = _STATES[difference.change]
    drawn = icon(state) if state != "same" else MISSING
    return el(
        "tr",
        el("th", el("b", one_line(difference.series, 80)), scope="row"),
        el("td", difference.phase, data_label="Phase"),
        el("td", "errors" if difference.what == "errorRate" else difference.what, data_label="Number"),
        el("td", measure(difference.a.value, difference.unit), class_="number", data_label="a"),
        el("td", measure(difference.b.value, difference.unit), class_="number", data_label="b"),
        el("td", el("b", signed(difference, difference.value)), class_="number", data_label="b - a"),
        el("td", interval, class_="number quiet", data_label="95 % interval"),
        el("td", el("span", drawn, CHANGES[difference.change], class_=f"outcome {state}"), data_label="b is"),
    )
