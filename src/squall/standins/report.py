"""What a stand-in saw, and what of it was not as its script expects."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Report", "StandInMismatch", "Unexpected", "Unused", "count_calls"]

SHOWN_MAX = 20


def count_calls(count: int) -> str:
    """So many calls, in words: "1 call", "3 calls"."""
    return f"{count} call{'' if count == 1 else 's'}"


class StandInMismatch(AssertionError):  # noqa: N818 - what a test fails with
    """Calls came that were not expected, or expected ones did not come; `report` has them all."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class Call:
    """A call as it came in."""

    number: int
    """Counted from 1 over all calls."""
    at: float
    """Seconds since the stand-in began."""
    method: str
    path: str
    """Decoded, without the query."""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case, in the order they came in."""
    body: bytes = field(default=b"", repr=False)
    """The whole body; b"" once the bodies of all calls together are beyond what is kept."""
    expectation: str | None = None
    """The title of the expectation that took it; None when it was unexpected."""
    answer: str = ""
    """What it was answered with: a status, or the name of a failure."""
    gave_up: bool = False
    """The client closed its side before it had the whole answer."""

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        return next((value for each, value in self.headers if each == name.lower()), None)

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return f"{self.method} {self.path}{'?' + query if query else ''}"


@dataclass(frozen=True)
class Unexpected:
    """A call that no expectation takes, and why."""

    call: Call
    reason: str

    def __str__(self) -> str:
        return f"unexpected call {self.call.number}: {self.call}: {self.reason}"


@dataclass(frozen=True)
class Unused:
    """An expectation that was met less often than it must be."""

    expectation: str
    expected: int
    seen: int

    def __str__(self) -> str:
        return f"unused: {self.expectation}: expected at least {count_calls(self.expected)}, saw {self.seen}"


@dataclass(frozen=True)
class Report:
    """The whole of it. `calls` and `unexpected` are bounded lists; the totals count everything."""

    name: str
    total: int
    calls: tuple[Call, ...]
    unexpected_total: int
    unexpected: tuple[Unexpected, ...]
    unused: tuple[Unused, ...]
    met: tuple[tuple[str, int], ...]
    """Each expectation's title and how many calls it took."""

    @property
    def ok(self) -> bool:
        """Whether every call was expected and every expectation was met."""
        return self.unexpected_total == 0 and not self.unused

    def __str__(self) -> str:
        verdict = "as expected" if self.ok else "not as expected"
        lines = [f"{self.name}: {count_calls(self.total)}, {verdict}"]
        lines += [f"  {count} x {title}" for title, count in self.met]
        lines += [f"  {each}" for each in self.unexpected[:SHOWN_MAX]]
        if self.unexpected_total > SHOWN_MAX:
            lines.append(f"  ... and {self.unexpected_total - SHOWN_MAX} more unexpected calls")
        lines += [f"  {each}" for each in self.unused]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values, without the bodies of the calls."""
        return {
            "name": self.name,
            "ok": self.ok,
            "total": self.total,
            "expectations": [{"name": title, "calls": count} for title, count in self.met],
            "unexpectedTotal": self.unexpected_total,
            "unexpected": [{"call": _shown(each.call), "reason": each.reason} for each in self.unexpected],
            "unused": [
                {"name": each.expectation, "expected": each.expected, "seen": each.seen} for each in self.unused
            ],
            "calls": [_shown(call) for call in self.calls],
        }


def _shown(call: Call) -> dict[str, Any]:
    return {
        "number": call.number,
        "at": round(call.at, 6),
        "method": call.method,
        "path": call.path,
        "query": [list(pair) for pair in call.query],
        "expectation": call.expectation,
        "answer": call.answer,
        "gaveUp": call.gave_up,
    }
