"""Hedge: when a request is slow, a second copy is sent; the first answer counts and the other copy is cancelled.

For calls that may be carried out twice, on dependencies with several instances of which one may be slow: against the
tail of the latency, not against an overload, which is why there is a budget.

Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56 (2), 2013: a second request after the
95th percentile costs 5 % more load.
"""

from __future__ import annotations

import functools
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, TypeVar, cast

from squall_resilience.core.budget import Budget
from squall_resilience.core.hedge import HedgeSettings, Latencies, Race
from squall_resilience.crew import crew
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Pattern
from squall_resilience.running import Waiter, cancel_after, sleep
from squall_resilience.safe import declared
from squall_resilience.tries import told
from squall_resilience.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from squall_resilience.events import Listener

__all__ = ["Hedge", "HedgeSettings"]

P = ParamSpec("P")
R = TypeVar("R")


class Hedge(Pattern):
    """Sends a second copy of slow calls of a dependency.

    `idempotent`: whether a call may be carried out twice, for all calls (as the setting of that name) or by their
    arguments; `@idempotent` on the call says so too. Other calls go through unhedged. An awaited copy that lost is
    cancelled, and its end waited for. A blocking call is made in a thread, with its caller's context; a copy that lost
    there goes on to its own end, which nobody waits for, and takes up one of `threads` until then.
    """

    kind: ClassVar[str] = "hedge"

    def __init__(
        self,
        dependency: str,
        settings: HedgeSettings | None = None,
        *,
        idempotent: bool | Callable[..., bool] = False,
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self.clock = clock
        self.latencies = Latencies()
        self.calls: dict[Literal["first", "hedged", "failed"], int] = {"first": 0, "hedged": 0, "failed": 0}
        self.sent = 0
        self._idempotent = idempotent
        settings = settings or HedgeSettings()
        self.budget = Budget(settings.budget, settings.budget_minimum, settings.window, clock)
        self.workers = Workers(f"hedge {dependency}", settings.threads)
        self.configure(settings)

    @property
    def settings(self) -> HedgeSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: HedgeSettings) -> None:
        """New settings for the next call; what was seen and counted stays."""
        self._settings = settings
        budget = self.budget
        budget.share, budget.minimum, budget.window = settings.budget, settings.budget_minimum, settings.window
        self.workers.limit = settings.threads

    def samples(self) -> Iterable[Sample]:
        """Calls by whose answer counted, and copies that were sent."""
        mine = (("dependency", self.dependency),)
        for outcome, number in self.calls.items():
            yield Sample(
                "resilience_hedge_calls_total",
                number,
                (*mine, ("outcome", outcome)),
                "counter",
                "Calls by whose answer counted: the first copy's, the second's, or nobody's.",
            )
        yield Sample("resilience_hedge_sent_total", self.sent, mine, "counter", "Second copies that were sent.")
        yield Sample(
            "resilience_hedge_delay_seconds",
            self.latencies.delay(self._settings),
            mine,
            "gauge",
            "After how long a second copy is sent.",
        )

    def may_send(self, race: Race[Any]) -> bool:
        """Whether the second copy is to be sent now: it is then spent and counted."""
        if race.over or not self.budget.take():
            return False
        if not race.send_second():
            self.budget.give_back()
            return False
        self.sent += 1
        return True

    def overdue(self, waited: float) -> DeadlineExceeded:
        """Count a blocking call that is not waited for any longer, and give what it raises."""
        self.calls["failed"] += 1
        return DeadlineExceeded(
            f"{self.dependency}: no copy has answered by the deadline of what this is part of",
            dependency=self.dependency,
            seconds=waited,
        )

    def settle(self, race: Race[R]) -> R:
        """Count a race that is over, and give its answer or raise its failure, the first copy's."""
        if race.winner is not None:
            self.calls["first" if race.winner == "first" else "hedged"] += 1
            return cast("R", race.result)
        self.calls["failed"] += 1
        error = race.errors["first"]
        second = race.errors.get("second")
        if second is not None:
            error.add_note(f"hedge {self.dependency!r}: a second copy failed as well: {told(second)}")
        try:
            raise error
        finally:
            del error, second  # their tracebacks hold this frame

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, in a thread, and a second one in another."""
        from squall_resilience.hedged_threads import hedged_in_threads

        safe = declared(call, self._idempotent, lambda: self._settings.idempotent)

        @functools.wraps(call)
        def hedged(*args: P.args, **kwargs: P.kwargs) -> R:
            if not safe(*args, **kwargs):
                return call(*args, **kwargs)
            return hedged_in_threads(self, functools.partial(call, *args, **kwargs))

        return hedged

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, in this task, and a second one in another."""
        safe = declared(call, self._idempotent, lambda: self._settings.idempotent)

        @functools.wraps(call)
        async def hedged(*args: P.args, **kwargs: P.kwargs) -> R:
            if not safe(*args, **kwargs):
                return await call(*args, **kwargs)
            return await self._raced(functools.partial(call, *args, **kwargs))

        return hedged

    async def _raced(self, call: Callable[[], Awaitable[R]]) -> R:
        self.budget.calls += 1
        race: Race[R] = Race()
        delay, start = self.latencies.delay(self._settings), self.clock()
        async with crew() as hands:
            ended, first = Waiter(), cancel_after(None)

            async def second() -> None:
                await sleep(delay)
                if not self.may_send(race):
                    return
                try:
                    if race.answered("second", await call()):
                        first.cancel()
                except Exception as error:  # noqa: BLE001 - the first copy may still answer
                    race.failed("second", error)
                ended.wake()

            hands.start(second)
            try:
                with first:
                    race.answered("first", await call())
            except Exception as error:  # noqa: BLE001 - the second copy may still answer
                race.failed("first", error)
            if "first" not in race.errors:
                self.latencies.add(self.clock() - start)
            if not race.over:
                await ended.wait()
            hands.cancel()
        return self.settle(race)
