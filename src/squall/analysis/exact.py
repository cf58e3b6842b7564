"""Exact binomial mathematics without numpy: the incomplete beta function and what follows from it.

Sources: the continued fraction of the incomplete beta function, DLMF 8.17.22, evaluated by Lentz's method as modified
by Thompson and Barnett (1986); Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the
case of the binomial"; Student's t by its relation to the beta distribution, DLMF 8.17 and Abramowitz and Stegun 26.7.1.
"""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = [
    "FINEST",
    "RESOLUTION",
    "beta_cdf",
    "beta_quantile",
    "binomial_ranks",
    "binomial_tail",
    "clopper_pearson",
    "samples_needed",
    "student_quantile",
]

RESOLUTION = 4
"""A threshold counts as resolved when the interval shuts out this many times the threshold."""

FINEST = 0.001
"""Allowed shares below this (0 % too) are resolved as this one is."""

_TINY = 1e-300
_TERMS = 20_000
"""Terms of the continued fraction at most; about sqrt(n) are needed, so this is enough for 10**8 samples."""
_STEPS = 200
"""Steps of a root search at most: halving alone needs about 60."""


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22, which converges fast for x < (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = 1 + term / c
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1) < 1e-14:  # noqa: PLR2004 - a few units in the last place of a double
            break
    return value


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b); a, b > 0."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b))
    if x < (a + 1) / (a + b + 2):
        return min(1.0, front * _fraction(a, b, x) / a)
    return max(0.0, 1.0 - front * _fraction(b, a, 1 - x) / b)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p: Newton's method, kept inside a bracket that shrinks by halving where Newton would leave it."""
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    low, high, x = 0.0, 1.0, a / (a + b)
    scale = _log_beta(a, b)
    for _ in range(_STEPS):
        error = beta_cdf(x, a, b) - p
        low, high = (low, x) if error > 0 else (x, high)
        density = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - scale) if 0 < x < 1 else 0.0
        following = x - error / density if density > 0 else -1.0
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= 1e-13 * max(x, _TINY):
            return following
        x = following
    return x


def clopper_pearson(bad: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for a share of which `bad` of `n` independent samples were seen; (0, 1) for none."""
    if n <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if bad <= 0 else beta_quantile(tail, bad, n - bad + 1)
    high = 1.0 if bad >= n else beta_quantile(1 - tail, bad + 1, n - bad)
    return low, high


def binomial_tail(bad: int, n: int, share: float) -> float:
    """The chance of `bad` or more of `n` independent samples when each is bad with probability `share`."""
    if bad <= 0:
        return 1.0
    if bad > n:
        return 0.0
    return beta_cdf(share, bad, n - bad + 1)


def binomial_ranks(n: int, share: float, confidence: float = 0.95) -> tuple[int, int]:
    """The ranks (1 to n; 0 and n + 1: outside the sample) between which the true quantile lies.

    The distribution-free interval of order statistics: with X ~ Binomial(n, share), the lower rank is the greatest r
    with P(X < r) <= tail, the upper the least s with P(X >= s) <= tail (David and Nagaraja, "Order Statistics", 7.1).
    """
    tail = (1 - confidence) / 2
    low, high = 0, n + 1
    while high - low > 1:  # the greatest r with P(X <= r - 1) <= tail
        middle = (low + high) // 2
        low, high = (middle, high) if 1 - binomial_tail(middle, n, share) <= tail else (low, middle)
    lower = low
    low, high = 0, n + 1
    while high - low > 1:  # the least s with P(X >= s) <= tail
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_tail(middle, n, share) <= tail else (middle, high)
    return lower, high


@lru_cache(maxsize=256)
def student_quantile(p: float, df: float) -> float:
    """The p-quantile (p >= 0.5) of Student's t with `df` degrees of freedom."""
    x = beta_quantile(2 * (1 - p), df / 2, 0.5)
    return math.sqrt(df * (1 - x) / max(x, _TINY))


@lru_cache(maxsize=256)
def samples_needed(share: float, confidence: float = 0.95) -> int:
    """How many samples, all good, show that an allowed share is kept: about 0.92 / share (183 for 0.5 %, 45 for 2 %, 17 for 5 %).

    The interval of 0 bad in n ends at 1 - tail ** (1 / n); it must end at or below RESOLUTION times the share. No
    sample can show a share of 0: it needs as many as FINEST does.
    """
    share = max(share, FINEST)
    if share * RESOLUTION >= 1:
        return 1
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log1p(-share * RESOLUTION))
