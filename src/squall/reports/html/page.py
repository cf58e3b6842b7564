"""The page: one file that asks nothing of the network, says so by its content policy, and works without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from squall.reports.html import injected, sections
from squall.reports.html.backdrop import Backdrop, frame_of
from squall.reports.html.charts import chart
from squall.reports.html.parts import section
from squall.reports.html.tags import Html, el, join, trusted
from squall.reports.wording import one_line

if TYPE_CHECKING:
    from squall.reports.html.scales import Frame
    from squall.reports.html.tags import Child
    from squall.reports.record import RequestSeries, RunRecord

__all__ = ["backdrop_of", "chart_data", "page", "to_html"]

_CHARTS_MAX = 24

_LINKS = (
    ("latency", "Latency"), ("expectations", "Expectations"), ("injected", "Injected"), ("undo", "Undo log"),
    ("timeline", "Timeline"), ("document", "Document"), ("again", "Run again"),
)  # fmt: skip


def to_html(record: RunRecord) -> str:
    """The whole report of one run as one self-contained HTML file."""
    backdrop = backdrop_of(record, frame_of(record.length_s))
    ordered = sorted(record.requests, key=lambda series: -series.requests)[:_CHARTS_MAX]
    nav = el("nav", *(el("a", words, href=f"#{name}") for name, words in _LINKS), aria_label="Sections")
    return page(
        f"{one_line(record.judgement.verdict, 20)}: {one_line(record.name, 120)}",
        sections.headline(record),
        nav,
        el(
            "main",
            sections.warnings(record),
            sections.cards(record),
            _charts(ordered, backdrop),
            sections.findings(record),
            sections.gauge_section(record),
            injected.faults(record),
            injected.undo_log(record),
            sections.timeline(record),
            sections.document(record),
            sections.again(record),
            id="content",
        ),
        data=[chart_data(series, backdrop.frame) for series in ordered],
    )


def backdrop_of(record: RunRecord, frame: Frame) -> Backdrop:
    """What the charts of a run stand before."""
    return Backdrop(frame, record.stages, record.faults, record.injected, record.thresholds)


def _charts(ordered: list[RequestSeries], backdrop: Backdrop) -> Html:
    if not ordered:
        empty = el("p", "No requests were measured.", class_="empty")
        return section("latency", "Latency and errors", empty)
    first, *others = (chart(series, backdrop, number) for number, series in enumerate(ordered))
    more = el("details", el("summary", f"{len(others)} more series"), others, class_="more") if others else None
    return section("latency", "Latency and errors", first, more)


def chart_data(series: RequestSeries, frame: Frame) -> dict[str, object]:
    """What the read-out of a chart needs; latencies in ms."""

    def ms(value: float | None) -> float | None:
        return None if value is None else float(f"{value / 1e6:.4g}")

    rows = [[round(b.at_s, 3), b.requests, b.errors, ms(b.p50_ns), ms(b.p95_ns), ms(b.p99_ns)] for b in series.buckets]
    return {"start": frame.start_s, "end": frame.end_s, "zero": frame.zero_s, "width": series.width_s, "rows": rows}


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def page(title: str, *body: Child, data: object) -> str:
    """A whole document around a body; `data` is what the script reads.

    The policy allows the one style and the one script by their hashes, and images that are in the page itself.
    """
    style, script = _asset("style.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; form-action 'none'"
    payload = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", trusted(style)),
    )
    skip = el("a", "Skip to the content", href="#content", class_="skip")
    data_block = el("script", trusted(payload), type="application/json", id="data")
    whole = el("html", head, el("body", skip, join(body), data_block, el("script", trusted(script))), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"
