"""How many calls may be sent more than once: a share of the recent calls, so that retries never make an overload.

Both sums, of calls and of what was spent, fade: what is `window` seconds ago counts 1/e of what is now. So the cost of a
call is one addition, and everything else is worked out when a call has failed.

Source of the idea: Site Reliability Engineering, chapter 21, "Client-side throttling" and "Deciding to retry" (a budget
for each client, of 10 % of its calls).
"""

from __future__ import annotations

import threading
from math import exp, expm1
from typing import TYPE_CHECKING

from squall_resilience.forking import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """May one more be sent? `max(share * recent calls, minimum)` may, in a window that fades.

    Whoever makes calls adds them to `calls`, without a lock: an addition that is lost among threads costs a tenth of a
    retry. A clock that goes back stops the fading for that long, and grants nothing.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_clock",
        "_recent",
        "_seen",
        "_spent",
        "calls",
        "lock",
        "minimum",
        "share",
        "window",
    )

    def __init__(self, share: float, minimum: float, window: float, clock: Callable[[], float]) -> None:
        self.share = share
        self.minimum = minimum
        self.window = window
        self.calls = 0
        self._clock = clock
        self._at = clock()
        self._seen = 0
        self._recent = 0.0
        self._spent = 0.0
        self.lock = threading.RLock()
        survive_forks(self)

    def tokens(self) -> float:
        """How many may be sent again now; below 0 right after a setting was lowered."""
        with self.lock:
            return self._left()

    def take(self) -> bool:
        """One more is to be sent again: whether it may, and then it is spent."""
        with self.lock:
            if self._left() < 1.0:
                return False
            self._spent += 1.0
            return True

    def give_back(self) -> None:
        """What was taken was not sent after all."""
        with self.lock:
            self._spent = max(0.0, self._spent - 1.0)

    def forked(self) -> None:
        """A child goes on with the sums of its parent."""

    def _left(self) -> float:
        now, calls = self._clock(), self.calls
        elapsed, fresh = now - self._at, calls - self._seen
        self._at, self._seen = now, calls
        fading = elapsed / self.window
        if fading > 0:
            kept = exp(-fading)
            # the fresh ones came evenly over the time that has passed: their mean weight
            self._recent = self._recent * kept + fresh * -expm1(-fading) / fading
            self._spent *= kept
        else:
            self._recent += fresh
        return max(self.share * self._recent, self.minimum) - self._spent
