"""Retry: a failed call is sent again, after a wait, if that is safe, there is time, and not too many are.

Safe: the call is declared idempotent (for all calls, by a function of its arguments, or by `@idempotent` on it), or the
failure says that nothing was sent. A retry hides no failure: what is raised in the end is what the last attempt raised,
with a note of how many there were and why there are no more.
"""

from __future__ import annotations

import functools
import random
import time
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, Self, TypeVar, cast

from squall_resilience.core.budget import Budget
from squall_resilience.core.retry import CAUSES, Cause, RetrySettings
from squall_resilience.errors import BulkheadFull, Overloaded, RateLimited, Rejected
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Pattern
from squall_resilience.running import sleep
from squall_resilience.safe import declared, idempotent
from squall_resilience.tries import Tries, repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
    from types import TracebackType

    from squall_resilience.events import Listener

__all__ = [
    "TRANSIENT",
    "UNSENT",
    "Attempt",
    "Attempts",
    "Retry",
    "RetryBudget",
    "RetrySettings",
    "attempt_number",
    "idempotent",
]

P = ParamSpec("P")
R = TypeVar("R")

RetryBudget = Budget

TRANSIENT: Final[tuple[type[Exception], ...]] = (ConnectionError, TimeoutError, BulkheadFull, Overloaded, RateLimited)
"""Failures that another attempt may not meet again; DeadlineExceeded is a TimeoutError.

An open breaker is not among them: it says that the dependency needs time, and to wait for it would hold the caller's
worker just when workers run out."""

UNSENT: Final[tuple[type[Exception], ...]] = (ConnectionRefusedError, Rejected)
"""Failures that say that nothing was sent; add a client library's own for a connection that could not be opened."""


def attempt_number() -> int:
    """Which attempt the work under way is part of: 1, or more when it was begun before and failed."""
    return repeated.get()


def retry_after(failure: object) -> float | None:
    """The wait in seconds that a failure asks for by an attribute `retry_after`, as `Rejected` has; None without."""
    asked = getattr(failure, "retry_after", None)
    return float(asked) if isinstance(asked, (int, float)) and not isinstance(asked, bool) else None


class Retry(Pattern):
    """Sends the calls of a dependency again.

    `on`: exceptions after which another attempt makes sense, or a function that says so. `on_result`: results that are
    failures. `idempotent`: whether a call may be sent again although it may have been carried out, for all calls (as
    the setting of that name) or by their arguments. `unsent`: exceptions that say that nothing was sent. `asks`: the
    wait in seconds that an exception or result asks for. `budget`: share one between several.
    """

    kind: ClassVar[str] = "retry"

    def __init__(
        self,
        dependency: str,
        settings: RetrySettings | None = None,
        *,
        idempotent: bool | Callable[..., bool] = False,
        on: tuple[type[Exception], ...] | Callable[[Exception], bool] = TRANSIENT,
        on_result: Callable[[Any], bool] | None = None,
        unsent: tuple[type[Exception], ...] | Callable[[Exception], bool] = UNSENT,
        asks: Callable[[Any], float | None] = retry_after,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] = monotonic,
        sleeps: Callable[[float], object] = time.sleep,
        draw: Callable[[], float] = random.random,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self.clock = clock
        self.draw = draw
        self.asked = asks
        self.transient = _judge(on)
        self.was_not_sent = _judge(unsent)
        self.calls = 0
        self.retries = 0
        self.exhausted: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        self._on_result = on_result
        self._idempotent = idempotent
        self.sleeps = sleeps
        settings = settings or RetrySettings()
        self._owns_budget = budget is None
        self.budget = budget or Budget(settings.budget, settings.budget_minimum, settings.window, clock)
        self.configure(settings)

    @property
    def settings(self) -> RetrySettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: RetrySettings) -> None:
        """New settings from the next failure on; what was counted for the budget stays. A shared budget is its owner's."""
        self._settings = settings
        if self._owns_budget:
            budget = self.budget
            budget.share, budget.minimum, budget.window = settings.budget, settings.budget_minimum, settings.window

    def samples(self) -> Iterable[Sample]:
        """Calls, attempts (amplification is their quotient), failures that were not tried again, and the budget."""
        mine = (("dependency", self.dependency),)
        yield Sample("resilience_retry_calls_total", self.calls, mine, "counter", "Calls that came in.")
        yield Sample(
            "resilience_retry_attempts_total",
            self.calls + self.retries,
            mine,
            "counter",
            "Attempts made, first ones included; divided by the calls: amplification.",
        )
        for cause, number in self.exhausted.items():
            yield Sample(
                "resilience_retry_exhausted_total",
                number,
                (*mine, ("cause", cause)),
                "counter",
                "Transient failures that were not followed by another attempt, by why.",
            )
        yield Sample(
            "resilience_retry_budget_tokens",
            max(0.0, self.budget.tokens()),
            mine,
            "gauge",
            "Attempts that the retry budget has left.",
        )

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, sent again by the same thread."""
        unwanted, budget, safe = (
            self._on_result,
            self.budget,
            declared(call, self._idempotent, lambda: self._settings.idempotent),
        )

        @functools.wraps(call)
        def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            self.calls += 1
            budget.calls += 1
            try:
                result = call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised again where the next attempt's is not "during" it
                outcome: Outcome[R] = Outcome(error, None)
            else:
                if unwanted is None or not unwanted(result):
                    return result
                outcome = Outcome(None, result)
            tries = Tries(self, safe=safe(*args, **kwargs))
            while self._waits(tries, outcome):
                try:
                    tries.begin()
                    outcome = Outcome(None, call(*args, **kwargs))
                except Exception as error:  # noqa: BLE001 - as above
                    outcome = Outcome(error, None)
                finally:
                    tries.end()
                if outcome.error is None and (unwanted is None or not unwanted(outcome.result)):
                    tries.succeeded()
                    break
            return outcome.give()

        return retried

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, sent again by the same task."""
        unwanted, budget, safe = (
            self._on_result,
            self.budget,
            declared(call, self._idempotent, lambda: self._settings.idempotent),
        )

        @functools.wraps(call)
        async def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            self.calls += 1
            budget.calls += 1
            try:
                result = await call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised again where the next attempt's is not "during" it
                outcome: Outcome[R] = Outcome(error, None)
            else:
                if unwanted is None or not unwanted(result):
                    return result
                outcome = Outcome(None, result)
            tries = Tries(self, safe=safe(*args, **kwargs))
            while await self._waits_async(tries, outcome):
                try:
                    tries.begin()
                    outcome = Outcome(None, await call(*args, **kwargs))
                except Exception as error:  # noqa: BLE001 - as above
                    outcome = Outcome(error, None)
                finally:
                    tries.end()
                if outcome.error is None and (unwanted is None or not unwanted(outcome.result)):
                    tries.succeeded()
                    break
            return outcome.give()

        return retried

    def attempts(self, *, idempotent: bool | None = None) -> Attempts:
        """The same for a block that stands in a loop: `for attempt in retry.attempts():`, `with attempt: ...`.

        With `async for` the waits are awaited. `idempotent` overrides what the retry was made with; a function of
        arguments has none here, so it counts as not. The loop ends after the first attempt that raises nothing.
        """
        if idempotent is None:
            idempotent = self._settings.idempotent or self._idempotent is True
        return Attempts(self, safe=idempotent)

    def _waits(self, tries: Tries, outcome: Outcome[Any]) -> bool:
        """Whether there is another attempt, once its wait is over."""
        if not tries.again(outcome.error, outcome.result):
            return False
        try:
            self.sleeps(tries.wait)
        except BaseException:
            tries.cancelled()
            raise
        return True

    async def _waits_async(self, tries: Tries, outcome: Outcome[Any]) -> bool:
        if not tries.again(outcome.error, outcome.result):
            return False
        try:
            await sleep(tries.wait)
        except BaseException:
            tries.cancelled()
            raise
        return True


class Outcome(Generic[R]):
    """How an attempt ended: what it raised, or else what it gave."""

    __slots__ = ("error", "result")

    def __init__(self, error: Exception | None, result: R | None) -> None:
        self.error = error
        self.result = result

    def give(self) -> R:
        """Raise it, or give it."""
        error, self.error = self.error, None
        if error is None:
            return cast("R", self.result)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


class Attempts:
    """The attempts of one block, for one `for` or `async for`."""

    def __init__(self, of: Retry, *, safe: bool) -> None:
        self._of = of
        self._tries = Tries(of, safe=safe)
        self._last: Attempt | None = None

    def __iter__(self) -> Iterator[Attempt]:
        while (attempt := self._next()) is not None:
            if attempt.number > 1:
                self._sleep(self._of.sleeps)
                self._tries.begin()
            yield attempt

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        while (attempt := self._next()) is not None:
            if attempt.number > 1:
                try:
                    await sleep(self._tries.wait)
                except BaseException:
                    self._tries.cancelled()
                    raise
                self._tries.begin()
            yield attempt

    def _sleep(self, sleeps: Callable[[float], object]) -> None:
        try:
            sleeps(self._tries.wait)
        except BaseException:
            self._tries.cancelled()
            raise

    def _next(self) -> Attempt | None:
        last = self._last
        if last is None:
            self._of.calls += 1
            self._of.budget.calls += 1
            number = 1
        elif last.failed:
            number = last.number + 1
        else:
            return None
        self._last = Attempt(self._tries, number)
        return self._last


class Attempt:
    """One attempt: `with attempt:` around the call. What it raises is passed over when another attempt follows."""

    __slots__ = ("_tries", "failed", "number")

    def __init__(self, tries: Tries, number: int) -> None:
        self._tries = tries
        self.number = number
        self.failed = False
        """Whether it failed, and another one follows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        self._tries.end()
        if error is None:
            self._tries.succeeded()
        self.failed = isinstance(error, Exception) and self._tries.again(error)
        return self.failed


def _judge(said: tuple[type[Exception], ...] | Callable[[Exception], bool]) -> Callable[[Exception], bool]:
    if isinstance(said, tuple):
        kinds = said
        return lambda error: isinstance(error, kinds)
    return said
