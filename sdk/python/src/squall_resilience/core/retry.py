"""Whether a failed call is sent again, and after how long: no clock, no waiting, the draw is injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from squall_resilience.errors import Problem
from squall_resilience.settings import Settings, count, ratio, seconds, switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.core.budget import Budget

__all__ = ["CAUSES", "Cause", "RetrySettings", "after_failure", "back_off"]

Cause = Literal["attempts", "budget", "deadline", "not_idempotent"]
CAUSES: Final[tuple[Cause, ...]] = ("attempts", "budget", "deadline", "not_idempotent")


@dataclass(frozen=True)
class RetrySettings(Settings):
    """How often, after how long, and how much of all calls."""

    attempts: int = count(3, low=1, high=100)
    """In all, the first included; 1: a call is never sent again."""
    idempotent: bool = switch(default=False)
    """All calls may be carried out twice. Else only what is declared so in the code, and what was surely not sent."""
    base: float = seconds(0.1, high=3600.0)
    """Back-off before the second attempt is at most this, then twice, four times, ... as long."""
    cap: float = seconds(5.0, high=3600.0)
    """Longest back-off."""
    budget: float = ratio(0.1, high=10.0)
    """Retries for each call of the last `window`, over all callers of the dependency."""
    budget_minimum: int = count(10)
    """So many in a window may be sent again however few calls there are."""
    window: float = seconds(10.0, low=0.1, high=3600.0)
    """Over which the budget is counted; older ones fade."""
    retry_after_max: float = seconds(10.0, high=3600.0)
    """Whoever asks for a longer wait (Retry-After) is not called again."""
    within_retries: bool = switch(default=False)
    """Retry also in what is itself a second or later attempt of a caller: each layer multiplies the calls."""

    def conflicts(self) -> list[Problem]:
        """The back-off must be able to grow."""
        if self.base > self.cap:
            return [Problem("base", f"{self.base:g} s", f"a duration up to `cap`, {self.cap:g} s")]
        return []


def back_off(settings: RetrySettings, attempt: int, draw: Callable[[], float]) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed: uniform in [0, min(cap, base * 2 ** (attempt - 1))].

    "Full jitter": of the ways to spread retries it makes the fewest calls under contention. Source: M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return float(draw() * min(settings.cap, settings.base * 2.0 ** min(attempt - 1, 64)))


def after_failure(
    settings: RetrySettings,
    budget: Budget,
    draw: Callable[[], float],
    attempt: int,
    *,
    safe: bool,
    asked: float | None,
    left: float | None,
) -> float | Cause:
    """Seconds until attempt `attempt + 1`, for which a token is then taken from the budget; or why there is none.

    `safe`: another attempt cannot do the work twice. `asked`: wait that the failure asked for, in seconds; the back-off
    comes on top of it, so that those who were sent away together do not come back together. `left`: seconds until the
    deadline; a wait that would leave nothing of it is not begun.
    """
    if attempt >= settings.attempts:
        return "attempts"
    if not safe:
        return "not_idempotent"
    wait = back_off(settings, attempt, draw)
    if asked is not None:
        if not asked <= settings.retry_after_max:  # NaN neither
            return "deadline"
        wait += max(0.0, asked)
    if left is not None and wait >= left:
        return "deadline"
    return wait if budget.take() else "budget"
