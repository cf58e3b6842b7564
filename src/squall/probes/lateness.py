"""How late sends were: a histogram of fixed size. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WAITING_MOST", "Lateness", "LoadReport", "late_limit_ns"]

LATE_LEAST_NS, LATE_MOST_NS = 10_000_000, 50_000_000
LATE_SHARE = 0.01
LATE_COUNT_LEAST = 3
WAITING_MOST = 500
"""Enough to tell a stall: what is still waited for has no sample yet."""
SETTLED_NS = 10_000_000_000
"""Lateness is judged once so much was sent, or at the end: one slip at the start says nothing of the rest."""

_SUB_BITS = 4
_SUB = 1 << _SUB_BITS


def late_limit_ns(rate_most: float) -> int:
    """From how late on a send is late: a period of the highest rate (then requests begin to bunch), 10 ms to 50 ms.

    10 ms is 1/30 of the default steady-state limit of 300 ms.
    """
    return round(min(max(1e9 / rate_most, LATE_LEAST_NS), LATE_MOST_NS))


class Lateness:
    """Counts nanoseconds in log-linear buckets, each at most 1/16 wide; from 1 us to the longest an int64 holds."""

    def __init__(self, limit_ns: int) -> None:
        self.limit_ns = limit_ns
        self._counts = [0] * (64 << _SUB_BITS)
        self.count = 0
        self.late = 0
        """How many were later than the limit."""
        self.most_ns = 0

    def add(self, late_ns: int) -> None:
        """Count one send; early (negative) counts as on time."""
        late_ns = max(late_ns, 0)
        self.count += 1
        self.most_ns = max(self.most_ns, late_ns)
        if late_ns > self.limit_ns:
            self.late += 1
        units = late_ns >> 10
        shift = max(units.bit_length() - _SUB_BITS - 1, 0)
        self._counts[(shift << _SUB_BITS) + (units >> shift)] += 1

    def quantile(self, share: float) -> int:
        """The upper end, in ns, of the bucket that holds this share of all; 0 with none, never above the largest seen."""
        wanted, seen = max(1, -int(-share * self.count // 1)), 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                shift = max((index >> _SUB_BITS) - 1, 0)
                units = index - (shift << _SUB_BITS)
                return min((units + 1 << shift) << 10, self.most_ns)
        return 0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the load did so far; times in ns, all counts from its start."""

    sent: int = 0
    answered: int = 0
    """Ended in any way but `unsent`: whole answers, failures and time-outs."""
    in_flight: int = 0
    oldest_ns: int = 0
    """How long ago the oldest unanswered request was meant to be sent; 0: none is in flight."""
    waiting: tuple[int, ...] = ()
    """When the unanswered requests were meant to be sent (CLOCK_MONOTONIC), the oldest `WAITING_MOST` of them."""
    unsent_full: int = 0
    """Not sent because `connections` requests were in flight."""
    unsent_late: int = 0
    """Not sent because the generator itself was more than a second late."""
    unsent_local: int = 0
    """Not sent because this machine had no descriptor, port or memory left for a connection."""
    unreported: int = 0
    """Samples lost because whoever reads them stood still for too long."""
    abandoned: int = 0
    """Still unanswered when the load was stopped: they have no sample."""
    late: int = 0
    """Sent more than `late_limit_ns` after the intended time."""
    late_limit_ns: int = LATE_LEAST_NS
    late_p50_ns: int = 0
    late_p99_ns: int = 0
    late_max_ns: int = 0
    cpu_ns: int = 0
    """CPU time of the load's process since its first request was due."""
    wall_ns: int = 0
    """How long it has been sending."""
    final: bool = False
    """Nothing follows it."""

    @property
    def unsent(self) -> int:
        """How many requests were due and never sent."""
        return self.unsent_full + self.unsent_late + self.unsent_local

    @property
    def behind(self) -> str:
        """Why the load did not do what was asked of it, with what to do; empty when it kept up."""
        if self.unsent_full:
            return (
                f"{self.unsent_full} requests were not sent because as many as `connections` allows were unanswered:"
                " the service stalled for longer than they cover; raise `connections` or lower the rate"
            )
        if self.unsent_late:
            return (
                f"{self.unsent_late} requests were not sent: this machine did not run the load for more than a second"
            )
        if self.unsent_local:
            return f"{self.unsent_local} requests were not sent: no free descriptor or port on this machine; lower the rate"
        if self.unreported:
            return f"{self.unreported} samples were lost: their reader stood still"
        judged = self.final or self.wall_ns >= SETTLED_NS
        if judged and self.late >= LATE_COUNT_LEAST and self.late > LATE_SHARE * self.sent:
            return (
                f"{self.late} of {self.sent} requests were sent more than {self.late_limit_ns / 1e6:.3g} ms late"
                f" (p99 {self.late_p99_ns / 1e6:.1f} ms): this machine is too busy for the rate"
            )
        return ""
