"""The report as one versioned JSON document, for programs: docs/how-to/read-a-report.md describes every field.

Fields are added within a version and never change their meaning; `squall-report` rises when one does.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from squall.reports.wording import printable

if TYPE_CHECKING:
    from squall.reports.record import GaugeSeries, RequestSeries, RunRecord

__all__ = ["VERSION", "to_dict", "to_json"]

VERSION = 1


def to_json(record: RunRecord) -> str:
    """The report as JSON text with a line end at its end."""
    return json.dumps(to_dict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_dict(record: RunRecord) -> dict[str, Any]:
    """The report as JSON values."""
    injected = record.injected
    whole = {
        "squall-report": VERSION,
        "run": record.run,
        "name": record.name,
        "description": record.description,
        "squall": record.squall,
        "seed": record.seed,
        "trace_id": record.trace_id or None,
        "trace_url": record.trace_url or None,
        "started_wall_ns": record.started_wall_ns,
        "length_s": round(record.length_s, 6),
        "verdict": record.judgement.verdict,
        "reason": record.judgement.reason,
        "judged": record.judgement.by_analysis,
        "detect_ns": record.judgement.detect_ns,
        "recover_ns": record.judgement.recover_ns,
        "findings": [dataclasses.asdict(finding) for finding in record.judgement.findings],
        "ending": dataclasses.asdict(record.ending),
        "abort": dataclasses.asdict(record.abort) if record.abort else None,
        "injected": dataclasses.asdict(injected) if injected else None,
        "stages": [dataclasses.asdict(span) for span in record.stages],
        "faults": [dataclasses.asdict(fault) for fault in record.faults],
        "undo": [dataclasses.asdict(step) for step in record.undo],
        "thresholds": [dataclasses.asdict(threshold) for threshold in record.thresholds],
        "timeline": [dataclasses.asdict(moment) for moment in record.timeline],
        "requests": [_requests(series) for series in record.requests],
        "gauges": [_gauge(series) for series in record.gauges],
        "load_behind": record.load_behind,
        "notes": list(record.notes),
        "host": record.host,
        "document": record.document,
    }
    return {key: _clean(value) for key, value in whole.items()}


def _requests(series: RequestSeries) -> dict[str, Any]:
    return {
        "name": series.name,
        "requests": series.requests,
        "outcomes": series.outcomes,
        "phases": [{**dataclasses.asdict(stats), "error_rate": stats.error_rate} for stats in series.phases],
        "bucket_s": series.width_s,
        "buckets": [bucket._asdict() for bucket in series.buckets],
    }


def _gauge(series: GaugeSeries) -> dict[str, Any]:
    return {"name": series.name, "points": [point._asdict() for point in series.points]}


def _clean(value: Any) -> Any:
    """What JSON and UTF-8 cannot hold (infinities, halves of surrogate pairs) made harmless, all the way down."""
    if isinstance(value, dict):
        return {printable(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
