"""Which expectation a call meets, and how a call that meets none differs from the nearest."""

from __future__ import annotations

import difflib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from squall.standins.report import count_calls
from squall.units import Duration

if TYPE_CHECKING:
    from squall.standins.report import Call
    from squall.standins.script import Answer, Expectation, Match, Script

__all__ = ["Book", "Refusal", "Turn", "differences", "holds"]

_SHOWN_MAX = 80


@dataclass(frozen=True)
class Turn:
    """A call is expected: by which expectation, and what it gets after which delay."""

    expectation: str
    answer: Answer
    delay: Duration


@dataclass(frozen=True)
class Refusal:
    """A call is not expected: why, which expectation is nearest and how the call differs from that."""

    reason: str
    nearest: str
    differences: tuple[str, ...]


class Book:
    """How often each expectation was met so far; decides about calls one at a time."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._met: Counter[int] = Counter()
        self._reached = 0
        self._draws = [
            random.Random(f"{script.seed}/{index}")  # noqa: S311 - a seed shall decide it
            for index in range(len(script.expectations))
        ]

    def met(self) -> list[tuple[Expectation, int]]:
        """Every expectation with the number of calls that it took."""
        return [(expectation, self._met[index]) for index, expectation in enumerate(self._script.expectations)]

    def decide(self, call: Call) -> Turn | Refusal:
        """Take the call for the expectation that it meets, or say why there is none."""
        used_up: list[str] = []
        for index in self._candidates():
            expectation = self._script.expectations[index]
            if differences(expectation.match, call):
                continue
            if expectation.most is not None and self._met[index] >= expectation.most:
                used_up.append(f"{expectation.title!r} has had its {count_calls(expectation.most)}")
                continue
            return self._take(index)
        return self._refuse(call, used_up)

    def _candidates(self) -> range:
        """Who may take the next call: all, or in order the present one and those that may follow it."""
        count = len(self._script.expectations)
        if not self._script.in_order:
            return range(count)
        end = self._reached
        while end < count and self._met[end] >= self._script.expectations[end].least:
            end += 1
        return range(self._reached, min(end + 1, count))

    def _take(self, index: int) -> Turn:
        expectation = self._script.expectations[index]
        answer = expectation.answer_to(self._met[index])
        self._met[index] += 1
        self._reached = max(self._reached, index)
        delay = int(answer.delay)
        if answer.jitter:
            delay += round(self._draws[index].uniform(-int(answer.jitter), int(answer.jitter)))
        return Turn(expectation.title, answer, Duration(max(delay, 0)))

    def _refuse(self, call: Call, used_up: list[str]) -> Refusal:
        found = [(differences(each.match, call), each) for each in self._script.expectations]
        index = min(range(len(found)), key=lambda index: _distance(*found[index], call))
        differs, nearest = found[index]
        if used_up:
            reason = "; ".join(used_up)
        elif not differs:  # only in order can something match that may not take the call
            waiting = self._script.expectations[self._candidates()[-1]].title
            reason = f"it is not the turn of {nearest.title!r}: {waiting!r} comes first"
            if index < self._reached:
                reason = f"the turn of {nearest.title!r} is over"
        else:
            reason = f"no expectation matches; the nearest is {nearest.title!r}: {'; '.join(differs)}"
        return Refusal(reason, nearest.title, tuple(differs))


def _distance(differs: list[str], expectation: Expectation, call: Call) -> float:
    """How far a call is from an expectation: a condition counts 1, a path the more the less alike it is."""
    if not any(each.startswith("path") for each in differs):
        return len(differs)
    alike = difflib.SequenceMatcher(None, (expectation.match.path or "*")[:_SHOWN_MAX], call.path[:_SHOWN_MAX]).ratio()
    return len(differs) + 3 * (1 - alike)


def differences(match: Match, call: Call) -> list[str]:
    """How a call differs from what is asked, one line a condition; empty when it matches."""
    found = []
    if match.method is not None and match.method.upper() != call.method.upper():
        found.append(f"method is {call.method}, not {match.method.upper()}")
    if match.path is not None and not _pattern(match.path, segments=True).fullmatch(call.path):
        found.append(f"path is {_short(call.path)}, not {match.path}")
    found += _missing("query parameter", match.query, call.query)
    found += _missing("header", {name.lower(): value for name, value in match.headers.items()}, call.headers)
    if match.body is not None and not _pattern(match.body).fullmatch(call.body.decode("utf-8", "replace")):
        found.append(f"body is {_short(call.body.decode('utf-8', 'replace'))!r}, not {_short(match.body)!r}")
    if match.json_subset is not None:
        found += _json_differences(match.json_subset, call.body)
    return found


def _missing(what: str, wanted: dict[str, str], given: tuple[tuple[str, str], ...]) -> list[str]:
    found = []
    for name, value in wanted.items():
        values = [each for key, each in given if key == name]
        if not values:
            found.append(f"{what} {name} is missing")
        elif not any(_pattern(value).fullmatch(each) for each in values):
            found.append(f"{what} {name} is {_short(', '.join(values))!r}, not {value!r}")
    return found


def _json_differences(wanted: object, body: bytes) -> list[str]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return ["body is no JSON"]
    return holds(wanted, given, "json")


def holds(wanted: object, given: object, at: str) -> list[str]:
    """Where a JSON value lacks what is wanted of it: at most one line for each wanted value."""
    if isinstance(wanted, dict):
        if not isinstance(given, dict):
            return [f"{at} is {_short(json.dumps(given))}, not a mapping"]
        found = []
        for key, value in wanted.items():
            found += holds(value, given[key], f"{at}.{key}") if key in given else [f"{at}.{key} is missing"]
        return found
    if isinstance(wanted, (list, tuple)):
        if not isinstance(given, list) or len(given) != len(wanted):
            return [f"{at} is {_short(json.dumps(given))}, not a list of {len(wanted)}"]
        pairs = enumerate(zip(wanted, given, strict=True))
        return [line for index, (one, other) in pairs for line in holds(one, other, f"{at}[{index}]")]
    same = wanted == given and isinstance(wanted, bool) == isinstance(given, bool)
    return [] if same else [f"{at} is {_short(json.dumps(given))}, not {_short(json.dumps(wanted))}"]


@lru_cache(maxsize=4096)
def _pattern(glob: str, *, segments: bool = False) -> re.Pattern[str]:
    """A `*` pattern, with `segments` also `{name}`, as a regular expression that takes linear time a star."""
    first, *rest = [_fixed(part, segments=segments) for part in re.sub(r"\*+", "*", glob).split("*")]
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _fixed(text: str, *, segments: bool) -> str:
    if not segments:
        return re.escape(text)
    pieces = re.split(r"\{[A-Za-z_][A-Za-z0-9_]*\}", text)
    return "[^/]+".join(re.escape(piece) for piece in pieces)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
