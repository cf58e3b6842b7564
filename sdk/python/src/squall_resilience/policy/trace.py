"""Where a fault stopped: at which link of a chain a call was ended, and how far out the fault came.

A fault begins somewhere (a refused connection at the transport, an open breaker) and travels outwards until a link stops it:
a retry whose next attempt goes well, a fallback that answers. What no link stops reaches the caller. Nothing of this is
written down while calls succeed: it is put together from the error that a call ends with and the events on its way.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import time

from squall_resilience.errors import ResilienceError, origin_of
from squall_resilience.events import Event, FellBack, GaveUp, Recovered, RejectedCall, Retried

__all__ = ["TRANSPORT", "Journal", "Trace", "reason_of", "trace_of"]

TRANSPORT = "transport"
KEPT_MAX = 64
STEPS_MAX = 32


def reason_of(error: BaseException) -> str:
    """Why, in one line."""
    text = str(error)
    return text if isinstance(error, ResilienceError) else f"{type(error).__name__}{f': {text}' if text else ''}"


@dataclass(frozen=True)
class Trace:
    """The way of one call's fault through the chain."""

    dependency: str
    origin: str
    """The link at which it began: where the call was refused or cut off; "transport" where the dependency itself failed."""
    stopped_at: str
    """The link at which it ended: the one that answered all the same ("retry", "fallback"), or gave up ("retry", "deadline");
    `origin` where no other link had a say in it."""
    reached_caller: bool
    """Whether the caller got it as an error."""
    reason: str
    """What the fault was."""
    attempts: int = 1
    """How often the call was tried."""
    steps: tuple[str, ...] = ()
    """What happened on the way, in order."""
    at: float = field(default_factory=time)
    """Wall time in seconds."""

    def __str__(self) -> str:
        began = "" if self.origin == self.stopped_at else f", began at {self.origin}"
        end = "reached the caller" if self.reached_caller else "the caller had an answer"
        way = f" [{'; '.join(self.steps)}]" if self.steps else ""
        return f"{self.dependency}: stopped at {self.stopped_at}{began}, {end}: {self.reason}{way}"


def trace_of(error: BaseException) -> Trace | None:
    """The trace of the call that ended with this error; None when it did not go through a policy."""
    found = getattr(error, "resilience_trace", None)
    return found if isinstance(found, Trace) else None


_under_way: ContextVar[tuple[tuple[int, Event], ...]] = ContextVar("squall_resilience.steps", default=())
"""Events of calls that have not ended in this context, each with the journal that it belongs to."""


class Journal:
    """The faults of one policy's calls: the last ones, and how many by link."""

    def __init__(self, dependency: str) -> None:
        self.dependency = dependency
        self.dependencies: tuple[str, ...] = (dependency,)
        """Also those that links of the chain are named by."""
        self.kinds: frozenset[str] = frozenset()
        """The links that there are, or were."""
        self.last: deque[Trace] = deque(maxlen=KEPT_MAX)
        self.counts: dict[tuple[str, str], int] = {}
        """By where it stopped, and "caller" or "answered"."""
        self.lock = threading.RLock()

    def hear(self, event: Event) -> None:
        """A link's event: a step of the call under way here, or its end."""
        if isinstance(event, (RejectedCall, Retried, GaveUp)):
            mine = self._steps()
            if isinstance(event, Retried) and event.attempt == 1:
                mine = [each for each in mine[-1:] if isinstance(each, RejectedCall)]
            self._keep([*mine, event][-STEPS_MAX:])
        elif isinstance(event, (Recovered, FellBack)):
            self._end(self._known(event.origin), event.kind, event.error, reached_caller=False)

    def failed(self, error: BaseException) -> None:
        """A call ended with this error. A cancellation is no fault: its steps are forgotten."""
        if not isinstance(error, Exception):
            self._keep([])
            return
        origin = self._known(origin_of(error, *self.dependencies))
        trace = self._end(origin, self._where(origin), reason_of(error), reached_caller=True)
        with suppress(AttributeError):  # a class with slots: then the trace is in `last` only
            error.resilience_trace = trace  # type: ignore[attr-defined]

    def _end(self, origin: str, stopped_at: str, reason: str, *, reached_caller: bool) -> Trace:
        steps = self._steps()
        self._keep([])
        attempts = 1 + max((each.attempt for each in steps if isinstance(each, Retried)), default=0)
        said = tuple(_said(each) for each in steps)
        trace = Trace(self.dependency, origin, stopped_at, reached_caller, reason, attempts, said)
        self.last.append(trace)
        key = (stopped_at, "caller" if reached_caller else "answered")
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
        _tell_span(trace)
        return trace

    def _where(self, origin: str) -> str:
        """Where a fault ended that reached the caller."""
        steps = self._steps()
        last = steps[-1] if steps else None
        if not isinstance(last, GaveUp) or last.cause == "not_idempotent":
            return origin
        return "deadline" if last.cause == "deadline" and "deadline" in self.kinds else last.kind

    def _known(self, origin: str) -> str:
        """A pattern's error that no link of this chain has raised came out of the call itself."""
        return origin if origin in self.kinds else TRANSPORT

    def _steps(self) -> list[Event]:
        return [event for owner, event in _under_way.get() if owner == id(self)]

    def _keep(self, mine: list[Event]) -> None:
        before = _under_way.get()
        if before or mine:
            others = tuple(each for each in before if each[0] != id(self))[-STEPS_MAX:]
            _under_way.set(others + tuple((id(self), event) for event in mine))


def _said(event: Event) -> str:
    if isinstance(event, GaveUp):
        return f"{event.kind} gave up after attempt {event.attempts}: {event.cause}"
    if isinstance(event, Retried):
        return f"attempt {event.attempt} failed ({event.error}), next in {event.wait:.3g} s"
    if isinstance(event, RejectedCall):
        return f"{event.kind} refused: {event.cause}"
    return event.kind


def _tell_span(trace: Trace) -> None:
    """Write it on the active span, where OpenTelemetry is in use."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return
    span = api.get_current_span()
    if span.is_recording():
        span.set_attribute("resilience.dependency", trace.dependency)
        span.set_attribute("resilience.origin", trace.origin)
        span.set_attribute("resilience.stopped_at", trace.stopped_at)
        span.set_attribute("resilience.reached_caller", trace.reached_caller)
        span.set_attribute("resilience.reason", trace.reason)
        span.set_attribute("resilience.attempts", trace.attempts)
