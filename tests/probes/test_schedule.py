"""Each request has its exact time, from the integral of the rate."""

from __future__ import annotations

import math
from itertools import islice, pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.probes.schedule import Segment, intended_times, segments


def times(steps: list[tuple[float, float, float]], phase: float, seconds: float) -> list[float]:
    return [ns / 1e9 for ns in takewhile(lambda ns: ns < seconds * 1e9, intended_times(segments(steps), phase))]


def test_a_fixed_rate_is_evenly_spaced_from_its_phase() -> None:
    assert list(islice(intended_times(segments([(50, 0, 0)]), 0.25), 4)) == [
        5_000_000,
        25_000_000,
        45_000_000,
        65_000_000,
    ]


def test_a_million_requests_later_it_has_not_drifted() -> None:
    last = next(islice(intended_times(segments([(1000, 0, 0)]), 0.5), 1_000_000, None))
    assert last == 1_000_000_500_000


def test_a_ramp_sends_as_many_as_the_area_under_it() -> None:
    found = times([(100, 10, 0)], 0.0, 10)
    assert len(found) == 500  # half of 100/s for 10 s
    assert found[:3] == pytest.approx([math.sqrt(2 * n * 10 / 100) for n in range(3)])


def test_steps_follow_each_other_and_the_last_is_held() -> None:
    found = times([(10, 0, 2), (100, 0, 1), (10, 0, 0)], 0.5, 6)
    assert [sum(a <= t < a + 1 for t in found) for a in range(6)] == [10, 10, 100, 10, 10, 10]


def test_a_rate_may_ramp_down() -> None:
    found = times([(100, 0, 1), (20, 2, 0)], 0.5, 4)
    assert sum(1 <= t < 3 for t in found) == 120  # (100 + 20) / 2 * 2 s
    assert sum(3 <= t < 4 for t in found) == 20


STEPS = st.lists(
    st.tuples(st.floats(0.01, 1000), st.one_of(st.just(0.0), st.floats(0.001, 20)), st.one_of(st.just(0.0), st.floats(0.001, 20))),
    min_size=1, max_size=6,
)  # fmt: skip


@given(steps=STEPS, phase=st.floats(0, 1, exclude_max=True))
def test_the_nth_request_is_where_the_area_reaches_n(steps: list[tuple[float, float, float]], phase: float) -> None:
    parts = segments(steps)
    found = list(islice(intended_times(parts, phase), 200))
    assert len(found) == 200
    assert all(a <= b for a, b in pairwise(found))
    for n in (0, 1, 57, 199):
        assert area(parts, found[n] / 1e9) == pytest.approx(n + phase, rel=1e-6, abs=1e-4)


def area(parts: list[Segment], until: float) -> float:
    """The integral of the rate, computed the plain way."""
    total, begin = 0.0, 0.0
    for part in parts:
        inside = max(0.0, min(until - begin, part.seconds))
        slope = 0.0 if math.isinf(part.seconds) else (part.last - part.first) / part.seconds
        total += part.first * inside + slope * inside * inside / 2
        begin += part.seconds
    return total
