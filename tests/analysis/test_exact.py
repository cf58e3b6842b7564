"""The exact mathematics against scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from squall.analysis.exact import (
    beta_cdf,
    beta_quantile,
    binomial_ranks,
    binomial_tail,
    clopper_pearson,
    samples_needed,
    student_quantile,
)

SHAPES = [(0.5, 0.5), (1, 1), (1, 250), (3.5, 0.5), (20, 981), (1500.5, 1500.5), (3, 1_000_000), (60_000, 61_000)]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_incomplete_beta_function_is_scipys(a: float, b: float) -> None:
    for p in (1e-6, 0.025, 0.3, 0.5, 0.95, 0.9999):
        x = float(stats.beta.ppf(p, a, b))
        assert beta_cdf(x, a, b) == pytest.approx(float(stats.beta.cdf(x, a, b)), rel=1e-7, abs=1e-12)
        assert beta_quantile(p, a, b) == pytest.approx(x, rel=1e-6, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 200_000), share=st.floats(0, 1))
def test_the_exact_interval_is_scipys(n: int, share: float) -> None:
    bad = round(n * share)
    expected = stats.binomtest(bad, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(bad, n) == pytest.approx((float(expected.low), float(expected.high)), rel=1e-6, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 5000), share=st.floats(0.001, 0.999), more=st.floats(0, 1))
def test_the_tail_is_scipys(n: int, share: float, more: float) -> None:
    bad = round(n * more)
    assert binomial_tail(bad, n, share) == pytest.approx(float(stats.binom.sf(bad - 1, n, share)), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 20, 100, 499, 3000])
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_the_ranks_hold_the_quantile_as_often_as_said(n: int, q: float) -> None:
    """With X ~ Binomial(n, q) samples below the true quantile, it lies between the ranks r and s when r <= X < s."""
    lower, upper = binomial_ranks(n, q)
    missed_below = float(stats.binom.cdf(lower - 1, n, q))
    missed_above = float(stats.binom.sf(upper - 1, n, q))
    assert missed_below <= 0.025 + 1e-12
    assert missed_above <= 0.025 + 1e-12
    assert float(stats.binom.cdf(lower, n, q)) > 0.025, "a narrower interval would do as well"
    assert upper == n + 1 or float(stats.binom.sf(upper - 2, n, q)) > 0.025


@pytest.mark.parametrize("df", [1, 2, 3.5, 10, 200])
@pytest.mark.parametrize("p", [0.6, 0.975, 0.995])
def test_students_quantile_is_scipys(df: float, p: float) -> None:
    assert student_quantile(p, df) == pytest.approx(float(stats.t.ppf(p, df)), rel=1e-6)


@pytest.mark.parametrize(("share", "needed"), [(0.005, 183), (0.02, 45), (0.05, 17), (0.5, 1)])
def test_samples_needed_are_just_enough(share: float, needed: int) -> None:
    assert samples_needed(share) == needed
    assert clopper_pearson(0, needed)[1] <= 4 * share
    assert needed == 1 or clopper_pearson(0, needed - 1)[1] > 4 * share


def test_a_share_of_nothing_is_resolved_as_a_thousandth() -> None:
    assert samples_needed(0.0) == samples_needed(0.001) == math.ceil(math.log(0.025) / math.log1p(-0.004))
