"""CircuitBreaker: a dependency that fails is left alone for a while, then tried with a small share of the calls.

The machine is `core/breaker.py`. While it is closed a success costs two looks at the clock and an append, without a
lock: lists are appended to, and cut, by one thread at a time, with and without a global interpreter lock. All else
happens under one lock for some microseconds, in which no foreign code runs: listeners are told after it.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from random import random as system_random
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from squall_resilience.core.breaker import NOTES_MAX, BreakerCore
from squall_resilience.core.breaker_settings import BreakerSettings
from squall_resilience.core.breaker_states import STATES, BreakerReading, Outcome, Refusal, State
from squall_resilience.errors import BreakerOpen, DeadlineExceeded, Rejected
from squall_resilience.events import RejectedCall, StateChanged
from squall_resilience.forking import survive_forks
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Guarding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
    from types import TracebackType

    from squall_resilience.events import Event, Listener

__all__ = ["BreakerReading", "BreakerSettings", "CircuitBreaker", "Passage"]

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULTS = BreakerSettings()


class CircuitBreaker(Guarding):
    """A breaker for one named dependency; see BreakerSettings for when it opens and how it closes again.

    `failures`: which exceptions count as failures, as classes or as a question; by default every Exception. Others count
    as successes (the dependency did answer), but for two kinds that say nothing about it: a `Rejected` of an inner
    pattern (nothing was sent) and what is no Exception (a cancellation, the end of the process).
    `failed_result`: asked of what a call returned whether it is a failure all the same.
    `clock` gives seconds, and may jump; `random` gives [0, 1).
    """

    kind = "breaker"

    def __init__(
        self,
        dependency: str,
        settings: BreakerSettings = _DEFAULTS,
        *,
        failures: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = Exception,
        failed_result: Callable[[Any], bool] | None = None,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = system_random,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        self.lock = threading.RLock()  # a signal's handler may come in between, in the thread that has it
        self._clock = clock
        self._core = BreakerCore(settings, clock(), random)
        self._failures = failures
        self._failed_result = failed_result
        self._untold: deque[Event] = deque()
        self._telling = threading.Lock()
        super().__init__(dependency, listeners=listeners, registry=registry)
        survive_forks(self)

    # what an operator sees and does

    @property
    def settings(self) -> BreakerSettings:
        """What it goes by now."""
        return self._core.settings

    @property
    def state(self) -> State:
        """Its state now: an open one whose wait is over is half-open from this look on."""
        return self.read().state

    def read(self) -> BreakerReading:
        """All that it knows, as of now."""
        with self.lock:
            reading = self._core.look(self._clock())
            changed = self._queue_changes()
        if changed:
            self._tell_queued()
        return reading

    def configure(self, settings: BreakerSettings) -> None:
        """Go by other settings from now on; what was counted stays."""
        with self.lock:
            self._core.configure(settings, self._clock())
            self._queue_changes()
        self._tell_queued()

    def force_open(self) -> None:
        """Let nothing through until `release()`."""
        self._force("open")

    def force_closed(self) -> None:
        """Let everything through until `release()`; outcomes are counted all the same."""
        self._force("closed")

    def release(self) -> None:
        """Go on by itself, unless the settings force it: half-open after `force_open`, closed after `force_closed`."""
        self._force(None)

    def _force(self, how: Literal["open", "closed"] | None) -> None:
        with self.lock:
            self._core.force(how, self._clock())
            self._queue_changes()
        self._tell_queued()

    # calls

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call through this breaker, blocking; BreakerOpen when it may not pass."""
        core, clock, settle, notes_max = self._core, self._clock, self._settle, NOTES_MAX
        failed_result, failed, guard = self._failed_result, self._failed, self.guard

        @functools.wraps(call)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            notes = core.notes
            if notes is None:
                with guard() as passage:
                    return passage.judged(call(*args, **kwargs))
            began = clock()
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                failed(notes, error, began)
                raise
            ended = clock()
            took = ended - began
            if took > core.slow_call or (failed_result is not None and failed_result(result)):
                failed(notes, None, began)
                return result
            if ended >= core.due:
                settle(ended, notes)
            notes.append(took)
            if len(notes) >= notes_max:
                settle(ended, notes)
            return result

        return guarded

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call through this breaker, awaited; BreakerOpen when it may not pass."""
        core, clock, settle, notes_max = self._core, self._clock, self._settle, NOTES_MAX
        failed_result, failed, guard = self._failed_result, self._failed, self.guard

        @functools.wraps(call)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            notes = core.notes
            if notes is None:
                with guard() as passage:
                    return passage.judged(await call(*args, **kwargs))
            began = clock()
            try:
                result = await call(*args, **kwargs)
            except Exception as error:
                failed(notes, error, began)
                raise
            ended = clock()
            took = ended - began
            if took > core.slow_call or (failed_result is not None and failed_result(result)):
                failed(notes, None, began)
                return result
            if ended >= core.due:
                settle(ended, notes)
            notes.append(took)
            if len(notes) >= notes_max:
                settle(ended, notes)
            return result

        return guarded

    def guard(self) -> Passage:
        """One passage: `with breaker.guard():` or `async with breaker.guard():`; BreakerOpen when it may not pass."""
        return Passage(self)

    def _settle(self, now: float, notes: list[float]) -> None:
        with self.lock:
            self._core.settle(now, notes)
            changed = self._queue_changes()
        if changed:
            self._tell_queued()

    def _passed(self, notes: list[float], began: float) -> None:
        """What the wrapped calls do in line."""
        ended = self._clock()
        took = ended - began
        if took > self._core.slow_call:
            self._finished(notes, "failure", began)
            return
        if ended >= self._core.due:
            self._settle(ended, notes)
        notes.append(took)
        if len(notes) >= NOTES_MAX:
            self._settle(ended, notes)

    def _admit(self) -> list[float] | int:
        with self.lock:
            held = self._core.admit(self._clock())
            changed = self._queue_changes()
        if isinstance(held, Refusal):
            self._untold.append(RejectedCall(kind=self.kind, dependency=self.dependency, cause=held.state))
            self._tell_queued()
            left = "" if held.retry_after is None else f" for another {held.retry_after:.3g} s"
            raise BreakerOpen(
                f"{self.dependency}: its breaker is {held.state.replace('_', ' ')}{left}",
                dependency=self.dependency,
                retry_after=held.retry_after,
            )
        if changed:
            self._tell_queued()
        return held

    def _failed(self, held: list[float] | int, error: Exception | None, began: float) -> None:
        self._finished(held, "failure" if error is None else self._outcome(error), began)

    def _finished(self, held: list[float] | int, outcome: Outcome, began: float) -> None:
        now = self._clock()
        with self.lock:
            self._core.finished(held, outcome, now - began, now)
            changed = self._queue_changes()
        if changed:
            self._tell_queued()

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is None:
            return "success"
        if not isinstance(error, Exception) or isinstance(error, Rejected):
            return "nothing"
        if isinstance(error, DeadlineExceeded) and not error.begun:  # no time was left to ask the dependency at all
            return "nothing"
        failures = self._failures
        asked = isinstance(error, failures) if isinstance(failures, (type, tuple)) else failures(error)
        return "failure" if asked else "success"

    # telling

    def _queue_changes(self) -> bool:
        changes = self._core.changes
        if not changes:
            return False
        self._untold.extend(
            StateChanged(
                kind=self.kind,
                dependency=self.dependency,
                old=each.old,
                new=each.new,
                cause=each.cause,
                figures=each.figures,
            )
            for each in changes
        )
        changes.clear()
        return True

    def _tell_queued(self) -> None:
        """In the order in which it happened: who finds another one telling leaves it to that one."""
        telling = self._telling  # (a listener may fork, and the child gets another)
        while self._untold and telling.acquire(blocking=False):
            try:
                while self._untold:
                    self.tell(self._untold.popleft())
            finally:
                telling.release()

    def forked(self) -> None:
        """In a child: trials and tellers were the parent's; called with the lock held."""
        self._core.forget_trials()
        self._telling = threading.Lock()
        self._untold.clear()

    def samples(self) -> Iterator[Sample]:
        """State, changes, calls, error rate and latency."""
        of = ("dependency", self.dependency)
        reading = self.read()
        with self.lock:
            changed = dict(self._core.changed)
        for state in STATES:
            yield Sample(
                "resilience_breaker_state",
                float(state == reading.state),
                (of, ("state", state)),
                help="1 for the state that the breaker is in.",
            )
        for (old, new, cause), times in sorted(changed.items()):
            yield Sample(
                "resilience_breaker_transitions_total",
                times,
                (of, ("from", old), ("to", new), ("cause", cause)),
                "counter",
                "Changes of the breaker's state.",
            )
        for outcome, calls in (
            ("success", reading.successes),
            ("failure", reading.failures),
            ("rejected", reading.rejected),
        ):
            yield Sample(
                "resilience_breaker_calls_total",
                calls,
                (of, ("outcome", outcome)),
                "counter",
                "Calls that came to the breaker and said something, or were not let through.",
            )
        yield Sample(
            "resilience_breaker_error_rate",
            reading.error_rate,
            (of,),
            help="Share of failed calls in the evaluation period; of the trials while half-open.",
        )
        yield Sample(
            "resilience_breaker_latency_seconds",
            reading.latency,
            (of, ("quantile", "0.95")),
            help="95th percentile of the calls' latency over the window.",
        )


class Passage:
    """One call through a breaker, for one `with` or `async with`."""

    __slots__ = ("_began", "_breaker", "_failed", "_held")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._held: list[float] | int | None = None
        self._began = 0.0
        self._failed = False

    def failed(self) -> None:
        """Say that this call was a failure, although it raises nothing."""
        self._failed = True

    def judged(self, result: R) -> R:
        """The result, which was a failure when the breaker's `failed_result` says so."""
        asked = self._breaker._failed_result  # noqa: SLF001 - its other half
        if asked is not None and asked(result):
            self._failed = True
        return result

    def __enter__(self) -> Self:
        breaker = self._breaker
        if self._held is not None:
            raise RuntimeError("a passage is for one call: ask guard() for another one")
        notes = breaker._core.notes  # noqa: SLF001
        self._held = breaker._admit() if notes is None else notes  # noqa: SLF001
        self._began = breaker._clock()  # noqa: SLF001
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        held, breaker = self._held, self._breaker
        if held is None:
            raise RuntimeError("this passage was not entered")
        if error is None and not self._failed and isinstance(held, list):
            breaker._passed(held, self._began)  # noqa: SLF001
            return
        outcome: Outcome = "nothing"
        try:
            outcome = breaker._outcome(error)  # noqa: SLF001 - asks the user's own code
            if outcome == "success" and self._failed:
                outcome = "failure"
        finally:
            breaker._finished(held, outcome, self._began)  # noqa: SLF001

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)
