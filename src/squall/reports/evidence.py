"""The verdict as an event holds it, with every value made what its kind promises, or refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from squall.events import Finding, Verdict
from squall.reports.record import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.events import VerdictReached

__all__ = ["judgement_from"]


def judgement_from(event: VerdictReached) -> Judgement:
    """The judgement of a verdict's event; TypeError, ValueError or AttributeError where it is none."""
    if event.verdict not in get_args(Verdict):
        raise ValueError(f"{event.verdict!r} is no verdict")
    findings = tuple(_finding(finding) for finding in event.findings)
    return Judgement(event.verdict, str(event.reason), findings, _ns(event.detect_ns), _ns(event.recover_ns))


def _ns(value: int | None) -> int | None:
    return None if value is None else int(value)


def _finding(finding: Finding) -> Finding:
    return Finding(
        str(finding.expectation),
        str(finding.series),
        str(finding.outcome),  # type: ignore[arg-type]  # a newer one's outcome is shown by its own word
        str(finding.reason),
        _number(finding.threshold),
        str(finding.unit),  # type: ignore[arg-type]  # and a newer unit as a bare number
        {str(phase): _numbers(numbers) for phase, numbers in finding.numbers.items()},
    )


def _numbers(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """Those of a phase that are numbers at all."""
    known = ((str(name), _number(value)) for name, value in numbers.items())
    return {name: value for name, value in known if value is not None}


def _number(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return value
