"""Every error of this distribution, in one tree.

ResilienceError
├── Rejected                a pattern did not let the call through; nothing was sent
│   ├── BreakerOpen
│   ├── BulkheadFull
│   ├── RateLimited
│   ├── Overloaded          adaptive concurrency, or a server that sheds
│   └── RetryBudgetSpent    only as the `__cause__` note of the last failure: a retry hides no failure
├── DeadlineExceeded        (also a TimeoutError) the call took longer than it was given
├── GroupFailed             too few members of a group succeeded
└── SettingsError           (also a ValueError) settings out of range: all of them, each with its path
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BreakerOpen",
    "BulkheadFull",
    "DeadlineExceeded",
    "GroupFailed",
    "Overloaded",
    "Problem",
    "RateLimited",
    "Rejected",
    "ResilienceError",
    "RetryBudgetSpent",
    "SettingsError",
    "origin_of",
]


class ResilienceError(Exception):
    """What every error here is."""

    link = ""
    """Kind of the pattern at which the call stopped: "breaker", "timeout", ..."""

    def __init__(self, message: str, *, dependency: str = "") -> None:
        super().__init__(message)
        self.dependency = dependency


class Rejected(ResilienceError):
    """A pattern did not let the call through: it was never sent, so sending it again later is safe.

    `retry_after` is the time in seconds after which another try may be let through; None when nobody can tell.
    """

    def __init__(self, message: str, *, dependency: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, dependency=dependency)
        self.retry_after = retry_after


class BreakerOpen(Rejected):
    """The dependency's breaker is open, or half-open with its share of trial calls given out."""

    link = "breaker"


class BulkheadFull(Rejected):
    """As many calls are under way, and wait, as may be."""

    link = "bulkhead"


class RateLimited(Rejected):
    """More calls a second than allowed."""

    link = "rate_limiter"


class Overloaded(Rejected):
    """More concurrent calls than the limit that was found from the latency."""

    link = "adaptive_concurrency"


class RetryBudgetSpent(Rejected):
    """A failed call was not sent again, because the dependency's retry budget is spent."""

    link = "retry"


class DeadlineExceeded(ResilienceError, TimeoutError):
    """The call, or what it is part of, took longer than it was given.

    `seconds` is what it was given; `begun` is false when there was no time left to begin: nothing was sent.
    """

    link = "timeout"

    def __init__(self, message: str, *, dependency: str = "", seconds: float | None = None, begun: bool = True) -> None:
        super().__init__(message, dependency=dependency)
        self.seconds = seconds
        self.begun = begun


class GroupFailed(ResilienceError):
    """Fewer members of a group succeeded than were asked for; `errors` holds each member's own, by name."""

    link = "group"

    def __init__(self, message: str, errors: dict[str, BaseException] | None = None, *, dependency: str = "") -> None:
        super().__init__(message, dependency=dependency)
        self.errors = errors or {}


def origin_of(error: BaseException, *dependencies: str) -> str:
    """The link of a chain at which this error ended the call: "breaker"; "transport" for what is no pattern's own.

    With `dependencies`: also for a pattern's error about another one, which came out of the call itself.
    """
    if isinstance(error, ResilienceError) and error.link:
        return error.link if not dependencies or error.dependency in {"", *dependencies} else "transport"
    return "transport"


@dataclass(frozen=True)
class Problem:
    """One wrong setting."""

    path: str
    """Where: `dependencies.inventory.breaker.error_rate`, or a field's name."""
    said: str
    """What was given, as text."""
    allowed: str
    """What may be given."""

    def __str__(self) -> str:
        return f"{self.path}: {self.said} is not {self.allowed}"


class SettingsError(ResilienceError, ValueError):
    """Settings that cannot be used; nothing of them was applied. `problems` holds all that is wrong."""

    def __init__(self, problems: tuple[Problem, ...], *, source: str = "") -> None:
        lines = "\n".join(f"  {each}" for each in problems)
        super().__init__(f"{source or 'settings'}: {len(problems)} wrong\n{lines}")
        self.problems = problems
        self.source = source
