"""Quantiles of latencies with confidence intervals.

A quantile is the smallest latency that the share q of the requests did not exceed (the inverse of the empirical
distribution, type 1 of Hyndman and Fan 1996), so that "p95 <= T" and "at most 5 % were slower than T" say the same.

The interval is Woodruff's (1952): an interval for the share of slower requests, read back through the distribution.
The share's interval is the wider of the order statistics' own (exact for independent requests) and the block bootstrap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from squall.analysis.columns import Latencies
from squall.analysis.exact import binomial_ranks
from squall.analysis.shares import Interval, share_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.analysis.windows import Span

__all__ = ["quantile", "quantile_interval"]


def quantile(ordered: Sequence[int], q: float) -> int:
    """The q-quantile (0 < q <= 1) of values in ascending order, at least one; always one of them."""
    return ordered[_rank(len(ordered), q) - 1]


def quantile_interval(latencies: Latencies, units: Sequence[Span], q: float, seed: int = 0) -> Interval | None:
    """The q-quantile of the requests in these seconds, in ns, with its 95 % interval; None when there are none.

    Where the quantile falls on requests that were given up, their time-out is a lower bound and the interval is open.
    """
    parts = [latencies.within(start, end) for start, end in units]
    ordered = sorted(value for part in parts for value in part)
    n = len(ordered)
    if n == 0:
        return None
    middle = quantile(ordered, q)
    slower = share_interval(
        [sum(value > middle for value in part) for part in parts], [len(part) for part in parts], seed
    )
    lower, upper = binomial_ranks(n, q)
    if 0 < slower.value < 1:
        # The block interval is centred on the share that is seen, which ties can put below 1 - q.
        shift = (1 - q) - slower.value
        lower = min(lower, math.floor(n * (1 - slower.high - shift)))
        upper = max(upper, math.ceil(n * (1 - slower.low - shift)))
    value, censored = Latencies.shown(middle)
    low, _ = Latencies.shown(ordered[max(lower, 1) - 1])
    high, high_censored = Latencies.shown(ordered[min(upper, n) - 1])
    return Interval(
        float(value), float(min(low, value)), float(max(high, value)), n, censored or high_censored or upper > n
    )


def _rank(n: int, q: float) -> int:
    # 0.95 * 100 is a little more than 95 in binary: a relative grain of slack keeps the rank where it belongs.
    return min(n, max(1, math.ceil(q * n * (1 - 1e-12))))
