"""The limits that a run's document sets, read leniently: a document of a newer Squall shows what is understood of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from squall.errors import UnitError
from squall.experiment.series import LOAD_SERIES
from squall.reports.record import Threshold
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOOKS", "probe_kinds", "read_thresholds"]

Role = Literal["steady", "tolerate", "abort"]

LOOKS = frozenset({"process", "prometheus"})
"""Kinds of probe that look at something and send no request: their series is no latency."""


def read_thresholds(document: dict[str, Any]) -> tuple[Threshold, ...]:
    """Every p95 and error rate that the document limits, in its order: steady state, tolerate, abort."""
    found: list[Threshold] = []
    load = document.get("load")
    shared = load.get("http") if isinstance(load, dict) else None
    for expectation in _mappings(document.get("steadyState")):
        by_load = shared is not None and expectation.get("http") == shared
        found += _limits("steady", expectation, LOAD_SERIES if by_load else str(expectation.get("name", "")))
    for role in ("tolerate", "abort"):
        section = document.get(role)
        if isinstance(section, dict):
            found += _limits(role, section)  # type: ignore[arg-type]  # the loop's literals are roles
    return tuple(found)


def probe_kinds(document: dict[str, Any]) -> dict[str, str]:
    """The kind of each probe by its name, as far as the document tells."""
    kinds = ("http", "tcp", "process", "command", "prometheus", "runtime")
    return {
        str(expectation.get("name", "")): next((kind for kind in kinds if expectation.get(kind) is not None), "")
        for expectation in _mappings(document.get("steadyState"))
    }


def _mappings(items: object) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _limits(role: Role, section: dict[str, Any], series: str = "") -> Iterator[Threshold]:
    p95, error_rate = section.get("p95"), section.get("errorRate", section.get("error_rate"))
    try:
        if isinstance(p95, str):
            yield Threshold(role, "p95", float(Duration.parse(p95)), series)
        if isinstance(error_rate, str):
            yield Threshold(role, "error-rate", float(Ratio.parse(error_rate)), series)
    except UnitError:
        return  # a newer spelling: the document itself is shown, the line in the chart is not
