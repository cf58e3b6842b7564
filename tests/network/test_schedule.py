"""When packets leave a delay line: held against netem's own definitions, written down a second time here."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.workers.network.schedule import Draws, Rate, Reorder, Schedule, Shape

MS = 1_000_000
times = st.lists(st.integers(0, 20 * MS), min_size=1, max_size=60)
"""Gaps between arrivals."""


def crandom(rho: int, last: int, value: int) -> int:
    """get_crandom of net/sched/sch_netem.c, in its own terms."""
    return (value * (2**32 - (rho + 1)) + last * (rho + 1)) >> 32


def fill(schedule: Schedule[int], gaps: list[int], size: int = 100) -> list[int]:
    """Put packets in after these gaps; their arrival times."""
    now, arrivals = 10**12, []
    for number, gap in enumerate(gaps):
        now += gap
        assert schedule.put(number, size, now)
        arrivals.append(now)
    return arrivals


def leave(schedule: Schedule[int]) -> list[tuple[int, int]]:
    """Each packet with when it leaves, in the order in which they do."""
    left = []
    while (when := schedule.next_ns) is not None:
        assert schedule.take(when - 1) is None
        item = schedule.take(when)
        assert item is not None
        left.append((item, when))
    return left


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_correlated_draw_is_netems(seed: int, rho: float) -> None:
    draws, source = Draws(rho, random.Random(seed)), random.Random(seed)
    scaled = int(rho * (2**32 - 1) + 0.5)
    last = source.getrandbits(32) if scaled else 0
    for _ in range(20):
        value = source.getrandbits(32)
        last = crandom(scaled, last, value) if scaled else value
        assert draws.next() == last
        assert 0 <= last < 2**32


@given(times, st.integers(0, 100 * MS))
def test_a_constant_delay_keeps_the_order_and_is_exact(gaps: list[int], latency: int) -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=latency))
    arrivals = fill(schedule, gaps)
    assert leave(schedule) == [(number, when + latency) for number, when in enumerate(arrivals)]


@given(times, st.integers(0, 50 * MS), st.integers(1, 80 * MS), st.integers(), st.sampled_from(["uniform", "normal"]))
def test_nothing_leaves_before_it_came_or_is_lost(
    gaps: list[int], latency: int, jitter: int, seed: int, distribution: str
) -> None:
    shape = Shape.from_json({"latency_ns": latency, "jitter_ns": jitter, "distribution": distribution})
    schedule: Schedule[int] = Schedule(shape, seed)
    arrivals = fill(schedule, gaps)
    left = leave(schedule)
    assert sorted(number for number, _ in left) == list(range(len(gaps)))
    assert [when for _, when in left] == sorted(when for _, when in left)
    for number, when in left:
        assert when >= arrivals[number]
        if distribution == "uniform":
            assert when - arrivals[number] <= latency + jitter


@pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 5 / 3**0.5), ("normal", 5.0)])
def test_jitter_has_the_distribution_that_was_asked_for(distribution: str, deviation: float) -> None:
    shape = Shape.from_json({"latency_ns": 40 * MS, "jitter_ns": 5 * MS, "distribution": distribution})
    schedule: Schedule[int] = Schedule(shape, 7)
    arrivals = fill(schedule, [1] * 20_000)
    delays = [(when - arrivals[number]) / MS for number, when in leave(schedule)]
    assert statistics.fmean(delays) == pytest.approx(40, abs=0.15)
    assert statistics.pstdev(delays) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_delay_depends_on_the_one_before_as_much_as_was_asked_for(rho: float) -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=40 * MS, jitter_ns=10 * MS, correlation=rho), 3)
    arrivals = fill(schedule, [1] * 20_000)
    delays = [float(when - arrivals[number]) for number, when in sorted(leave(schedule))]
    assert statistics.correlation(delays[:-1], delays[1:]) == pytest.approx(rho, abs=0.04)


def test_the_same_seed_gives_the_same_times_and_another_does_not() -> None:
    shape = Shape(latency_ns=40 * MS, jitter_ns=10 * MS, reorder=Reorder(0.3, 0.2))
    runs = []
    for seed in (5, 5, 6):
        schedule: Schedule[int] = Schedule(shape, seed)
        fill(schedule, [MS] * 50)
        runs.append(leave(schedule))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(("share", "gap"), [(0.25, 1), (1.0, 5), (0.5, 4), (0.0, 1)])
def test_overtaking_is_netems(share: float, gap: int) -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=MS, reorder=Reorder(share, gap=gap)), 11)
    arrivals, source, counter, wanted = [], random.Random("11:reorder"), 0, []
    now = 10**12
    for number in range(2000):
        now += 1000
        schedule.put(number, 60, now)
        arrivals.append(now)
        if counter < gap - 1 or int(share * (2**32 - 1)) < source.getrandbits(32) or share == 0:
            counter += 1
        else:
            counter = 0
            wanted.append(number)
        if schedule.next_ns == 0:
            assert schedule.take(now) == number, "it leaves at once, before all that is held"
    assert schedule.tally.reordered == len(wanted)
    assert [number for number, _ in leave(schedule)] == [n for n in range(2000) if n not in set(wanted)]
    if share < 1:
        assert len(wanted) * (gap - 1 + 1 / share if share else 1) == pytest.approx(2000 if share else 0, rel=0.15)


def test_a_rate_is_a_clock_that_packets_use_up() -> None:
    schedule: Schedule[int] = Schedule(Shape(rate=Rate(1_000_000)))
    fill(schedule, [0] * 100, size=1000)
    whens = [when for _, when in leave(schedule)]
    assert whens[0] == 10**12 + MS
    assert {after - before for before, after in pairwise(whens)} == {MS}


@given(times, st.integers(1000, 10**9), st.integers(0, 50 * MS), st.integers(1, 65_000))
def test_a_rate_with_a_delay_is_netems(gaps: list[int], rate: int, latency: int, size: int) -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=latency, rate=Rate(rate)))
    arrivals, wanted, last = fill(schedule, gaps, size), [], 0
    for number, arrived in enumerate(arrivals):
        delay, now = latency, arrived
        if last > now:
            delay, now = max(0, delay - (last - now)), last
        last = now + delay + size * 10**9 // rate
        wanted.append((number, last))
    assert leave(schedule) == wanted


def test_each_flow_has_a_clock_of_its_own_when_asked() -> None:
    shared: Schedule[str] = Schedule(Shape(rate=Rate(1_000_000)))
    each: Schedule[str] = Schedule(Shape(rate=Rate(1_000_000, per_flow=True)))
    for schedule in (shared, each):
        for _ in range(10):
            for flow in ("a", "b"):
                schedule.put(flow, 1000, 10**12, flow=flow)
    assert max(when for when, *_ in shared._queue) == 10**12 + 20 * MS
    assert max(when for when, *_ in each._queue) == 10**12 + 10 * MS


def test_flows_are_forgotten_when_nothing_of_theirs_is_held() -> None:
    schedule: Schedule[int] = Schedule(Shape(rate=Rate(1_000_000_000, per_flow=True), limit_packets=50))
    for number in range(10_000):
        assert schedule.put(number, 100, number * MS, flow=number)
        assert schedule.take(number * MS + MS // 2) == number
    assert len(schedule._last_ns) <= 101


@given(st.integers(1, 30), st.integers(100, 3000))
def test_a_full_queue_loses_what_comes_and_counts_it(packets: int, octets: int) -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=MS, limit_packets=packets, limit_bytes=octets))
    taken = sum(schedule.put(number, 100, 0) for number in range(50))
    assert taken == min(packets, octets // 100) == len(schedule)
    assert schedule.tally.overflowed == 50 - taken
    assert schedule.take(MS) == 0
    assert schedule.put(51, 100, MS), "there is room again"


def test_another_shape_leaves_what_is_held_as_it_is() -> None:
    schedule: Schedule[int] = Schedule(Shape(latency_ns=100 * MS))
    schedule.put(1, 60, 0)
    schedule.become(Shape(latency_ns=MS))
    schedule.put(2, 60, 0)
    schedule.put(3, 60, 0, extra_ns=5 * MS)
    assert leave(schedule) == [(2, MS), (3, 6 * MS), (1, 100 * MS)]


def test_a_shape_survives_being_written_down() -> None:
    shape = Shape(3, 2, 0.5, "normal", Reorder(0.1, 0.2, 3), Rate(1000, per_flow=True, overhead=4), 10, 1000)
    assert Shape.from_json(json.loads(json.dumps(dataclasses.asdict(shape)))) == shape
