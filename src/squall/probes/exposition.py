"""Reads the Prometheus text format (exposition format 0.0.4, and what OpenMetrics has in common with it)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Metric", "read_exposition"]

_BARE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]+([^ \t]+)(?:[ \t].*)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"[ \t]*,?[ \t]*')
_ESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample: its name, labels and value."""

    name: str
    labels: dict[str, str]
    value: float


def read_exposition(text: str, prefix: str = "") -> Iterator[Metric]:
    """The samples whose names begin with `prefix`; ValueError, with the line, for what is no such text."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(prefix) or not line.strip() or line.startswith("#"):
            if prefix and line.startswith("<"):
                raise ValueError(f"line {number} is no metric: {line[:60]!r}")
            continue
        yield _metric(line, number)


def _metric(line: str, number: int) -> Metric:
    """One line. A `}` may stand in a label's value, so labels are read one by one, not to the first brace."""
    name, brace, rest = line.partition("{")
    labels: dict[str, str] = {}
    if not brace:
        found = _BARE.match(line)
        if found is None:
            raise ValueError(f"line {number} is no metric: {line[:60]!r}")
        return Metric(found[1], labels, _value(found[2], number))
    at = 0
    while (pair := _LABEL.match(rest, at)) is not None:
        labels[pair[1]] = re.sub(r"\\.", lambda each: _ESCAPED.get(each[0], each[0]), pair[2])
        at = pair.end()
    words = rest[at + 1 :].split()
    if rest[at : at + 1] != "}" or not words:
        raise ValueError(f"line {number} is no metric: {line[:60]!r}")
    return Metric(name.strip(), labels, _value(words[0], number))


def _value(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"line {number}: {text[:30]!r} is no number") from None
