"""When a second copy of a request is sent, and which of the two answers counts: no clock, no waiting."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from squall_resilience.errors import Problem
from squall_resilience.forking import survive_forks
from squall_resilience.settings import Settings, count, ratio, seconds, switch

if TYPE_CHECKING:
    from typing import Literal

__all__ = ["HedgeSettings", "Latencies", "Race"]

R = TypeVar("R")

KEPT: Final = 256
"""Latencies that the quantile is taken of: the last ones."""
RENEWED_AFTER: Final = 16
"""The quantile is worked out again after so many."""


@dataclass(frozen=True)
class HedgeSettings(Settings):
    """When the second copy is sent, and for how many calls."""

    idempotent: bool = switch(default=False)
    """All calls may be carried out twice; else only those declared so in the code are hedged."""
    delay: float | None = seconds(None, high=3600.0)
    """Seconds after which the second is sent; null: the quantile of the latencies that were seen."""
    quantile: float = ratio(0.95, low=0.5, high=0.999)
    """Which one: 95 % of calls are faster."""
    delay_min: float = seconds(0.005, high=3600.0)
    """A quantile below this counts as this."""
    delay_max: float = seconds(1.0, high=3600.0)
    """A quantile above this counts as this; so does one of fewer than `calls_min` calls."""
    calls_min: int = count(20, low=1, high=KEPT)
    """Latencies that must have been seen."""
    budget: float = ratio(0.1)
    """Second copies for each call of the last `window`: when all are slow, the cause is not bad luck."""
    budget_minimum: int = count(3)
    """So many in a window may be sent however few calls there are."""
    window: float = seconds(10.0, low=0.1, high=3600.0)
    """Over which the budget is counted; older ones fade."""
    threads: int = count(16, low=2, high=1000)
    """Blocking calls: so many copies at once, in threads; beyond, calls are made as if there were no hedge."""

    def conflicts(self) -> list[Problem]:
        """The bounds of the delay must be in order."""
        if self.delay_min > self.delay_max:
            return [
                Problem("delay_min", f"{self.delay_min:g} s", f"a duration up to `delay_max`, {self.delay_max:g} s")
            ]
        return []


class Latencies:
    """The last so many latencies, in seconds, and the delay that follows from them."""

    __slots__ = ("__weakref__", "_fresh", "_kept", "_next", "_quantile", "_rank", "lock")

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._next = 0
        self._fresh = 0
        self._rank = 0.0
        self._quantile = 0.0
        self.lock = threading.RLock()
        survive_forks(self)

    def add(self, seconds: float) -> None:
        """One more. What a call that was broken off had taken by then counts too: without those, only the fast are seen."""
        with self.lock:
            if len(self._kept) < KEPT:
                self._kept.append(max(0.0, seconds))
            else:
                self._kept[self._next] = max(0.0, seconds)
                self._next = (self._next + 1) % KEPT
            self._fresh += 1

    def delay(self, settings: HedgeSettings) -> float:
        """Seconds after which the second copy is to be sent."""
        if settings.delay is not None:
            return settings.delay
        with self.lock:
            if len(self._kept) < settings.calls_min:
                return settings.delay_max
            if self._fresh >= RENEWED_AFTER or settings.quantile != self._rank:
                in_order = sorted(self._kept)
                self._quantile = in_order[int(settings.quantile * len(in_order))]  # it is below 1
                self._rank, self._fresh = settings.quantile, 0
            return min(max(self._quantile, settings.delay_min), settings.delay_max)

    def forked(self) -> None:
        """A child goes on with what its parent has seen."""


class Race(Generic[R]):
    """One call, sent once or twice: the first answer counts, a failure only when no copy can answer any more."""

    __slots__ = ("errors", "result", "sent", "winner")

    def __init__(self) -> None:
        self.sent = 1
        self.winner: Literal["first", "second"] | None = None
        self.result: R | None = None
        self.errors: dict[Literal["first", "second"], BaseException] = {}

    @property
    def over(self) -> bool:
        """Whether it is decided."""
        return self.winner is not None or len(self.errors) >= self.sent

    def answered(self, copy: Literal["first", "second"], result: R) -> bool:
        """A copy has answered: whether it is the first to."""
        if self.winner is not None:
            return False
        self.winner, self.result = copy, result
        return True

    def failed(self, copy: Literal["first", "second"], error: BaseException) -> None:
        """A copy has failed."""
        self.errors[copy] = error

    def send_second(self) -> bool:
        """Whether a second copy makes sense now; it then counts as sent."""
        if self.over or self.sent > 1:
            return False
        self.sent = 2
        return True
