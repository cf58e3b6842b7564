"""Bulkhead: so many calls of a dependency at once, so many more that wait a moment, and no more.

A dependency that hangs then holds a bounded part of the service, and what else the service does goes on. Who waits is
served in order of arrival, threads and tasks in one line, and never longer than what is left of its deadline.
A call within a call of the same bulkhead takes a second slot: give the inner one a bulkhead of its own.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

from squall_resilience import deadline
from squall_resilience.core.bulkhead import Slots
from squall_resilience.errors import BulkheadFull
from squall_resilience.events import RejectedCall
from squall_resilience.forking import survive_forks
from squall_resilience.interpreter import ONE_STEP
from squall_resilience.metrics import Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Guarding
from squall_resilience.running import ThreadWaiter, Waiter
from squall_resilience.settings import Settings, count, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType

    from squall_resilience.events import Listener
    from squall_resilience.metrics import Registry
    from squall_resilience.running import Wakeable

__all__ = ["Bulkhead", "BulkheadGuard", "BulkheadSettings"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class BulkheadSettings(Settings):
    """How many at once."""

    limit: int = count(100, 1, 1_000_000)
    """Calls under way at once."""
    waiting: int = count(100, 0, 1_000_000)
    """Calls that may wait for one of those to end."""
    wait: float = seconds(0.5, 0.0, 3600.0)
    """Seconds that a call waits at most; less where its deadline leaves less."""


class Bulkhead(Guarding):
    """Bounds the calls of one dependency that are under way, and those that wait; raises BulkheadFull beyond."""

    kind: ClassVar[str] = "bulkhead"

    def __init__(
        self,
        dependency: str,
        settings: BulkheadSettings | None = None,
        *,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self._settings = settings or BulkheadSettings()
        self.lock = threading.RLock()
        self._slots: Slots[Wakeable] = Slots(self._settings.limit, self._settings.waiting)
        self._enter = self._slots.enter if ONE_STEP else self._locked_enter
        self._leave = self._slots.leave if ONE_STEP else self._locked_leave
        self.admitted = self.rejected = self.timed_out = 0
        survive_forks(self)

    @property
    def settings(self) -> BulkheadSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: BulkheadSettings) -> None:
        """Other bounds from now on: a higher limit lets in who waits, a lower one lets the running ones finish."""
        with self.lock:
            self._settings = settings
            given = self._slots.resize(settings.limit, settings.waiting)
        for waiter in given:
            waiter.wake()

    def forked(self) -> None:
        """What the parent's threads hold is not held in the child."""
        self._slots.forget()

    def samples(self) -> Iterable[Sample]:
        """What is in use, waits and is allowed, and how calls fared."""
        labels = (("dependency", self.dependency),)
        slots = self._slots
        for name, value, meaning in (
            ("in_use", slots.in_use, "Calls under way."),
            ("waiting", len(slots.waiting), "Calls that wait for one under way to end."),
            ("limit", slots.limit, "Calls that may be under way at once."),
        ):
            yield Sample(f"resilience_bulkhead_{name}", value, labels, "gauge", meaning)
        for outcome, value in (
            ("admitted", self.admitted),
            ("rejected", self.rejected),
            ("timed_out", self.timed_out),
        ):
            yield Sample(
                "resilience_bulkhead_calls_total",
                value,
                (*labels, ("outcome", outcome)),
                "counter",
                "Calls: admitted, rejected because as many waited as may, timed out while waiting.",
            )

    def guard(self) -> BulkheadGuard:
        """A slot for the length of a `with` or an `async with` block."""
        return BulkheadGuard(self)

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, once there is a slot for it; the thread waits for one."""
        enter, leave, fill = self._enter, self._leave, self._fill

        @functools.wraps(call)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            token = enter() or self._wait_in_thread()
            self.admitted += 1
            try:
                return call(*args, **kwargs)
            finally:
                if leave(token):
                    fill()

        return bounded

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, once there is a slot for it; other tasks run meanwhile."""
        enter, leave, fill = self._enter, self._leave, self._fill

        @functools.wraps(call)
        async def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            token = enter() or await self._wait_in_task()
            self.admitted += 1
            try:
                return await call(*args, **kwargs)
            finally:
                if leave(token):
                    fill()

        return bounded

    async def enter_in_task(self) -> int:
        """A slot's token for `leave`, at once or after waiting; BulkheadFull otherwise."""
        token = self._enter() or await self._wait_in_task()
        self.admitted += 1
        return token

    def enter_in_thread(self) -> int:
        """The same in a thread."""
        token = self._enter() or self._wait_in_thread()
        self.admitted += 1
        return token

    def leave(self, token: int) -> None:
        """Give a slot back."""
        if self._leave(token):
            self._fill()

    def _fill(self) -> None:
        with self.lock:
            given = self._slots.fill()
        for waiter in given:
            waiter.wake()

    def _locked_enter(self) -> int:
        with self.lock:
            return self._slots.enter()

    def _locked_leave(self, token: int) -> bool:
        with self.lock:
            return self._slots.leave(token)

    def _wait_in_thread(self) -> int:
        """Wait for a slot; its token, or BulkheadFull."""
        waiter = ThreadWaiter()
        patience = self._queue(waiter)
        try:
            waiter.wait(patience)
        except BaseException:
            self._withdraw(waiter)
            raise
        return self._given(waiter, patience)

    async def _wait_in_task(self) -> int:
        """The same in a task; one that is cancelled gives back its place, or the slot it was just given."""
        waiter = Waiter()
        patience = self._queue(waiter)
        try:
            await waiter.wait(patience)
        except BaseException:
            self._withdraw(waiter)
            raise
        return self._given(waiter, patience)

    def _queue(self, waiter: Wakeable) -> float:
        """Stand in line; how many seconds to wait."""
        patience = self._settings.wait
        left = deadline.remaining()
        if left is not None and left < patience:
            patience = left
        with self.lock:
            stands = patience > 0 and self._slots.queue(waiter)
            self.rejected += not stands
            under_way, waiting = self._slots.in_use, len(self._slots.waiting)
        if stands:
            self._fill()  # a slot may have become free just before
            return patience
        self._tell("full")
        raise BulkheadFull(
            f"{self.dependency}: {under_way} calls are under way and {waiting} wait, as many as may"
            if patience > 0
            else f"{self.dependency}: {under_way} calls are under way, and there is no time to wait",
            dependency=self.dependency,
        )

    def _given(self, waiter: Wakeable, patience: float) -> int:
        with self.lock:
            if not self._slots.withdraw(waiter):
                return self._slots.generation
            self.timed_out += 1
        self._tell("timed_out")
        raise BulkheadFull(
            f"{self.dependency}: no call ended within the {patience:.3g} s that this one could wait",
            dependency=self.dependency,
        )

    def _withdraw(self, waiter: Wakeable) -> None:
        with self.lock:
            if self._slots.withdraw(waiter):
                return
            token = self._slots.generation
        self.leave(token)  # it had just been given one

    def _tell(self, cause: str) -> None:
        self.tell(RejectedCall(kind=self.kind, dependency=self.dependency, cause=cause))


class BulkheadGuard:
    """A slot for one block."""

    __slots__ = ("_bulkhead", "_token")

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead
        self._token = 0

    def __enter__(self) -> Self:
        self._token = self._bulkhead.enter_in_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, 0
        self._bulkhead.leave(token)

    async def __aenter__(self) -> Self:
        self._token = await self._bulkhead.enter_in_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
