"""A lower bound on an error rate that stays valid however often, and whenever, one looks.

An ordinary interval is right for one look at a time fixed before. An abort decision looks every second and stops when
it sees something, so its evidence is an e-process: start with 1, multiply by how much better a worse error rate
explains each answer than the rate p does. If at every moment the chance of failing, given all that went before, was at
most p, the chance that it ever reaches 1 / alpha is at most alpha (Ville 1939). The worse rates are mixed over a Beta
prior cut to (p, 1), which keeps the mixture a supermartingale for every rate up to p: Robbins (1970), "Statistical
methods related to the law of the iterated logarithm"; Howard, Ramdas, McAuliffe and Sekhon (2021), "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), section 3 on conjugate mixtures.
Requests need not be independent: a bound on each one's chance given the past is enough.
"""

from __future__ import annotations

import math

from squall.analysis.exact import beta_cdf

__all__ = ["log_evidence", "share_is_above"]

_PRIOR = 0.5
"""Jeffreys' Beta(1/2, 1/2)."""
_STEPS = 40


def log_evidence(bad: int, n: int, p: float) -> float:
    """The logarithm of the evidence against "each request fails with probability p at most", after `bad` of `n`; 0 < p < 1."""
    a, b = bad + _PRIOR, n - bad + _PRIOR
    mixture = _log_beta_above(a, b, p) - _log_beta_above(_PRIOR, _PRIOR, p)
    return mixture - bad * math.log(p) - (n - bad) * math.log1p(-p)


def share_is_above(bad: int, n: int, confidence: float = 0.99) -> float:
    """The share that the error rate is above, at this confidence over all looks together; 0.0 when nothing can be said."""
    if bad <= 0 or n <= 0:
        return 0.0
    enough = -math.log(1 - confidence)
    low, high = 0.0, bad / n
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not 0 < middle < 1:
            break
        low, high = (middle, high) if log_evidence(bad, n, middle) >= enough else (low, middle)
    return low


def _log_beta_above(a: float, b: float, p: float) -> float:
    """The logarithm of the integral of x^(a-1) (1-x)^(b-1) from p to 1."""
    above = beta_cdf(1 - p, b, a)
    scale = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return scale + (math.log(above) if above > 0 else -math.inf)
