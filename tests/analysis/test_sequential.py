"""The sequential bound: right against numerical integration, and honest under optional stopping."""

from __future__ import annotations

import math
import random

import pytest
from scipy import integrate, stats

from squall.analysis import share_is_above
from squall.analysis.exact import clopper_pearson
from squall.analysis.sequential import log_evidence


@pytest.mark.parametrize(("bad", "n", "p"), [(1, 3, 0.1), (5, 40, 0.05), (30, 60, 0.4), (2, 300, 0.02)])
def test_the_evidence_is_the_mixture_of_likelihood_ratios(bad: int, n: int, p: float) -> None:
    prior = stats.beta(0.5, 0.5)

    def ratio(x: float) -> float:
        return math.exp(bad * math.log(x / p) + (n - bad) * math.log((1 - x) / (1 - p))) * float(prior.pdf(x))

    integral, _ = integrate.quad(ratio, p, 1, limit=200)
    assert math.exp(log_evidence(bad, n, p)) == pytest.approx(integral / float(prior.sf(p)), rel=1e-5)


def test_nothing_is_said_of_nothing() -> None:
    assert share_is_above(0, 0) == 0.0
    assert share_is_above(0, 1000) == 0.0


def test_the_bound_is_below_the_share_and_comes_nearer_with_more() -> None:
    bounds = [share_is_above(n // 2, n) for n in (10, 100, 1000, 10_000)]
    assert bounds == sorted(bounds)
    assert 0.47 < bounds[-1] < 0.5
    assert share_is_above(1000, 1000) > 0.98
    assert share_is_above(20, 100) < clopper_pearson(20, 100)[0], "looking whenever one likes has its price"


def _ever_above(seed: int, share: float, memory: float, length: int) -> bool:
    """One stream of requests, looked at after each; with memory, a failure makes the next ones rarer or as likely at most."""
    draw, bad, held = random.Random(seed), 0, 0.0
    for n in range(1, length + 1):
        held = memory * held
        failed = draw.random() < share * (1 - held)
        bad, held = bad + failed, held + (1 - memory if failed else 0)
        if failed and log_evidence(bad, n, share) >= -math.log(0.05):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("share", "memory", "length"), [(0.02, 0.0, 2000), (0.5, 0.0, 200), (0.1, 0.9, 1000)])
def test_optional_stopping_does_not_raise_more_false_alarms_than_said(share: float, memory: float, length: int) -> None:
    """Stop as soon as it looks bad: at 95 % confidence at most 5 % of fault-free streams ever do (a look at each failure)."""
    streams = 400
    alarms = sum(_ever_above(seed, share, memory, length) for seed in range(streams))
    assert alarms <= stats.binom.ppf(0.999, streams, 0.05)


@pytest.mark.slow
def test_an_ordinary_interval_would_not_stand_optional_stopping() -> None:
    """The same streams, judged by an ordinary 95 % bound each time: far more than 5 % alarms, so the test can tell."""
    alarms = 0
    for seed in range(100):
        draw, bad = random.Random(seed), 0
        for n in range(1, 2001):
            failed = draw.random() < 0.1
            bad += failed
            if failed and n >= 20 and float(stats.binom.sf(bad - 1, n, 0.1)) < 0.05:
                alarms += 1
                break
    assert alarms > 15
