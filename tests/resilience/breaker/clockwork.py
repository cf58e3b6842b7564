"""A clock that tests turn by hand, and a breaker that goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall_resilience.breaker import BreakerSettings, CircuitBreaker

if TYPE_CHECKING:
    from squall_resilience.events import Event

__all__ = ["Clock", "Clocked", "PlannedError"]


class PlannedError(Exception):
    """What a failing dependency raises here."""


class Clock:
    """Seconds, as told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Clocked:
    """A breaker on a clock of its own, its events, and calls of any duration and outcome through it."""

    def __init__(self, *, random: float = 0.0, failures: Any = Exception, **settings: object) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.breaker = CircuitBreaker(
            "inventory",
            BreakerSettings(**{"jitter": 0.0, **settings}),  # type: ignore[arg-type]
            failures=failures,
            failed_result=lambda result: result == "bad",
            clock=self.clock,
            random=lambda: random,
            listeners=[self.events.append],
            registry=None,
        )
        self.call = self.breaker(self._dependency)

    def _dependency(self, took: float, outcome: object) -> object:
        self.clock.now += took
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def succeed(self, times: int = 1, took: float = 0.0) -> None:
        """So many calls that succeed."""
        for _ in range(times):
            self.call(took, "good")

    def fail(self, times: int = 1, took: float = 0.0) -> None:
        """So many calls that fail."""
        for _ in range(times):
            try:
                self.call(took, PlannedError())
            except PlannedError:
                continue

    def traffic(self, seconds: float, *, rate: int = 10, failing: float = 0.0, took: float = 0.0) -> float:
        """Calls at a rate a second, a share of them failing, for so long or until it opens: seconds until then."""
        assert took <= 1 / rate, "one call after the other"
        begun, owed = self.clock.now, 0.0
        for number in range(int(seconds * rate)):
            self.clock.now = begun + number / rate
            if self.breaker.state != "closed":
                break
            owed += failing
            if owed >= 1.0 - 1e-9:
                owed -= 1.0
                self.fail(took=took)
            else:
                self.succeed(took=took)
        else:
            self.clock.now = begun + seconds
        return self.clock.now - begun

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.now += seconds

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """Old state, new state and cause of each change that was told."""
        return [
            (each.old, each.new, each.cause) for each in self.events if each.kind == "breaker" and hasattr(each, "old")
        ]
