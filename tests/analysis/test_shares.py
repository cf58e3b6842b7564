"""Intervals of shares and quantiles: their coverage by simulation, and what they do at the edges."""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from squall.analysis import Interval, quantile, quantile_interval, share_interval
from squall.analysis.columns import Columns
from squall.analysis.exact import clopper_pearson
from squall.analysis.shares import rule
from squall.analysis.windows import SECOND, in_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import System


def _seconds(draw: random.Random, seconds: int, memory: float, swing: float) -> Iterator[float]:
    """Error rates around 2 % whose logit wanders from second to second."""
    level = draw.gauss(0, 1)
    for _ in range(seconds):
        yield 1 / (1 + math.exp(-(math.log(0.02 / 0.98) + swing * level)))
        level = memory * level + math.sqrt(1 - memory**2) * draw.gauss(0, 1)


def _missed(seconds: int, memory: float, swing: float, runs: int = 400) -> tuple[int, int, int]:
    """How often the true share lies below the interval, above it, and outside the one that takes requests for independent."""
    true = fmean(_seconds(random.Random(-1), 100_000, memory, swing))
    below = above = independent = 0
    for seed in range(runs):
        draw = random.Random(seed)
        bad = [sum(draw.random() < share for _ in range(50)) for share in _seconds(draw, seconds, memory, swing)]
        interval = share_interval(bad, [50] * seconds, seed)
        below, above = below + (true < interval.low), above + (true > interval.high)
        low, high = clopper_pearson(sum(bad), 50 * seconds)
        independent += not low <= true <= high
    return below, above, independent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "memory", "swing", "missed"),
    [(60, 0.0, 0.0, 0.05), (60, 0.5, 0.8, 0.07), (10, 0.5, 0.8, 0.09), (120, 0.8, 0.8, 0.13)],
)
def test_the_interval_covers_as_often_as_said(seconds: int, memory: float, swing: float, missed: float) -> None:
    """95 % where seconds are independent, about 94 % with memory 0.5, about 90 % with memory 0.8 (trouble lasts ~9 s)."""
    below, above, independent = _missed(seconds, memory, swing)
    assert (below + above) / 400 <= missed
    assert below <= stats.binom.ppf(0.999, 400, 0.04), "a false `broken` must stay rare"
    assert swing == 0 or independent / 400 > 0.2, "the setting must be one in which independence would be wrong"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "q", "missed"), [(0.0, 0.95, 0.07), (0.5, 0.95, 0.1), (0.5, 0.99, 0.1), (0.5, 0.5, 0.1)]
)
def test_the_quantiles_interval_covers_as_often_as_said(
    system: type[System], memory: float, q: float, missed: float
) -> None:
    long = system(memory=memory, errors=0, before=0, during=3000, after=0).series(-1)
    true = quantile(sorted(long.latency_ns), q)
    outside = 0
    for seed in range(200):
        latencies = Columns(system(memory=memory, errors=0, before=10, during=60, after=0).series(seed)).latencies
        interval = quantile_interval(latencies, in_seconds([(10 * SECOND, 70 * SECOND)]), q)
        assert interval is not None
        outside += not (interval.low <= true and (true <= interval.high or interval.open_above))
    assert outside / 200 <= missed


def test_without_failures_the_interval_is_the_exact_one() -> None:
    assert share_interval([0] * 10, [50] * 10) == Interval(0.0, *clopper_pearson(0, 500), 500)


def test_failures_that_come_together_make_it_wider() -> None:
    spread = share_interval([1] * 60, [50] * 60)
    together = share_interval([0] * 29 + [30, 30] + [0] * 29, [50] * 60)
    assert spread.value == together.value
    assert together.low < spread.low
    assert together.high > 1.5 * spread.high


def test_the_same_seed_gives_the_same_interval() -> None:
    bad = [3, 0, 5, 1, 0, 0, 9, 2, 0, 4] * 3
    assert share_interval(bad, [50] * 30, seed=7) == share_interval(bad, [50] * 30, seed=7)
    assert share_interval(bad, [50] * 30, seed=7) != share_interval(bad, [50] * 30, seed=8)


def test_nothing_measured_says_nothing() -> None:
    assert share_interval([], []) == Interval(0.0, 0.0, 1.0, 0)
    assert rule(share_interval([0], [0]), 1.0) == "unclear"


def test_hours_are_resampled_in_bounded_work() -> None:
    hours = 24 * 3600
    draw = random.Random(1)
    bad = [int(draw.random() < 0.1) for _ in range(hours)]
    interval = share_interval(bad, [10] * hours)
    assert interval.low < sum(bad) / (10 * hours) < interval.high


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        (Interval(0.03, 0.021, 0.05, 999), "broken"),
        (Interval(0.03, 0.019, 0.05, 999), "unclear"),
        (Interval(0.02, 0.01, 0.08, 999), "met"),
        (Interval(0.02, 0.01, 0.081, 999), "unclear"),
        (Interval(0.0, 0.0, 0.0802, 44), "unclear"),
    ],
)
def test_the_three_way_rule_at_its_edges(interval: Interval, outcome: str) -> None:
    assert rule(interval, 0.02) == outcome


def test_p95_is_within_its_limit_just_when_at_most_a_twentieth_is_slower() -> None:
    for n in range(1, 400):
        ordered = list(range(1, n + 1))
        at = quantile(ordered, 0.95)
        assert sum(value > at for value in ordered) * 20 <= n
        assert at == 1 or sum(value > at - 1 for value in ordered) * 20 > n


def test_a_quantile_is_numpys_inverted_distribution() -> None:
    import numpy as np

    draw = random.Random(5)
    for n in (1, 2, 19, 20, 21, 100, 1234):
        ordered = sorted(draw.randrange(10**9) for _ in range(n))
        for q in (0.5, 0.95, 0.99, 1.0):
            assert quantile(ordered, q) == np.quantile(ordered, q, method="inverted_cdf")
