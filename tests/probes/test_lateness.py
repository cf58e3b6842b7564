"""How late sends were is told from a histogram of fixed size, and when that is too late from two rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.probes.lateness import SETTLED_NS, Lateness, LoadReport, late_limit_ns


@given(st.lists(st.integers(-1000, 2**62), min_size=1, max_size=300), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_at_most_a_sixteenth_or_a_microsecond_too_large(values: list[int], share: float) -> None:
    histogram = Lateness(10_000_000)
    for value in values:
        histogram.add(value)
    true = max(sorted(values)[max(0, -int(-share * len(values) // 1) - 1)], 0)
    assert true <= histogram.quantile(share) <= max(true * 17 / 16, true + 1024)
    assert histogram.most_ns == max(*values, 0)


def test_nothing_sent_is_not_late() -> None:
    assert Lateness(10_000_000).quantile(0.99) == 0


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (LoadReport(sent=1000, answered=1000), ""),
        (LoadReport(sent=1000, late=10, late_p99_ns=9_000_000, final=True), ""),
        (LoadReport(sent=20, late=2, final=True), ""),  # two slips in a short run
        (LoadReport(sent=1000, late=500, wall_ns=SETTLED_NS - 1), ""),  # too early to tell
        (LoadReport(sent=1000, late=500, final=True), "500 of 1000 requests"),
        (
            LoadReport(sent=1000, late=11, late_p99_ns=12_000_000, wall_ns=SETTLED_NS),
            "11 of 1000 requests were sent more than 10 ms late (p99 12.0 ms)",
        ),
        (LoadReport(sent=5, unsent_full=1), "raise `connections`"),
        (LoadReport(sent=5, unsent_late=2), "2 requests were not sent: this machine did not run the load"),
        (LoadReport(sent=5, unsent_local=2), "no free descriptor or port"),
        (LoadReport(sent=5, unreported=3), "3 samples were lost"),
    ],
)
def test_when_a_load_is_behind_and_why(report: LoadReport, says: str) -> None:
    assert says in report.behind
    assert bool(report.behind) == bool(says)


@pytest.mark.parametrize(
    ("rate", "limit_ns"),
    [(0.01, 50_000_000), (20, 50_000_000), (50, 20_000_000), (100, 10_000_000), (100_000, 10_000_000)],
)
def test_late_is_a_period_within_bounds(rate: float, limit_ns: int) -> None:
    assert late_limit_ns(rate) == limit_ns
