"""What a circuit breaker may be told."""

from __future__ import annotations

from dataclasses import dataclass

from squall_resilience.errors import Problem
from squall_resilience.settings import Settings, choice, count, ratio, seconds

__all__ = ["BreakerSettings"]


@dataclass(frozen=True)
class BreakerSettings(Settings):
    """When a breaker opens, for how long, and how it tries whether the dependency is back. Durations in seconds."""

    trip: str = choice("any", "all")
    """Whether any of the conditions that are set opens it, or only all of them at once."""

    error_rate: float | None = ratio(0.4, low=0.0, high=0.999, optional=True)
    """Condition: more than this share of the calls failed, in each of the last `periods`; None: not looked at."""
    period: float = seconds(10.0, low=0.1, high=3600.0)
    """Length of an evaluation period."""
    periods: int = count(3, low=1, high=100)
    """How many periods in a row must be bad."""
    minimum_calls: int = count(20, low=1)
    """A period (for `latency`: the window) with fewer calls says nothing."""

    latency: float | None = seconds(None, low=0.001, high=60.0)
    """Condition: the 95th percentile of the latencies of the last `window` is above this; None: not looked at."""
    window: float = seconds(300.0, low=1.0, high=3600.0)
    """How far back latencies are remembered."""

    failures_in_a_row: int | None = count(20, low=1, optional=True)
    """Condition: so many calls failed one after the other; None: not looked at."""

    slow_call: float | None = seconds(None, low=0.001, high=3600.0)
    """A call that took longer is a failure, whatever it gave; None: no call is."""

    wait: float = seconds(15.0, low=0.001)
    """How long it stays open before it tries."""
    wait_max: float | None = seconds(None, low=0.001)
    """Each opening after trials that were lost doubles the wait, up to this; None: it does not grow."""
    jitter: float = ratio(0.1)
    """The wait is longer by a random part of this share, so that many clients do not try at one moment."""

    trial_share: float = ratio(0.1, low=0.0001)
    """This share of the calls is tried while half-open."""
    trials: int = count(10, low=1, high=10_000)
    """So many trials at most; they decide."""
    trials_at_once: int = count(5, low=1, high=10_000)
    """So many of them at the same time at most."""
    trial_error_rate: float = ratio(0.2, high=0.99)
    """It closes when at most this share of `trials` failed, or took longer than `latency`."""
    trial_timeout: float = seconds(30.0, low=0.01, high=3600.0)
    """A trial that has not come back for so long counts as failed."""

    forced: str = choice("none", "open", "closed")
    """Keeps it open or closed whatever happens."""

    def conflicts(self) -> list[Problem]:
        """A breaker that nothing can open, and a wait that cannot grow."""
        problems = []
        if self.error_rate is None and self.latency is None and self.failures_in_a_row is None:
            problems.append(
                Problem("trip", repr(self.trip), "possible without error_rate, latency or failures_in_a_row")
            )
        if self.wait_max is not None and self.wait_max < self.wait:
            problems.append(Problem("wait_max", f"{self.wait_max:g}s", f"at least `wait`, {self.wait:g}s"))
        return problems
