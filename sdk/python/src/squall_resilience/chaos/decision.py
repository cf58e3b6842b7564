"""Which requests are hit, and how: rules 3 to 7 of sdk/PROTOCOL.md, without any I/O."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from squall_resilience.chaos.draws import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Hit", "Rule", "Seen", "Source", "fits", "header_says", "sign"]

HeaderSays = Literal["yes", "no", "refused"]
_NOT_MEANT = frozenset({"", "0", "false", "off"})
_SIGNED = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
_FRESH_S = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """A request, as far as the decision needs it; `values` finds a header's by its name in any case."""

    method: str
    path: str
    values: Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one source of faults hits, and with what; times in nanoseconds. `fault` is a driven one's id."""

    fault: str = ""
    require_header: bool = True
    header: str = "X-Chaos-Enabled"
    sample: float = 0.0
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_min_ns: int = 0
    delay_max_ns: int = 0
    abort_status: int | None = None
    abort_share: float = 0.0
    abort_body: str = ""
    abort_headers: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def matches(self, seen: Seen) -> bool:
        """Whether this is one of the requests that are meant."""
        if self.method and self.method.upper() != seen.method.upper():
            return False
        if self.path and not fits(self.path, seen.path):
            return False
        return all(any(fits(wanted, value) for value in seen.values(name)) for name, wanted in self.headers.items())


@dataclass(frozen=True, slots=True)
class Hit:
    """What happens to one request: a delay in nanoseconds, or an abort."""

    rule: Rule
    delay_ns: int = 0
    status: int | None = None

    @property
    def reason(self) -> Literal["delay", "abort"]:
        """As the metric and the log have it."""
        return "delay" if self.status is None else "abort"


class Source:
    """A rule, and how many eligible requests it has seen; safe under threads."""

    __slots__ = ("_numbers", "rule")

    def __init__(self, rule: Rule, numbers: itertools.count[int] | None = None) -> None:
        self.rule = rule
        self._numbers = numbers or itertools.count()

    def given(self, rule: Rule) -> Source:
        """The source with another rule, that goes on counting where this one is."""
        return Source(rule, self._numbers)

    def decide(self) -> Hit | None:
        """Draw for the next eligible request."""
        rule, number = self.rule, next(self._numbers)
        if draw(rule.seed, number, 0) >= rule.sample:
            return None
        if rule.abort_status is not None and draw(rule.seed, number, 1) < rule.abort_share:
            return Hit(rule, status=rule.abort_status)
        span = float(rule.delay_max_ns - rule.delay_min_ns)
        return Hit(rule, delay_ns=rule.delay_min_ns + int(draw(rule.seed, number, 2) * span))


def header_says(values: Sequence[str], secret: str | None, now: float) -> HeaderSays:
    """What the values of the header mean at this time (seconds since 1970); only the first one counts."""
    value = values[0].strip() if values else ""
    if value.lower() in _NOT_MEANT:
        return "no"
    if secret is None:
        return "yes"
    parts = _SIGNED.fullmatch(value)
    if parts is None:
        return "refused"
    right = hmac.compare_digest(_digest(secret, parts[1]), parts[2])
    return "yes" if right and abs(int(now) - int(parts[1])) <= _FRESH_S else "refused"


def sign(secret: str, now: float) -> str:
    """The header's value that counts with this secret, for the 300 s around `now` (seconds since 1970)."""
    moment = str(int(now))
    return f"{moment}.{_digest(secret, moment)}"


def _digest(secret: str, moment: str) -> str:
    return hmac.new(secret.encode(), moment.encode(), hashlib.sha256).hexdigest()


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says, whole; `*` stands for any characters. Never slower than linear per star."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
