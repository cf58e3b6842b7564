"""What stands behind and around the lines of every chart of a run: stages, the faults' windows, limits, the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.reports.html.scales import WIDTH, Frame
from squall.reports.html.tags import Html, el, join
from squall.reports.wording import duration, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.reports.html.scales import Scale
    from squall.reports.record import FaultRecord, StageSpan, Threshold, Window

__all__ = ["Backdrop", "bands", "frame_of", "lanes", "limit_lines", "plot", "time_axis"]

_LANE_HEIGHT = 22
_LANES_MAX = 8
_LABEL_GAP = 15


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What all charts of a run share: when it was what stage, when which fault was on, and the limits."""

    frame: Frame
    stages: tuple[StageSpan, ...]
    faults: tuple[FaultRecord, ...]
    injected: Window | None
    thresholds: tuple[Threshold, ...]

    def limits(self, series: str, quantity: str) -> list[Threshold]:
        """The limits on one quantity of one series, each value of a role once."""
        fitting = [t for t in self.thresholds if t.quantity == quantity and t.series == series]
        return list({(t.role, t.value): t for t in fitting}.values())


def frame_of(length_s: float) -> Frame:
    """The time of a whole run."""
    return Frame(0.0, max(length_s, 1.0))


def plot(height: float, shapes: Iterable[Html | None], overlay: Html, label: str) -> Html:
    """A drawing: shapes that are stretched to the width, and text over them that is not."""
    stretched = el(
        "svg",
        list(shapes),
        viewBox=f"0 0 {WIDTH} {height:g}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
        x="0",
        y="0",
    )
    return el("svg", stretched, overlay, class_="plot", width="100%", height=height, role="img", aria_label=label)


def bands(backdrop: Backdrop, height: float) -> Html:
    """The fault's windows as shading, the stages as thin lines."""
    frame = backdrop.frame
    bands = []
    for fault in backdrop.faults[:_LANES_MAX]:
        for window in fault.windows:
            left, right = frame.x(window.start_s), frame.x(window.end_s)
            kind = "window" if window.end_known else "window open"
            bands.append(el("rect", x=left, y="0", width=max(right - left, 0.8), height=height, class_=kind))
    stages = [
        el(
            "line",
            x1=frame.x(span.start_s),
            x2=frame.x(span.start_s),
            y1="0",
            y2=height,
            class_="stage",
            vector_effect="non-scaling-stroke",
        )
        for span in backdrop.stages[1:]
    ]
    return join([bands, stages])


_ROLE_WORDS = {"steady": "steady", "tolerate": "tolerated", "abort": "abort"}


def limit_lines(backdrop: Backdrop, scale: Scale, series: str, quantity: str) -> Html:
    """Each limit as a labelled line over the time for which it holds: steady outside the fault, the others within."""
    frame, injected = backdrop.frame, backdrop.injected
    drawn: list[Html] = []
    taken: list[float] = []
    for limit in sorted(backdrop.limits(series, quantity), key=lambda t: t.value):
        if not scale.holds(limit.value):
            continue
        y = scale.y(limit.value)
        spans = [(frame.start_s, frame.end_s)]
        if injected is not None:
            outside = [(frame.start_s, injected.start_s), (injected.end_s, frame.end_s)]
            spans = outside if limit.role == "steady" else [(injected.start_s, injected.end_s)]
        drawn += [
            el("line", x1=frame.percent(start), x2=frame.percent(end), y1=y, y2=y, class_=f"limit {limit.role}")
            for start, end in spans if end > start
        ]  # fmt: skip
        text_y = y - 5 if y > _LABEL_GAP else y + 13
        while any(abs(text_y - other) < _LABEL_GAP for other in taken):
            text_y -= _LABEL_GAP
        taken.append(text_y)
        sign = ">" if limit.role == "abort" else "≤"
        value = duration(limit.value) if quantity == "p95" else percent(limit.value)
        words = f"{_ROLE_WORDS[limit.role]} {'p95' if quantity == 'p95' else 'errors'} {sign} {value}"
        x = _label_x(frame, injected if limit.role != "steady" else None)
        drawn.append(el("text", words, x=x, dx="-6", y=text_y, text_anchor="end", class_=f"limit-label {limit.role}"))
    return join(drawn)


def _label_x(frame: Frame, window: Window | None) -> str:
    """Where a limit's label ends: with its line where there is room above it, else at the plot's edge."""
    if window is None or frame.x(window.end_s) - frame.x(window.start_s) < WIDTH / 3:
        return "100%"
    return frame.percent(window.end_s)


def lanes(backdrop: Backdrop) -> Html:
    """A lane of stages and one for each fault, above the plots."""
    frame = backdrop.frame
    texts, bars = [], []
    last_x = -100.0
    for span in backdrop.stages:
        x = frame.x(span.start_s)
        if frame.x(span.end_s) - x > WIDTH * 0.03 and x - last_x > WIDTH * 0.08:
            texts.append(el("text", span.stage, x=frame.percent(span.start_s), dx="4", y="15", class_="stage-label"))
            last_x = x
    shown = backdrop.faults[:_LANES_MAX]
    for lane, fault in enumerate(shown, 1):
        y = lane * _LANE_HEIGHT
        for window in fault.windows:
            left, right = frame.x(window.start_s), frame.x(window.end_s)
            kind = "bar" if window.end_known else "bar open"
            bars.append(el("rect", x=left, y=y + 3, width=max(right - left, 1.5), height=_LANE_HEIGHT - 6, class_=kind))
        start_s = fault.windows[0].start_s if fault.windows else frame.start_s
        pulses = f" · {fault.pulses} pulses" if fault.pulses > 1 else "" if fault.windows else " · never on"
        texts.append(
            el("text", f"{fault.type}{pulses}", x=frame.percent(start_s), dx="6", y=y + 15, class_="fault-label")
        )
    height = (len(shown) + 1) * _LANE_HEIGHT
    drawing = plot(height, bars, join(texts), f"Stages of the run and when its {len(backdrop.faults)} faults were on")
    return join([el("span", class_="gutter"), drawing])


def time_axis(frame: Frame) -> Html:
    """The labels below all plots."""
    labels = []
    for at_s, label in frame.ticks():
        x = frame.x(at_s)
        anchor = "start" if x < WIDTH * 0.02 else "end" if x > WIDTH * 0.97 else "middle"
        labels.append(el("text", label, x=frame.percent(at_s), y="15", text_anchor=anchor))
    return el("svg", labels, class_="plot time", width="100%", height="22", aria_hidden="true")
