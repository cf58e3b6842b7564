"""Where something stands in a document, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DocumentError", "Path", "Place", "Problem", "dotted"]

Path = tuple[str | int, ...]
"""The way from a document's root to a value: ("spec", "faults", 0, "latency")."""

PROBLEMS_MAX = 100
"""More than these are counted, not listed."""

_STEP_SHOWN_MAX = 80


@dataclass(frozen=True, order=True)
class Place:
    """A place in a file; line and column count from 1, 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, on which path, what, what is allowed, and the nearest right spelling."""

    place: Place
    path: Path
    what: str
    allowed: str = ""
    nearest: str = ""

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        allowed = f" (allowed: {self.allowed})" if self.allowed else ""
        return f"{self.place}: {dotted(self.path)}: {self.what}{hint}{allowed}"


class DocumentError(InputError):
    """A document is wrong: all of its problems at once, sorted by place, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.place))
        lines = [str(problem) for problem in self.problems[:PROBLEMS_MAX]]
        if len(self.problems) > PROBLEMS_MAX:
            lines.append(f"... and {len(self.problems) - PROBLEMS_MAX} more")
        super().__init__("\n".join(lines))


def _short(text: str) -> str:
    return text if len(text) <= _STEP_SHOWN_MAX else text[:_STEP_SHOWN_MAX] + "..."


def dotted(path: Path) -> str:
    """The path as people write it: `spec.faults[0].latency`; the root is "document"."""
    text = ""
    for step in (step if isinstance(step, int) else _short(step) for step in path):
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "document"
