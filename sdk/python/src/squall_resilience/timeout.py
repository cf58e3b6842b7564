"""Timeout: a call is given a deadline, and what it calls has what is left of it.

Awaited calls are cancelled at the deadline. A cancellation from outside always goes through: only the expiry of this
time-out becomes DeadlineExceeded here, that of an outer one goes on to the outer one (counted as asyncio.timeout does).

A blocking call cannot be interrupted from outside: no thread can be ended safely, and one that is left behind keeps its
connection and its lock, which is how pools run out. So it is told how long it has (`deadline.remaining()`, which the
adapters give to sockets and drivers), is not begun once the deadline has passed, and an answer that comes after it is an
error all the same, so that whoever counts on the limit is not misled.
"""

from __future__ import annotations

import functools
import sys
import threading
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, Self, TypeVar, cast

from squall_resilience.deadline import moment
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.events import Listener, TimedOut
from squall_resilience.lanes import Lane
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Guarding
from squall_resilience.running import cancel_after, library
from squall_resilience.settings import Settings, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType

    from squall_resilience.running import CancelScope

__all__ = ["Timeout", "TimeoutGuard", "TimeoutSettings"]

INHERITED_BELOW: Final = 1 - 1e-9
"""A call had less than its own limit when it had less than this part of it: sums of floats are not exact."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class TimeoutSettings(Settings):
    """How long a call may take."""

    limit: float = seconds(3.0, low=0.001)
    """In seconds, from 1 ms to a day; less where the deadline that it inherits leaves less."""


class _Lanes(threading.local):
    """A thread runs one loop at a time."""

    lane: Lane | None = None


class Timeout(Guarding):
    """At most so long for one call of a dependency, or for a block."""

    kind: ClassVar[str] = "timeout"

    def __init__(
        self,
        dependency: str,
        settings: TimeoutSettings | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self.clock = clock
        self.in_time = 0
        self.timed_out = 0
        self._lanes = _Lanes()
        self.configure(settings or TimeoutSettings())

    @property
    def settings(self) -> TimeoutSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: TimeoutSettings) -> None:
        """Calls that begin from now on have the new limit."""
        self._settings = settings
        self._limit = settings.limit

    def samples(self) -> Iterable[Sample]:
        """Calls by whether they were in time; one that was cancelled from outside is neither."""
        for outcome, number in (("in_time", self.in_time), ("timed_out", self.timed_out)):
            yield Sample(
                "resilience_timeout_calls_total",
                number,
                (("dependency", self.dependency), ("outcome", outcome)),
                "counter",
                "Calls by whether they ended within their time-out.",
            )

    def guard(self) -> TimeoutGuard:
        """The same for a block: `with` sets the deadline and looks at its end, `async with` also cancels."""
        return TimeoutGuard(self)

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call with a deadline; DeadlineExceeded when its answer comes too late, or it cannot begin in time."""
        clock, inherited, put = self.clock, moment.get, moment.set

        @functools.wraps(call)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            now = clock()
            end = now + self._limit
            outer = inherited()
            if outer is not None and outer < end:
                end = self.begin_by(outer, now)
            put(end)
            try:
                result = call(*args, **kwargs)
            except BaseException as error:
                put(outer)
                self.ended(error, now, end)
                raise
            put(outer)
            if clock() >= end:
                raise self.exceeded(now, end)
            self.in_time += 1
            return result

        return timed

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call with a deadline, at which it is cancelled; then DeadlineExceeded."""
        clock, inherited, put, lanes = self.clock, moment.get, moment.set, self._lanes

        @functools.wraps(call)
        async def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            now = clock()
            end = now + self._limit
            outer = inherited()
            less = outer is not None and outer < end
            if less:
                end = self.begin_by(cast("float", outer), now)
            lane = lanes.lane
            place = None
            if lane is not None and lane.length == self._limit:
                place = lane.enter_for(end - now) if less else lane.enter()
            if place is None:
                if library() != "asyncio":
                    async with TimeoutGuard(self):
                        return await call(*args, **kwargs)
                lane = lanes.lane = Lane(self._limit)
                place = lane.enter_for(end - now) if less else lane.enter()
            assert lane is not None  # noqa: S101 - this task is asyncio's: library() has seen it,
            assert place is not None  # noqa: S101 - now or when the lane was made
            put(end)
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                put(outer)
                if lane.leave(place) and is_cancellation(error):
                    raise self.exceeded(now, end) from error
                self.ended(error, now, end)
                raise
            put(outer)
            if lane.leave(place):
                self.timed_out += 1  # it answered its own cancellation
            else:
                self.in_time += 1
            return result

        return timed

    def wrap_generator(self, call: Callable[P, R]) -> Callable[P, R]:
        """The whole iteration has one deadline; it is looked at, and cancels, within the generator's own steps only."""
        from squall_resilience.timed_generators import timed_generator

        return timed_generator(self, call)

    def begin_by(self, outer: float, now: float) -> float:
        """The inherited deadline; DeadlineExceeded when it has passed, so that there is no time to begin."""
        if outer > now:
            return outer
        self.timed_out += 1
        self.tell(TimedOut(kind=self.kind, dependency=self.dependency, seconds=0.0, inherited=True))
        raise DeadlineExceeded(
            f"{self.dependency}: not begun, the deadline that it inherits has passed",
            dependency=self.dependency,
            seconds=0.0,
            begun=False,
        )

    def exceeded(self, start: float, end: float) -> DeadlineExceeded:
        """Count a call that took too long, tell of it, and give what it raises."""
        given = end - start
        inherited = given < self._limit * INHERITED_BELOW
        self.timed_out += 1
        self.tell(TimedOut(kind=self.kind, dependency=self.dependency, seconds=given, inherited=inherited))
        why = f" (what its caller had left; its own limit is {self._limit:g} s)" if inherited else ""
        return DeadlineExceeded(
            f"{self.dependency}: no answer within {given:.3g} s{why}", dependency=self.dependency, seconds=given
        )

    def ended(self, error: BaseException, start: float, end: float) -> None:
        """Count a call that raised; a time-out of a socket or driver at the deadline becomes DeadlineExceeded."""
        if not isinstance(error, Exception):
            return  # cancelled or interrupted: neither in time nor late
        if self.clock() < end:
            self.in_time += 1
        elif isinstance(error, TimeoutError) and not isinstance(error, DeadlineExceeded):
            raise self.exceeded(start, end) from error
        else:
            self.timed_out += 1


def is_cancellation(error: BaseException) -> bool:
    """Whether it is asyncio's; only asked where that runs."""
    return isinstance(error, sys.modules["asyncio"].CancelledError)


class TimeoutGuard:
    """One block with a deadline; `with` for blocking code, `async with` for awaits."""

    __slots__ = ("_end", "_of", "_outer", "_scope", "_start")

    def __init__(self, of: Timeout) -> None:
        self._of = of
        self._start = self._end = 0.0
        self._outer: float | None = None
        self._scope: CancelScope | None = None

    def __enter__(self) -> Self:
        of = self._of
        self._start = of.clock()
        self._outer = moment.get()
        end = self._start + of.settings.limit
        if self._outer is not None and self._outer < end:
            end = of.begin_by(self._outer, self._start)
        self._end = end
        moment.set(end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        moment.set(self._outer)
        if error is not None:
            self._of.ended(error, self._start, self._end)
        elif self._of.clock() >= self._end:
            raise self._of.exceeded(self._start, self._end)
        else:
            self._of.in_time += 1

    async def __aenter__(self) -> Self:
        self.__enter__()
        scope = cancel_after(self._end - self._start)
        scope.__enter__()
        self._scope = scope
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        moment.set(self._outer)
        assert self._scope is not None  # noqa: S101 - set on entry
        self._scope.__exit__(kind, error, trace)
        if self._scope.expired:
            raise self._of.exceeded(self._start, self._end) from error
        if error is not None:
            self._of.ended(error, self._start, self._end)
        else:
            self._of.in_time += 1
