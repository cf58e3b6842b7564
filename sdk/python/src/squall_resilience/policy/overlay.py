"""Settings of a file over those of the code: named fields replace the code's, what is not named stays as in the code.

So the same file always leads to the same settings, whatever stood there before it. A field with metadata `part`, a class
of settings, holds settings itself, or None where that part is switched off; in a file it is a mapping, `true` or `{}` for
on, `false` or `null` for off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from squall_resilience.errors import Problem, SettingsError
from squall_resilience.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["differences", "overlay"]

S = TypeVar("S", bound=Settings)


def overlay(base: S, given: object, path: str = "") -> tuple[S | None, list[Problem]]:
    """`base` with what a file gives in its place, or None and every problem with its path."""
    prefix = f"{path}." if path else ""
    if given is None:
        return base, []
    if not isinstance(given, Mapping):
        return None, [Problem(path or type(base).__name__, repr(given), "a mapping of settings")]
    fields = {field.name: field for field in dataclasses.fields(base)}
    problems = [
        Problem(f"{prefix}{name}", "this name", f"one of {', '.join(sorted(fields))}")
        for name in given
        if name not in fields
    ]
    values: dict[str, object] = {}
    for name, field in fields.items():
        value = getattr(base, name)
        if name in given:
            value = given[name]
            if (of := field.metadata.get("part")) is not None:
                value, wrong = _part(of, getattr(base, name), value, prefix + name)
                problems += wrong
        values[name] = value
    try:
        made = type(base)(**cast("dict[str, Any]", values))
    except SettingsError as error:
        return None, problems + [Problem(prefix + each.path, each.said, each.allowed) for each in error.problems]
    return (None if problems else made), problems


def _part(of: type[Settings], base: Settings | None, given: object, path: str) -> tuple[Settings | None, list[Problem]]:
    if given is None or given is False:
        return None, []
    if given is True:
        given = {}
    if not isinstance(given, Mapping):
        return None, [Problem(path, repr(given), "a mapping of settings, true (on) or false (off)")]
    if base is not None:
        return overlay(base, given, path)
    return of.read(given, path)


def differences(old: Settings | None, new: Settings | None, path: str = "") -> Iterator[str]:
    """Paths of the fields that differ; of a part that is on or off now, its own."""
    if old is None or new is None or type(old) is not type(new):
        if old is not new:
            yield path
        return
    for field in dataclasses.fields(new):
        was, now = getattr(old, field.name), getattr(new, field.name)
        below = f"{path}.{field.name}" if path else field.name
        if isinstance(was, Settings) or isinstance(now, Settings):
            yield from differences(was, now, below)
        elif was != now:
            yield below
