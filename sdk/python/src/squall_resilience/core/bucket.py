"""The token bucket as one number: GCRA, the generic cell rate algorithm (ITU-T I.371, annex A).

The number is the theoretical arrival time: when the bucket will be full again. A bucket of b tokens that gets one in
each interval is full when that time is past, and empty when it is b intervals ahead. A call takes a token by moving it
one interval on. It is never further ahead than an empty bucket and the calls that wait: what is further is a clock that
went back, and counts as empty, so that no jump blocks longer than one bucket's time or lets more than a bucket through.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Bucket", "Rate", "slack", "taken"]


def slack(interval: float) -> float:
    """Seconds that a token may be early, a thousandth of it: who comes just when told to must get one, and floats round."""
    return interval * 1e-3 + 1e-9


class Rate(NamedTuple):
    """How fast tokens come and how many are kept, in the units that deciding needs."""

    interval: float
    """Seconds for one token."""
    depth: float
    """Seconds for all tokens of a bucket: its burst times the interval."""
    reach: float
    """Seconds that the bucket's time may be ahead: its depth, and what calls may wait for."""

    @classmethod
    def of(cls, rate: float, per: float, burst: int, wait: float = 0.0) -> Rate:
        """`rate` tokens in `per` seconds, at most `burst` of them kept; calls wait at most `wait` seconds for one."""
        interval = per / rate
        return cls(interval, interval * burst, interval * burst + wait)


def taken(full_at: float, now: float, rate: Rate, patience: float) -> tuple[float, float]:
    """When the bucket is full after taking a token, and how many seconds to wait for that token (0.0: none).

    When it would be more than `patience`: the time as it was, and the seconds until there is one, negative.
    """
    interval, depth, reach = rate
    ahead = full_at - now
    if ahead < 0.0:
        ahead = 0.0
    elif ahead > reach + slack(interval):  # the clock went back
        ahead = reach
        full_at = now + ahead
    wait = ahead + interval - depth
    if wait <= slack(interval):
        return now + ahead + interval, 0.0
    if wait <= patience:
        return now + ahead + interval, wait
    return full_at, -wait


class Bucket:
    """One bucket, full at first. Taking a token, and giving one back, is one step (see `interpreter`)."""

    __slots__ = ("_depth", "_interval", "full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.full_at = float("-inf")
        self._use(rate)

    def _use(self, rate: Rate) -> None:
        self.rate = rate
        self._interval = rate.interval
        self._depth = rate.depth + slack(rate.interval)

    def take(self, now: float, patience: float = 0.0) -> float:
        """Take a token: how many seconds to wait for it, negative when that is more than `patience`; see `taken`."""
        ahead = self.full_at - now
        if ahead <= 0.0:
            self.full_at = now + self._interval
            return 0.0
        ahead += self._interval
        if ahead <= self._depth:
            self.full_at = now + ahead
            return 0.0
        while True:
            seen = self.full_at
            full_at, wait = taken(seen, now, self.rate, patience)
            if self.full_at is seen:  # nobody took one meanwhile
                self.full_at = full_at
                return wait

    def give_back(self, full_at: float) -> bool:
        """Give back a token that is not needed, if nobody has taken one since; `full_at` is as it was after taking."""
        if self.full_at != full_at:
            return False
        self.full_at -= self._interval
        return True

    def configure(self, rate: Rate, now: float) -> None:
        """Another rate; as many tokens are missing as before, up to all."""
        missing = max(0.0, self.full_at - now) / self.rate.interval
        self._use(rate)
        self.full_at = now + min(missing * rate.interval, rate.reach)
