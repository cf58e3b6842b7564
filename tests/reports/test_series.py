"""Samples become buckets, percentiles and densities: exactly, and never more than a page can hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.probes.samples import OUTCOMES, Outcome, Sample, Series
from squall.reports.record import Window
from squall.reports.series import BUCKETS_MAX, GAUGE_POINTS_MAX, gauge_series, nearest_rank, request_series

SECOND = 1_000_000_000


def series_of(rows: list[tuple[float, float, Outcome]]) -> Series:
    series = Series("load")
    for at_s, latency_s, outcome in rows:
        series.add(Sample("load", round(at_s * SECOND), round(latency_s * SECOND), outcome))
    return series


def test_percentiles_are_by_nearest_rank() -> None:
    values = list(range(1, 101))
    assert [nearest_rank(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert nearest_rank([7], 0.95) == 7
    assert nearest_rank([], 0.5) is None


def test_a_request_counts_when_it_was_meant_to_be_sent() -> None:
    found = request_series(series_of([(0.0, 9.0, "ok"), (30.0, 0.1, "ok")]), 0, [])
    assert found.buckets[0].requests == 1
    assert found.buckets[0].p95_ns == 9 * SECOND


def test_what_failed_at_once_is_no_quick_answer_and_what_was_given_up_is_slow() -> None:
    rows: list[tuple[float, float, Outcome]] = [
        (0.1, 0.2, "ok"),
        (0.2, 0.001, "refused"),
        (0.3, 10.0, "timeout"),
        (30, 0.2, "ok"),
    ]
    found = request_series(series_of(rows), 0, [])
    assert found.buckets[0].p50_ns == 0.2 * SECOND
    assert found.buckets[0].p95_ns == 10 * SECOND
    assert found.buckets[0].errors == 2
    assert found.outcomes == {"ok": 2, "timeout": 1, "refused": 1}


def test_what_was_never_sent_took_as_long_as_the_longest() -> None:
    found = request_series(series_of([(0, 4.0, "timeout"), (30, 0.0, "unsent")]), 0, [])
    assert found.buckets[-1].p50_ns == 4 * SECOND


def test_a_bucket_begins_where_the_fault_does() -> None:
    rows: list[tuple[float, float, Outcome]] = [(at / 10, 0.1, "ok") for at in range(300)]
    found = request_series(series_of(rows), 0, [Window(10.25, 20)])
    assert 10.25 in [bucket.at_s for bucket in found.buckets]
    assert sum(bucket.requests for bucket in found.buckets if bucket.at_s < 10.25) == found.phases[0].requests


def test_seconds_without_requests_have_no_latency() -> None:
    found = request_series(series_of([(0.5, 0.1, "ok"), (29.5, 0.1, "ok")]), 0, [])
    assert found.buckets[10].requests == 0
    assert found.buckets[10].p95_ns is None


@given(
    rows=st.lists(
        st.tuples(
            st.floats(-5, 5_000_000),
            st.floats(0, 4000),
            st.sampled_from([name for name in OUTCOMES if name != "value"]),
        ),
        min_size=1,
        max_size=60,
    ),
    windows=st.lists(st.tuples(st.floats(0, 5_000_000), st.floats(0, 1000)), max_size=4),
)
def test_nothing_is_lost_and_nothing_grows(
    rows: list[tuple[float, float, Outcome]], windows: list[tuple[float, float]]
) -> None:
    spans = [Window(start, start + length) for start, length in windows]
    found = request_series(series_of(rows), 0, spans)
    assert sum(bucket.requests for bucket in found.buckets) == len(rows)
    assert len(found.buckets) <= BUCKETS_MAX + 1
    assert sum(stats.requests for stats in found.phases) <= len(rows)
    measured = sum(outcome in ("ok", "timeout", "unsent") for _, _, outcome in rows)
    assert sum(count for cells in found.density.cells for _, count in cells) == measured
    assert all(0 <= row < found.density.rows for cells in found.density.cells for row, _ in cells)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(allow_nan=True, allow_infinity=True)), min_size=1, max_size=50))
def test_a_gauge_keeps_its_ends_and_drops_what_is_no_number(rows: list[tuple[float, float]]) -> None:
    series = Series("stock.rss")
    for at_s, value in rows:
        series.add(Sample("stock.rss", round(at_s * SECOND), 0, "value", value))
    points = gauge_series(series, 0).points
    finite = [min(max(value, -1e290), 1e290) for _, value in rows if abs(value) < float("inf")]
    assert len(points) <= GAUGE_POINTS_MAX + 1
    if finite:
        assert min(point.least for point in points) == min(finite)
        assert max(point.most for point in points) == max(finite)


def test_the_looks_of_a_process_probe_are_a_share() -> None:
    series = series_of([(0.0, 0, "ok"), (0.1, 0, "error"), (30.0, 0, "ok")])
    points = gauge_series(series, 0).points
    assert points[0].mean == pytest.approx(0.5)
    assert points[-1].mean == 1
