"""The charts of one series of requests: lanes of stages and faults, latency, and the error rate, on one axis of time.

Every plot is an SVG of fixed height whose shapes are stretched to the width there is, while its text is placed by
percentages and stays as it is. Both latency scales are in the page and CSS shows one: no script is needed to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.html.backdrop import bands, lanes, limit_lines, plot, time_axis
from squall.reports.html.heatmap import density_image
from squall.reports.html.scales import WIDTH, Linear, Logarithmic, share_scale
from squall.reports.html.tags import Html, el, join
from squall.reports.wording import duration, one_line, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from squall.reports.html.backdrop import Backdrop
    from squall.reports.html.scales import Frame, Scale
    from squall.reports.record import Bucket, RequestSeries, Threshold

__all__ = ["chart"]

_LATENCY_HEIGHT = 300
_ERROR_HEIGHT = 110
_STALL_RATIO = 25
"""Where the slowest second is so many times slower than the usual one, the logarithmic scale is shown first."""


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
            el("div", lanes(backdrop), class_="row"),
            _row(log, _latency_plot(series, backdrop, log), "log", "latency"),
            _row(linear, _latency_plot(series, backdrop, linear), "linear", "latency"),
            _error_row(series, backdrop, together),
            el("div", el("span", class_="gutter"), time_axis(backdrop.frame), class_="row"),
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
        bands(backdrop, scale.height),
        _grid(scale),
        density_image(series, frame, scale),
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
    return plot(scale.height, shapes, limit_lines(backdrop, scale, series.name, "p95"), label)


def _p50(bucket: Bucket) -> float | None:
    return bucket.p50_ns


def _p95(bucket: Bucket) -> float | None:
    return bucket.p95_ns


def _p99(bucket: Bucket) -> float | None:
    return bucket.p99_ns


def _summary(series: RequestSeries) -> str:
    phases = ", ".join(f"{stats.phase} {duration(stats.p95_ns)}" for stats in series.phases if stats.requests)
    return f"Latency of {one_line(series.name, 80)}; p95 {phases}"


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


def _error_row(series: RequestSeries, backdrop: Backdrop, together: Sequence[RequestSeries]) -> Html:
    rates = [bucket.errors / bucket.requests for each in together for bucket in each.buckets if bucket.requests]
    limits = [t.value for t in backdrop.limits(series.name, "error-rate") if t.role != "abort"]
    scale = share_scale(max([*rates, *limits], default=0.0), _ERROR_HEIGHT)
    shapes = [
        bands(backdrop, scale.height),
        _grid(scale),
        el("path", d=_steps(series, backdrop.frame, scale), class_="errors"),
    ]
    phases = ", ".join(f"{stats.phase} {percent(stats.error_rate)}" for stats in series.phases if stats.requests)
    label = f"Error rate of {one_line(series.name, 80)}; {phases}"
    overlay = join(
        [
            limit_lines(backdrop, scale, series.name, "error-rate"),
            el("text", "error rate", x="8", y="16", class_="caption"),
        ]
    )
    return _row(scale, plot(scale.height, shapes, overlay, label), "rate", "error-rate")


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
