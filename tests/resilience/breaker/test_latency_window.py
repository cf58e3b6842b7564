"""The latencies that a breaker remembers, beside a sorted list of all of them."""

from __future__ import annotations

import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall_resilience.core.windows import LATENCY_ERROR, LATENCY_MAX, LATENCY_MIN, SLICES, LatencyWindow

WINDOW = 300.0
latencies = st.floats(min_value=LATENCY_MIN, max_value=LATENCY_MAX)


def nearest_rank(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values) - 1e-9) - 1]


@given(st.lists(latencies, min_size=1, max_size=300))
def test_the_quantile_is_within_its_error(values: list[float]) -> None:
    window = LatencyWindow(0.0)
    window.note(values)
    assert window.p95() == pytest.approx(nearest_rank(values), rel=LATENCY_ERROR * 1.0001)


def test_the_error_is_what_is_said() -> None:
    assert round(LATENCY_ERROR, 3) == 0.049
    assert pytest.approx(100, rel=0.05) == LATENCY_MAX


def test_without_calls_there_is_none() -> None:
    assert math.isnan(LatencyWindow(0.0).p95())


@pytest.mark.parametrize(("value", "seen"), [(-3.0, LATENCY_MIN), (0.0, LATENCY_MIN), (1e9, LATENCY_MAX)])
def test_what_is_beyond_the_range_counts_as_its_end(value: float, seen: float) -> None:
    window = LatencyWindow(0.0)
    window.note([value])
    assert window.p95() == seen


@given(st.lists(st.tuples(st.floats(min_value=0.0, max_value=100.0), st.lists(latencies, max_size=5)), max_size=60))
def test_it_covers_nine_tenths_to_the_whole_of_the_window(steps: list[tuple[float, list[float]]]) -> None:
    window, now, noted = LatencyWindow(0.0), 0.0, []
    for wait, values in steps:
        for _ in range(4):  # looked at often, as a breaker does
            now += wait / 4
            window.roll(now, WINDOW)
        window.note(values)
        noted += [(now, value) for value in values]
        assert window.count <= sum(1 for at, _ in noted if now - at <= WINDOW)
        assert window.count >= sum(1 for at, _ in noted if now - at < WINDOW * (1 - 1 / SLICES) - 25)


def test_a_steady_stream_is_covered_to_nine_tenths_at_least() -> None:
    window = LatencyWindow(0.0)
    for second in range(2000):
        window.roll(float(second), WINDOW)
        window.note([0.01])
        if second > WINDOW:
            assert WINDOW * 0.9 <= window.count <= WINDOW


def test_a_slice_is_forgotten_with_its_buckets() -> None:
    window = LatencyWindow(0.0)
    window.note([5.0] * 100)
    for second in range(0, 330, 10):
        window.roll(float(second), WINDOW)
        window.note([0.01])
    assert window.p95() == pytest.approx(0.01, rel=LATENCY_ERROR)
    assert window.count < 40


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), max_size=40))
def test_a_jumping_clock_loses_nothing_on_the_way_back_and_keeps_nothing_for_ever(jumps: list[float]) -> None:
    window, now = LatencyWindow(0.0), 0.0
    for jump in jumps:
        before = window.count
        now += jump
        window.note([0.2])
        window.roll(now, WINDOW)
        if jump < 0:
            assert window.count == before + 1
    for _ in range(2 * SLICES):
        now += WINDOW / SLICES
        window.roll(now, WINDOW)
    assert window.count == 0


@given(st.lists(st.sampled_from([1.0, 10.0, 300.0, 3600.0]), max_size=20))
def test_other_lengths_are_taken_while_it_runs(lengths: list[float]) -> None:
    window, now = LatencyWindow(0.0), 0.0
    for length in lengths:
        for _ in range(30):
            now += length / 15
            window.note([0.2])
            window.roll(now, length)
        assert 0 < window.count <= 16


def test_its_memory_does_not_grow_with_the_traffic() -> None:
    every_bucket = [LATENCY_MIN * 1.05 * 1.1**step for step in range(146)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        window = LatencyWindow(0.0)
        for second in range(1000):
            window.note(every_bucket * 3)
            window.roll(float(second), WINDOW)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert window.count > 100_000
    assert grown < 11_000
