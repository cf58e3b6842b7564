"""What patterns tell: frozen events, to listeners that can neither slow down nor break a call.

Only what is out of the ordinary is told (a state change, a rejection, a retry, a fallback): a call that simply succeeds
costs no event; its count is read from `samples()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

__all__ = [
    "Event",
    "FellBack",
    "GaveUp",
    "Listener",
    "Listeners",
    "Recovered",
    "RejectedCall",
    "Retried",
    "SettingsChanged",
    "StateChanged",
    "TimedOut",
]

logger = logging.getLogger("squall_resilience")


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to one dependency; `at` is the wall time in seconds."""

    kind: str
    """The pattern's kind: "breaker", "retry", ..."""
    dependency: str
    at: float = field(default_factory=time)


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """A breaker went from one state to another."""

    old: str
    new: str
    cause: str
    """"error_rate", "latency", "failures_in_a_row", "wait_over", "trials_succeeded", "trials_failed", "forced",
    "released", "configured"; joined by "+" where several had to hold."""
    figures: dict[str, float] = field(default_factory=dict)
    """The numbers that decided, by name, in ratios and seconds."""


@dataclass(frozen=True, kw_only=True)
class RejectedCall(Event):
    """A pattern did not let a call through."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Retried(Event):
    """A call is sent again after `wait` seconds: `attempt` is the number of the one that failed, from 1."""

    attempt: int
    wait: float
    error: str


@dataclass(frozen=True, kw_only=True)
class Recovered(Event):
    """A call went well after `attempts` attempts: the fault of those before went no further. `origin`: see `origin_of`."""

    attempts: int
    error: str
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class GaveUp(Event):
    """A call that failed is not sent again: `cause` is "attempts", "budget", "deadline" or "not_idempotent"."""

    attempts: int
    cause: str
    error: str


@dataclass(frozen=True, kw_only=True)
class TimedOut(Event):
    """A call had no answer within `seconds`; `inherited` when that was what its caller had left, not its own limit."""

    seconds: float
    inherited: bool = False


@dataclass(frozen=True, kw_only=True)
class FellBack(Event):
    """A call was answered from elsewhere: `answer` is "preset" or "cached", `age` in seconds."""

    answer: str
    age: float
    error: str
    origin: str = ""
    """The link at which the call had been ended: see `origin_of`."""


@dataclass(frozen=True, kw_only=True)
class SettingsChanged(Event):
    """New settings are in force (`refused` empty), or were refused whole and the old ones stay."""

    source: str
    changed: tuple[str, ...] = ()
    """Paths of what has another value now."""
    refused: str = ""


Listener = Callable[[Event], None]


class Listeners:
    """Who is told. Adding and removing is safe while events are told; a listener's exception is logged, never raised."""

    __slots__ = ("_all",)

    def __init__(self, *first: Listener) -> None:
        self._all: tuple[Listener, ...] = first

    def add(self, listener: Listener) -> None:
        """Tell this one too, from the next event on."""
        self._all = (*self._all, listener)

    def remove(self, listener: Listener) -> None:
        """Tell this one no more; harmless when it never was told."""
        self._all = tuple(each for each in self._all if each is not listener)

    def tell(self, event: Event) -> None:
        """Hand the event to every listener. One that raises is logged; the others and the caller do not notice.

        BaseExceptions that are no Exceptions (KeyboardInterrupt, cancellation) are not a listener's own: they go on.
        """
        for listener in self._all:
            try:
                listener(event)
            except Exception:
                logger.exception("listener %r failed on %r", listener, event)


everyone = Listeners()
"""Told of every event of every pattern in this process, after the pattern's own listeners."""
