"""Gauges as small multiples: one sparkline each, on the run's axis of time, with its range in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.html.backdrop import frame_of
from squall.reports.html.scales import WIDTH, Frame
from squall.reports.html.tags import Html, el
from squall.reports.wording import gauge, one_line, percent

if TYPE_CHECKING:
    from squall.reports.record import GaugeSeries, RunRecord

__all__ = ["gauges"]

_HEIGHT = 64
_GAUGES_MAX = 60


def gauges(record: RunRecord) -> Html:
    """All gauges of a run."""
    frame = frame_of(record.length_s)
    shown = [_gauge(series, record, frame) for series in record.gauges[:_GAUGES_MAX] if series.points]
    more = len(record.gauges) - _GAUGES_MAX
    return el(
        "div", shown, el("p", f"{more} more are in the samples.", class_="quiet") if more > 0 else None, class_="gauges"
    )


def _gauge(series: GaugeSeries, record: RunRecord, frame: Frame) -> Html:
    least, most = min(p.least for p in series.points), max(p.most for p in series.points)
    looks = "." not in series.name and 0 <= least <= most <= 1
    low, high = (0.0, 1.0) if looks else _room(least, most)
    name = one_line(series.name, 80)
    words = (
        f"succeeded {percent(sum(p.mean for p in series.points) / len(series.points))}"
        if looks
        else _range(series.name, least, most)
    )

    def place(at_s: float, value: float) -> str:
        return f"{frame.x(at_s):.1f} {(1 - (value - low) / (high - low)) * (_HEIGHT - 6) + 3:.1f}"

    top = [place(p.at_s, p.most) for p in series.points]
    bottom = [place(p.at_s, p.least) for p in reversed(series.points)]
    windows = [
        el("rect", x=frame.x(w.start_s), y="0", width=max(frame.x(w.end_s) - frame.x(w.start_s), 0.8), height=str(_HEIGHT), class_="window")
        for fault in record.faults for w in fault.windows
    ]  # fmt: skip
    drawing = el(
        "svg", windows, el("path", d="M" + "L".join([*top, *bottom]) + "z", class_="spread"),
        el("path", d="M" + "L".join(place(p.at_s, p.mean) for p in series.points), class_="line p95", vector_effect="non-scaling-stroke"),
        viewBox=f"0 0 {WIDTH} {_HEIGHT}", preserveAspectRatio="none", class_="spark", role="img", aria_label=f"{name}: {words}",
    )  # fmt: skip
    return el("figure", el("figcaption", el("b", name), el("span", words, class_="quiet")), drawing, class_="gauge")


def _room(least: float, most: float) -> tuple[float, float]:
    """A range with room around the data; a constant stands in the middle."""
    room = (most - least) * 0.08 or abs(most) * 0.5 or 1.0
    return least - room, most + room


def _range(name: str, least: float, most: float) -> str:
    if least == most:
        return gauge(name, most)
    (low, _, low_unit), (high, _, high_unit) = (gauge(name, value).partition(" ") for value in (least, most))
    return (
        f"{low} to {high} {high_unit}".rstrip() if low_unit == high_unit else f"{low} {low_unit} to {high} {high_unit}"
    )
