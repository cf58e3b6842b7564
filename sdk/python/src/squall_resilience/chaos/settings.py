"""What the author or the operator of a service sets: off unless switched on, and never without an end."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from squall_resilience.errors import Problem, SettingsError
from squall_resilience.settings import Settings, choice, ratio, seconds, switch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DELAY_MAX_S", "NAME", "TOKEN", "ChaosSettings"]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a middleware may be called as an experiment's target: it is part of file names."""
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""A header's name (RFC 9110, section 5.6.2)."""
DELAY_MAX_S = 3600.0
_SEED_END = 1 << 64
_SECRET_LEAST = 16
_PREFIX = "SQUALL_CHAOS_"
_FOLDER = "SQUALL_CHAOS_DIR"
_SWITCHES = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_SWITCHED = {"enabled", "require_header", "driven"}
_WHOLE = {"abort_status", "seed"}


@dataclass(frozen=True)
class ChaosSettings(Settings):
    """Which requests are hit, and by what; the defaults do nothing. sdk/PROTOCOL.md says how they decide.

    Delays are in seconds, `sample` and `abort_share` from 0 to 1. Raises SettingsError with everything that is wrong.
    """

    enabled: bool = switch(default=False)
    """Whether these settings hit anything; needs `until`. What an experiment drives does not depend on it."""
    service: str = ""
    """Whose the requests are, in metrics, spans and logs."""
    header: str = "X-Chaos-Enabled"
    require_header: bool = switch(default=True)
    """Only requests that carry the header are hit."""
    sample: float = ratio(0.01)
    """The share of eligible requests that is hit."""
    delay_min: float = seconds(0.0, high=DELAY_MAX_S)
    delay_max: float = seconds(0.5, high=DELAY_MAX_S)
    """A delay is drawn evenly between the two."""
    abort_status: int | None = None
    """200 to 599; for gRPC also 1 to 16, its own."""
    abort_share: float = ratio(0.0)
    """Of those that are hit, how many are aborted instead of delayed."""
    seed: int = 0
    until: str | datetime | None = None
    """When it ends by itself: RFC 3339, with its time zone."""
    edge: Literal["honour", "strip"] = choice("honour", "strip")
    """`strip`: take the header away from requests, for a service that outsiders reach."""
    secret: str | None = None
    """With it, only a signed header counts (`squall_resilience.chaos.sign`)."""
    method: str = ""
    path: str = ""
    """The request's path; `*` stands for any characters. Empty: every one."""
    driven: bool = switch(default=False)
    """Whether an experiment may drive this middleware (target `middleware: NAME`)."""
    name: str = ""
    """Its name as such a target; empty: the service's."""

    @property
    def target(self) -> str:
        """What an experiment calls it."""
        return self.name or self.service

    @property
    def end(self) -> float | None:
        """When these settings end, in seconds since 1970."""
        when = _moment(self.until)
        return when.timestamp() if when is not None else None

    def conflicts(self) -> list[Problem]:
        """What is wrong with texts and numbers that have no range of their own, and between fields."""
        wrong = [problem for problem in self._single() if problem is not None]
        if self.delay_min > self.delay_max:
            wrong.append(Problem("delay_min", f"{self.delay_min:g}s", f"at most delay_max ({self.delay_max:g}s)"))
        if self.abort_status is not None and not self.abort_share:
            wrong.append(Problem("abort_share", "0", "above 0, where abort_status is set"))
        if self.abort_share and self.abort_status is None:
            wrong.append(Problem("abort_status", "null", "a status, where abort_share is above 0"))
        if self.enabled and self.until is None:
            wrong.append(
                Problem("until", "null", "the time at which chaos that is enabled ends (2026-12-31T18:00:00Z)")
            )
        if (self.enabled or self.driven) and self.service == "":
            wrong.append(Problem("service", "''", "the service's name, where enabled or driven is on"))
        elif self.driven and not NAME.fullmatch(self.target):
            wrong.append(
                Problem("name", repr(self.target), "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit")
            )
        return wrong

    def _single(self) -> tuple[Problem | None, ...]:
        status, secret = self.abort_status, self.secret
        return (
            *(_text(name, getattr(self, name)) for name in ("service", "method", "path", "name")),
            None if TOKEN.fullmatch(str(self.header))
            else Problem("header", repr(self.header), "the name of an HTTP header"),
            None if status is None or (_is_whole(status) and (1 <= status <= 16 or 200 <= status <= 599))  # noqa: PLR2004
            else Problem("abort_status", repr(status), "a status from 200 to 599, or for gRPC from 1 to 16, or null"),
            None if _is_whole(self.seed) and 0 <= self.seed < _SEED_END
            else Problem("seed", repr(self.seed), "a whole number from 0 to 2^64 - 1"),
            None if secret is None or (type(secret) is str and len(secret) >= _SECRET_LEAST)
            else Problem("secret", "what was given", f"a text of at least {_SECRET_LEAST} characters, or null"),
            None if self.until is None or _moment(self.until) is not None
            else Problem("until", repr(self.until), "a time with its zone (2026-12-31T18:00:00Z), or null"),
        )  # fmt: skip

    @classmethod
    def from_environment(
        cls, base: ChaosSettings | None = None, environ: Mapping[str, str] | None = None
    ) -> ChaosSettings:
        """`base` with what SQUALL_CHAOS_* say in its place. Raises SettingsError, each problem with its variable."""
        environ = os.environ if environ is None else environ
        known = {f"{_PREFIX}{field.name.upper()}": field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        problems = []
        for variable, text in environ.items():
            if not variable.startswith(_PREFIX) or variable == _FOLDER or not text:
                continue
            name = known.get(variable)
            if name is None:
                problems.append(Problem(variable, "this variable", f"one of {_FOLDER}, {', '.join(sorted(known))}"))
            else:
                given[name] = _from_text(name, text)
        try:
            made = replace(base or cls(), **given)
        except SettingsError as error:
            problems += [Problem(_PREFIX + p.path.upper(), p.said, p.allowed) for p in error.problems]
            raise SettingsError(tuple(problems), source="the environment") from None
        if problems:
            raise SettingsError(tuple(problems), source="the environment")
        return made


def _from_text(name: str, text: str) -> object:
    """What a variable means; the text itself where it means nothing, for the check that follows to refuse."""
    if name in _SWITCHED:
        return _SWITCHES.get(text.lower(), text)
    if name in _WHOLE:
        return int(text) if text.isascii() and text.isdecimal() else text
    if name in {"sample", "abort_share"} and not text.endswith("%"):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _moment(given: object) -> datetime | None:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            return None
    return given if isinstance(given, datetime) and given.tzinfo is not None else None


def _text(name: str, value: object) -> Problem | None:
    return None if isinstance(value, str) else Problem(name, repr(value), "a text")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
