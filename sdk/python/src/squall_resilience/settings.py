"""Settings of patterns: frozen dataclasses whose ranges stand in their fields, checked all at once.

In a file, a duration is "250ms", "3s", "5m" or a number of seconds; a ratio "40%" or a number from 0 to 1.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from squall_resilience.errors import Problem, SettingsError

__all__ = ["Settings", "choice", "count", "ratio", "seconds", "switch"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")


@dataclass(frozen=True)
class _Range:
    """What a field takes."""

    of: Literal["seconds", "ratio", "count", "switch", "choice"]
    low: float = 0.0
    high: float = float("inf")
    optional: bool = False
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.of == "choice":
            return "one of " + ", ".join(self.choices)
        if self.of == "switch":
            return "true or false"
        what = {"seconds": "a duration", "ratio": "a ratio", "count": "a whole number"}[self.of]
        unit = "s" if self.of == "seconds" else ""
        bounds = f" from {self.low:g}{unit}" + (f" to {self.high:g}{unit}" if self.high < float("inf") else "")
        return what + bounds + (", or null" if self.optional else "")

    def read(self, value: object) -> object:
        """The value in base units. Raises ValueError when it is not in range."""
        if value is None and self.optional:
            return None
        if self.of in {"choice", "switch"}:
            if value in self.choices if self.of == "choice" else isinstance(value, bool):
                return value
            raise ValueError
        number = self._number(value)
        if not self.low <= number <= self.high:  # false for NaN too
            raise ValueError
        return int(number) if self.of == "count" else number

    def _number(self, value: object) -> float:
        if isinstance(value, str):
            if self.of == "seconds":
                parts = _DURATION.findall(value)
                if parts and "".join(number + unit for number, unit in parts) == value:
                    return sum(float(number) * _UNITS[unit] for number, unit in parts)
            elif self.of == "ratio" and value.endswith("%"):
                return float(value[:-1]) / 100
            raise ValueError
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError  # noqa: TRY004 - one error for whatever is not in range
        if self.of == "count" and value != int(value):
            raise ValueError
        return float(value)


def seconds(default: float | None, low: float = 0.0, high: float = 86_400.0) -> Any:
    """A field that holds a duration in seconds, within [low, high]; None is allowed where it is the default."""
    return dataclasses.field(default=default, metadata={"range": _Range("seconds", low, high, default is None)})


def ratio(default: float | None, low: float = 0.0, high: float = 1.0, *, optional: bool = False) -> Any:
    """A field that holds a ratio within [low, high]; None is allowed where it is the default, or `optional`."""
    allowed = _Range("ratio", low, high, optional or default is None)
    return dataclasses.field(default=default, metadata={"range": allowed})


def count(default: int | None, low: int = 0, high: int = 1_000_000, *, optional: bool = False) -> Any:
    """A field that holds a whole number within [low, high]; None is allowed where it is the default, or `optional`."""
    allowed = _Range("count", low, high, optional or default is None)
    return dataclasses.field(default=default, metadata={"range": allowed})


def switch(*, default: bool) -> Any:
    """A field that is on or off."""
    return dataclasses.field(default=default, metadata={"range": _Range("switch")})


def choice(default: str, *others: str) -> Any:
    """A field that holds one of some words."""
    return dataclasses.field(default=default, metadata={"range": _Range("choice", choices=(default, *others))})


@dataclass(frozen=True)
class Settings:
    """Base of every pattern's settings; subclasses are frozen dataclasses and extend `conflicts`.

    Making one with values out of range raises SettingsError with all that is wrong.
    """

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            given, allowed = getattr(self, field.name), field.metadata.get("range")
            if allowed is None:
                continue
            try:
                object.__setattr__(self, field.name, allowed.read(given))
            except (ValueError, TypeError, OverflowError):
                problems.append(Problem(field.name, repr(given), str(allowed)))
        problems += () if problems else self.conflicts()
        if problems:
            raise SettingsError(tuple(problems), source=type(self).__name__)

    def conflicts(self) -> list[Problem]:
        """What is wrong between fields that are each in range."""
        return []

    @classmethod
    def read(cls, given: object, path: str = "") -> tuple[Self | None, list[Problem]]:
        """Settings from a mapping as a file holds it, or None and every problem, each with its path."""
        prefix = f"{path}." if path else ""
        if not isinstance(given, Mapping):
            return None, [Problem(path or cls.__name__, repr(given), "a mapping of settings")]
        known = {field.name for field in dataclasses.fields(cls)}
        problems = [
            Problem(f"{prefix}{name}", "this name", f"one of {', '.join(sorted(known))}")
            for name in given
            if name not in known
        ]
        try:
            made = cls(**{str(name): cast("Any", value) for name, value in given.items() if name in known})
        except SettingsError as error:
            problems += [Problem(prefix + each.path, each.said, each.allowed) for each in error.problems]
            return None, problems
        return (None if problems else made), problems
