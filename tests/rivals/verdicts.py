"""What a cell of the table says, and what a row is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Literal

__all__ = ["ABSENT", "LIBRARIES", "NO", "YES", "Check", "Row", "Verdict", "each", "partly", "said", "versions"]

LIBRARIES = {
    "squall-resilience": "squall_resilience",
    "circuitbreaker": "circuitbreaker",
    "pybreaker": "pybreaker",
    "hyx": "hyx",
    "purgatory": "purgatory",
    "pyresilience": "pyresilience",
    "interlock-cb": "interlock",
    "tenacity": "tenacity",
    "stamina": "stamina",
    "limits": "limits",
    "aiolimiter": "aiolimiter",
}
"""Distributions, and what one imports."""


@dataclass(frozen=True)
class Verdict:
    """One cell: what was seen, and a note that says more."""

    word: Literal["yes", "no", "partly", "-"]
    note: str = ""


YES = Verdict("yes")
NO = Verdict("no")
ABSENT = Verdict("-")
"""The library has nothing of this kind at all."""

Check = Callable[[], Verdict]


def partly(note: str) -> Verdict:
    """Some of it; the note says what."""
    return Verdict("partly", note)


def said(seen: bool, note: str = "") -> Verdict:  # noqa: FBT001 - it is what was seen
    """Yes or no, by what was seen."""
    return Verdict("yes" if seen else "no", note)


@dataclass(frozen=True)
class Row:
    """A feature: `checks` run and see, by library; any other library must not even name it in public.

    `kind`: the pattern that the feature is a part of; libraries without that pattern get a dash. `words`: parts of names
    of which one would be there if the feature were. `explained`: names that hold such a word and mean something else.
    """

    title: str
    checks: Mapping[str, Check]
    words: tuple[str, ...] = ()
    kind: str = ""
    explained: Mapping[str, str] = field(default_factory=dict)


def each(check: Callable[[str], Verdict], *libraries: str) -> dict[str, Check]:
    """The same check for all these libraries."""
    return {library: partial(check, library) for library in libraries}


def versions() -> dict[str, str]:
    """Which version of each library stands here."""
    return {name: version(name) for name in LIBRARIES}
