"""The states of a breaker, and what is told and read of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["STATES", "BreakerReading", "Change", "Outcome", "Refusal", "State"]

State = Literal["closed", "open", "half_open", "forced_open", "forced_closed"]
STATES: tuple[State, ...] = ("closed", "open", "half_open", "forced_open", "forced_closed")

Outcome = Literal["success", "failure", "nothing"]
""""nothing": the call was cancelled, or was never sent; it says nothing about the dependency."""


@dataclass(frozen=True)
class Refusal:
    """The call may not pass; `retry_after` in seconds, None when nobody can tell."""

    state: State
    retry_after: float | None


@dataclass(frozen=True)
class Change:
    """One state gave way to another, for a cause, with the numbers that decided."""

    old: State
    new: State
    cause: str
    figures: dict[str, float]


@dataclass(frozen=True)
class BreakerReading:
    """A breaker at one moment; durations in seconds, ratios and latencies NaN without calls."""

    state: State
    since: float
    """How long the state has been in force."""
    forced: bool
    wait_left: float
    """Until it tries; 0 unless open."""
    error_rate: float
    """Of the running period once it has the minimum of calls, else of the last one that had; of the trials while half-open."""
    periods_in_a_row: int
    """Bad periods, up to now."""
    failures_in_a_row: int
    latency: float
    """95th percentile over the window."""
    trials_won: int
    trials_lost: int
    trials_under_way: int
    successes: int
    """Since the breaker was made, as are the next two."""
    failures: int
    rejected: int
