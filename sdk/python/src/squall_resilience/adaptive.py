"""AdaptiveConcurrency: a bulkhead whose limit is found from the latency, for a dependency whose capacity nobody knows.

    limit = AdaptiveConcurrency("search")

    @limit
    def search(words: str) -> list[Hit]: ...

Calls beyond the limit raise Overloaded at once: waiting in front of what is too slow already only adds to it. How the limit is
found, and why so, says `core.adaptive`. It needs traffic: some calls in each window, more of them than the limit, now and then.
"""

from __future__ import annotations

import functools
import random as randomness
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

from squall_resilience.core.adaptive import AdaptiveLimit, Bounds
from squall_resilience.core.bulkhead import Slots
from squall_resilience.errors import Overloaded, Problem, Rejected
from squall_resilience.events import RejectedCall
from squall_resilience.forking import survive_forks
from squall_resilience.interpreter import ONE_STEP
from squall_resilience.metrics import Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Guarding
from squall_resilience.settings import Settings, count, ratio, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType

    from squall_resilience.events import Listener
    from squall_resilience.metrics import Registry

__all__ = ["AdaptiveConcurrency", "AdaptiveGuard", "AdaptiveSettings", "is_drop"]

P = ParamSpec("P")
R = TypeVar("R")


def is_drop(error: BaseException) -> bool:
    """Whether an error says "too much": a time-out of any library, a refusal, a lost connection. Others say nothing."""
    return isinstance(error, (TimeoutError, ConnectionError, Rejected)) or "Timeout" in type(error).__name__


@dataclass(frozen=True)
class AdaptiveSettings(Settings):
    """Within which bounds the limit is searched."""

    initial: int = count(20, 1, 100_000)
    """Calls at once, to begin with."""
    low: int = count(2, 1, 100_000)
    high: int = count(1000, 1, 100_000)
    """The limit stays within `low` and `high`."""
    window: float = seconds(0.5, 0.01, 60.0)
    """Seconds after which the limit is judged, if there were at least `calls_min` calls; else it goes on."""
    calls_min: int = count(20, 1, 10_000)
    tolerance: float = ratio(0.2, 0.0, 4.0)
    """By how much the latency may be above the base before the limit falls: 0.2 is 20 %."""
    probe_every: float = seconds(30.0, 0.1, 3600.0)
    """Seconds between two measurements of the base, each of some calls with half of the limit."""
    latency_max: float | None = seconds(None, 0.000_001, 3600.0)
    """A median latency, in seconds, that is too slow whatever the base says; for who knows one."""

    def conflicts(self) -> list[Problem]:
        """Bounds that hold nothing."""
        if self.low <= self.high:
            return []
        return [Problem("low", str(self.low), f"at most `high`, which is {self.high}")]

    def bounds(self) -> Bounds:
        """In the terms of the search."""
        return Bounds(
            self.low,
            self.high,
            self.window,
            self.calls_min,
            1.0 + self.tolerance,
            self.probe_every,
            self.latency_max,
        )


class AdaptiveConcurrency(Guarding):
    """Bounds the calls of one dependency that are under way by what it bears; raises Overloaded beyond.

    `drops(error)` says which errors mean that it was too much; other failures neither lower nor raise the limit.
    """

    kind: ClassVar[str] = "adaptive_concurrency"

    def __init__(
        self,
        dependency: str,
        settings: AdaptiveSettings | None = None,
        *,
        drops: Callable[[BaseException], bool] = is_drop,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self._settings = settings or AdaptiveSettings()
        self._drops, self.clock = drops, clock
        self.lock = threading.RLock()
        self._found = AdaptiveLimit(self._settings.bounds(), self._settings.initial, clock(), random)
        self._slots: Slots[object] = Slots(self._found.limit, 0)
        self._enter = self._slots.enter if ONE_STEP else self._locked_enter
        self._leave = self._slots.leave if ONE_STEP else self._locked_leave
        self.admitted = self.rejected = 0
        survive_forks(self)

    @property
    def settings(self) -> AdaptiveSettings:
        """Those in force."""
        return self._settings

    @property
    def limit(self) -> int:
        """How many calls may be under way now."""
        return self._slots.limit

    def configure(self, settings: AdaptiveSettings) -> None:
        """Other bounds from now on; what was found is kept within them."""
        with self.lock:
            self._settings = settings
            self._found.configure(settings.bounds())
            self._slots.limit = self._found.limit

    def forked(self) -> None:
        """What the parent's threads have under way is not in the child; what was found is."""
        self._slots.forget()

    def samples(self) -> Iterable[Sample]:
        """The limit, its use, and how calls fared."""
        labels = (("dependency", self.dependency),)
        yield Sample(
            "resilience_concurrency_limit", self.limit, labels, "gauge", "Calls that may be under way at once."
        )
        yield Sample("resilience_concurrency_in_use", self._slots.in_use, labels, "gauge", "Calls under way.")
        for outcome, value in (("admitted", self.admitted), ("rejected", self.rejected)):
            yield Sample(
                "resilience_concurrency_calls_total",
                value,
                (*labels, ("outcome", outcome)),
                "counter",
                "Calls by whether the limit let them through.",
            )

    def guard(self) -> AdaptiveGuard:
        """One of the calls that may be under way, for the length of a `with` or an `async with` block."""
        return AdaptiveGuard(self)

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, if the limit allows one more."""
        clock, enter, ended, slots = self.clock, self.enter, self.ended, self._slots

        @functools.wraps(call)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            token, under_way, began = enter(), slots.in_use, clock()
            try:
                result = call(*args, **kwargs)
            except BaseException as error:
                ended(token, began, under_way, error)
                raise
            ended(token, began, under_way, None)
            return result

        return bounded

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, if the limit allows one more."""
        clock, enter, ended, slots = self.clock, self.enter, self.ended, self._slots

        @functools.wraps(call)
        async def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            token, under_way, began = enter(), slots.in_use, clock()
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                ended(token, began, under_way, error)
                raise
            ended(token, began, under_way, None)
            return result

        return bounded

    def enter(self) -> int:
        """A slot's token; Overloaded when as many calls are under way as may."""
        token = self._enter()
        if token:
            self.admitted += 1
            return token
        self.rejected += 1
        self.tell(RejectedCall(kind=self.kind, dependency=self.dependency, cause="limit"))
        raise Overloaded(
            f"{self.dependency}: it bears about {self.limit} calls at once, and as many are under way",
            dependency=self.dependency,
        )

    @property
    def under_way(self) -> int:
        """Calls that have begun and not ended."""
        return self._slots.in_use

    def ended(self, token: int, began: float, under_way: int, error: BaseException | None) -> None:
        """A call has ended: its slot is free, and what it says about the limit is noted. Cancelled ones say nothing."""
        self._leave(token)
        if error is not None and not (isinstance(error, Exception) and self._drops(error)):
            return
        now = self.clock()
        with self.lock:
            self._found.record(now, began, under_way, dropped=error is not None)
            self._slots.limit = self._found.limit

    def _locked_enter(self) -> int:
        with self.lock:
            return self._slots.enter()

    def _locked_leave(self, token: int) -> bool:
        with self.lock:
            return self._slots.leave(token)


class AdaptiveGuard:
    """One call under way, for one block."""

    __slots__ = ("_began", "_limit", "_token", "_under_way")

    def __init__(self, limit: AdaptiveConcurrency) -> None:
        self._limit = limit
        self._token = self._under_way = 0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._token = self._limit.enter()
        self._under_way, self._began = self._limit.under_way, self._limit.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, 0
        self._limit.ended(token, self._began, self._under_way, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
