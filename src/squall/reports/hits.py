"""How often a fault has hit, in words; and how long things took, where the mechanism measured that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.events import MEASURED, PASSED_BY
from squall.reports.wording import count, duration, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["counts_of", "nothing_hit", "worded"]

_COLUMNS = {"p50": "half within", "p99": "99 % within", "max": "at most"}
_US_NS = 1000
_NAME_MOST = 40


def counts_of(hits: Mapping[str, int]) -> dict[str, int]:
    """The counters that are counts."""
    return {name: value for name, value in hits.items() if not name.endswith(MEASURED)}


def nothing_hit(hits: Mapping[str, int]) -> bool:
    """Whether a mechanism counts, and has counted nothing but what passed it by."""
    return bool(hits) and not any(value for name, value in counts_of(hits).items() if name not in PASSED_BY)


def worded(hits: Mapping[str, int], *, zeros: bool = True) -> str:
    """All counters in a line, "1,000 delayed; injected half within 524 us, ..."; "" where there are none."""
    counted = [
        f"{count(value)} {one_line(name, _NAME_MOST)}" for name, value in counts_of(hits).items() if value or zeros
    ]
    times: dict[str, list[str]] = {}
    for name, value in hits.items():
        if name.endswith(MEASURED) and (value or zeros):
            what, _, column = name.removesuffix(MEASURED).rpartition("_")
            said = _COLUMNS.get(column, column)
            times.setdefault(what or column, []).append(f"{said} {duration(value * _US_NS)}")
    measured = [f"{one_line(what, _NAME_MOST)}: {', '.join(values)}" for what, values in times.items()]
    return "; ".join(([", ".join(counted)] if counted else []) + measured)
