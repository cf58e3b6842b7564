"""The charts of one series of requests: lanes of stages and faults, latency, and the error rate, on one axis of time.

Every plot is an SVG of fixed height whose shapes are stretched to the width there is, while its text is placed by
percentages and stays as it is. Both latency scales are in the page and CSS shows one: no script is needed to look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.reports.html.heatmap import png_data_uri
from squall.reports.html.scales import WIDTH, Frame, Linear, Logarithmic, share_scale
from squall.reports.html.tags import Html, el, join
from squall.reports.wording import duration, one_line, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from squall.reports.html.scales import Scale
    from squall.reports.record import Bucket, Density, FaultRecord, RequestSeries, StageSpan, Threshold, Window

__all__ = ["Backdrop", "chart", "frame_of"]

_LATENCY_HEIGHT = 300
_ERROR_HEIGHT = 110
_LANE_HEIGHT = 22
_LANES_MAX = 8
_LINEAR_ROWS = 100
_STALL_RATIO = 25
"""Where the slowest second is so many times slower than the usual one, the logarithmic scale is shown first."""
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


def chart(
    series: RequestSeries, backdrop: Backdrop, number: int, *, of: str = "", beside: Sequence[RequestSeries] = ()
) -> Html:
    """One figure; `number` tells the figures of a page apart, `of` says whose it is, `beside` shares its scales."""
    together = beside or [series]
    slowest, usual = max(map(_slowest, together)), min(map(_usual, together))
    stalls = slowest > usual * _STALL_RATIO
    limits = backdrop.limits(series.name, "p95")
    log = Logarithmic.over(min(map(_quickest, together)), max([slowest, *(t.value for t in limits)]), _LATENCY_HEIGHT)
    linear = Linear(_linear_most(slowest, limits), _LATENCY_HEIGHT)
    return el(
        "figure",
        _head(series, number, of=of, stalls=stalls),
        el(
            "div",
            el("div", _lanes(backdrop), class_="row"),
            _row(log, _latency_plot(series, backdrop, log), "log", "latency"),
            _row(linear, _latency_plot(series, backdrop, linear), "linear", "latency"),
            _error_row(series, backdrop, together),
            el("div", el("span", class_="gutter"), _time_axis(backdrop.frame), class_="row"),
            el("div", class_="readout", hidden=True),
            class_="plots", tabindex="0", role="group", data_chart=str(number), data_series=series.name,
            aria_label=f"Latency and error rate of {one_line(series.name, 80)} over time; arrow keys move the read-out.",
        ),
        _legend(series),
        class_="chart", id=f"chart-{number}",
    )  # fmt: skip


def _head(series: RequestSeries, number: int, *, of: str, stalls: bool) -> Html:
    def choice(kind: str, label: str, *, chosen: bool) -> Html:
        name = f"scale-{number}"
        box = el("input", type="radio", name=name, id=f"{name}-{kind}", class_=f"pick-{kind}", checked=chosen)
        return join([box, el("label", label, for_=f"{name}-{kind}")])

    name = [f"{of} · " if of else None, one_line(series.name, 80)]
    what = el("span", el("b", name), f" latency and errors, per {duration(series.width_s * 1e9)}", class_="what")
    scales = [choice("log", "log", chosen=stalls), choice("linear", "linear", chosen=not stalls)]
    toggle = el("span", scales, class_="toggle", role="radiogroup", aria_label="Scale of latency")
    return el("figcaption", what, toggle)


def _slowest(series: RequestSeries) -> float:
    return max((bucket.p99_ns for bucket in series.buckets if bucket.p99_ns is not None), default=1e6)


def _usual(series: RequestSeries) -> float:
    """The median of a usual bucket: of the quicker half of them, so that a long fault does not count as usual."""
    p50 = sorted(bucket.p50_ns for bucket in series.buckets if bucket.p50_ns is not None)
    return p50[len(p50) // 4] if p50 else 1e6


def _quickest(series: RequestSeries) -> float:
    return min((bucket.p50_ns for bucket in series.buckets if bucket.p50_ns), default=1e6)


def _linear_most(slowest: float, limits: list[Threshold]) -> float:
    """Room for the data, and for those limits that are not far above it."""
    near = [t.value for t in limits if t.value <= slowest * 4]
    return max([slowest, *near, 1e3]) * 1.08


def _row(scale: Scale, plot: Html, kind: str, name: str) -> Html:
    labels = [
        el(
            "text",
            label,
            x="100%",
            dx="-8",
            y=_clear(scale.y(value), scale.height),
            text_anchor="end",
            dominant_baseline="middle",
        )
        for value, label in scale.ticks()
    ]
    axis = el("svg", labels, class_="gutter", height=scale.height, aria_hidden="true")
    return el("div", axis, plot, class_=f"row {name} {kind}")


def _clear(y: float, height: float) -> float:
    """Labels at the very edge move inside."""
    return min(max(y, 7.0), height - 6.0)


def _latency_plot(series: RequestSeries, backdrop: Backdrop, scale: Scale) -> Html:
    frame, buckets = backdrop.frame, series.buckets
    shapes = [
        _bands(backdrop, scale.height),
        _grid(scale),
        _density(series, frame, scale),
        *(
            el(
                "path",
                d=_path(buckets, frame, scale, series.width_s, pick),
                class_=f"line {name}",
                vector_effect="non-scaling-stroke",
            )
            for name, pick in (("p50", _p50), ("p99", _p99), ("p95", _p95))
        ),
    ]
    label = _summary(series)
    return _plot(scale.height, shapes, _limit_lines(backdrop, scale, series.name, "p95"), label)


def _p50(bucket: Bucket) -> float | None:
    return bucket.p50_ns


def _p95(bucket: Bucket) -> float | None:
    return bucket.p95_ns


def _p99(bucket: Bucket) -> float | None:
    return bucket.p99_ns


def _summary(series: RequestSeries) -> str:
    phases = ", ".join(f"{stats.phase} {duration(stats.p95_ns)}" for stats in series.phases if stats.requests)
    return f"Latency of {one_line(series.name, 80)}; p95 {phases}"


def _plot(height: float, shapes: Iterable[Html | None], overlay: Html, label: str) -> Html:
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


def _path(
    buckets: Sequence[Bucket], frame: Frame, scale: Scale, width_s: float, pick: Callable[[Bucket], float | None]
) -> str:
    """A line through the middles of the buckets, broken where nothing was measured."""
    parts, joined = [], False
    for bucket in buckets:
        value = pick(bucket)
        if value is None:
            joined = False
            continue
        x, y = frame.x(bucket.at_s + width_s / 2), scale.y(value)
        parts.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}" + ("" if joined else "h.01"))
        joined = True
    return "".join(parts)


def _bands(backdrop: Backdrop, height: float) -> Html:
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


def _grid(scale: Scale) -> Html:
    return join(
        el(
            "line",
            x1="0",
            x2=WIDTH,
            y1=scale.y(value),
            y2=scale.y(value),
            class_="grid",
            vector_effect="non-scaling-stroke",
        )
        for value, _ in scale.ticks()
    )


def _density(series: RequestSeries, frame: Frame, scale: Scale) -> Html | None:
    """The heat map behind the lines, one pixel a bucket and row, stretched to its place."""
    density, buckets = series.density, series.buckets
    if not density.rows or not buckets:
        return None
    left, right = frame.x(buckets[0].at_s), frame.x(buckets[-1].at_s + series.width_s)
    columns, rows, top, bottom = (
        _log_columns(density, scale) if isinstance(scale, Logarithmic) else _linear_columns(density, scale)
    )
    return el(
        "image", href=png_data_uri(columns, rows), x=left, y=top, width=max(right - left, 0.1), height=max(bottom - top, 0.1),
        preserveAspectRatio="none", class_="density",
    )  # fmt: skip


def _log_columns(density: Density, scale: Logarithmic) -> tuple[list[dict[int, float]], int, float, float]:
    """Rows as they are: only those that the scale holds."""
    first = next((row for row in range(density.rows) if density.floor_ns * density.ratio ** (row + 1) > scale.least), 0)
    last = max((row for row in range(density.rows) if density.floor_ns * density.ratio**row < scale.most), default=0)
    columns = [{row - first: float(count) for row, count in cells if first <= row <= last} for cells in density.cells]
    top, bottom = (
        scale.y(density.floor_ns * density.ratio ** (last + 1)),
        scale.y(density.floor_ns * density.ratio**first),
    )
    return columns, max(1, last - first + 1), top, bottom


def _linear_columns(density: Density, scale: Scale) -> tuple[list[dict[int, float]], int, float, float]:
    """Rows of equal height: a row of the density is spread over those that it covers."""
    spans = []
    for row in range(density.rows):
        low, high = (1 - scale.y(density.floor_ns * density.ratio**power) / scale.height for power in (row, row + 1))
        spans.append((int(low * _LINEAR_ROWS), max(int(low * _LINEAR_ROWS) + 1, round(high * _LINEAR_ROWS))))
    columns: list[dict[int, float]] = []
    for cells in density.cells:
        column: dict[int, float] = {}
        for row, count in cells:
            first, end = spans[row]
            for y in range(first, min(end, _LINEAR_ROWS)):
                column[y] = column.get(y, 0.0) + count / (end - first)
        columns.append(column)
    return columns, _LINEAR_ROWS, 0.0, scale.height


_ROLE_WORDS = {"steady": "steady", "tolerate": "tolerated", "abort": "abort"}


def _limit_lines(backdrop: Backdrop, scale: Scale, series: str, quantity: str) -> Html:
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


def _error_row(series: RequestSeries, backdrop: Backdrop, together: Sequence[RequestSeries]) -> Html:
    rates = [bucket.errors / bucket.requests for each in together for bucket in each.buckets if bucket.requests]
    limits = [t.value for t in backdrop.limits(series.name, "error-rate") if t.role != "abort"]
    scale = share_scale(max([*rates, *limits], default=0.0), _ERROR_HEIGHT)
    shapes = [
        _bands(backdrop, scale.height),
        _grid(scale),
        el("path", d=_steps(series, backdrop.frame, scale), class_="errors"),
    ]
    phases = ", ".join(f"{stats.phase} {percent(stats.error_rate)}" for stats in series.phases if stats.requests)
    label = f"Error rate of {one_line(series.name, 80)}; {phases}"
    overlay = join(
        [
            _limit_lines(backdrop, scale, series.name, "error-rate"),
            el("text", "error rate", x="8", y="16", class_="caption"),
        ]
    )
    return _row(scale, _plot(scale.height, shapes, overlay, label), "rate", "error-rate")


def _steps(series: RequestSeries, frame: Frame, scale: Scale) -> str:
    """Columns of error rate as one filled path; seconds without errors leave it out."""
    parts = []
    for bucket in series.buckets:
        if bucket.errors:
            left, right = frame.x(bucket.at_s), frame.x(bucket.at_s + series.width_s)
            parts.append(
                f"M{left:.1f} {scale.height:g}V{scale.y(bucket.errors / bucket.requests):.1f}H{right:.1f}V{scale.height:g}z"
            )
    return "".join(parts)


def _lanes(backdrop: Backdrop) -> Html:
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
    lanes = _plot(height, bars, join(texts), f"Stages of the run and when its {len(backdrop.faults)} faults were on")
    return join([el("span", class_="gutter"), lanes])


def _time_axis(frame: Frame) -> Html:
    labels = []
    for at_s, label in frame.ticks():
        x = frame.x(at_s)
        anchor = "start" if x < WIDTH * 0.02 else "end" if x > WIDTH * 0.97 else "middle"
        labels.append(el("text", label, x=frame.percent(at_s), y="15", text_anchor=anchor))
    return el("svg", labels, class_="plot time", width="100%", height="22", aria_hidden="true")


def _legend(series: RequestSeries) -> Html:
    outcomes = ", ".join(f"{value:,} {name}" for name, value in series.outcomes.items())
    return el(
        "p",
        *(el("span", el("i", class_=f"key {key}"), key) for key in ("p50", "p95", "p99")),
        el("span", el("i", class_="key density"), "how many requests took how long"),
        el("span", el("i", class_="key window"), "fault on"),
        el("span", f"{series.requests:,} requests: {outcomes}", class_="counts"),
        class_="legend",
    )
