"""The breaker's counters by themselves, at their edges."""

from __future__ import annotations

from math import isnan

import pytest

from squall_resilience.core.trials import Trials
from squall_resilience.core.windows import ErrorPeriods, LatencyWindow

ALL = {"share": 1.0, "at_once": 10, "in_all": 4}


def offered(trials: Trials, times: int, now: float = 0.0, first: int = 0) -> list[int]:
    return [number for number in range(first, first + times) if trials.offer(number, now, **ALL)]  # type: ignore[arg-type]


def test_lost_ones_count_to_the_number_in_all() -> None:
    trials = Trials()
    assert offered(trials, 2) == [0, 1]
    assert trials.ended(0, won=False)
    assert trials.ended(1, won=True)
    assert offered(trials, 9, first=10) == [10, 11]
    assert trials.ended(10, won=False)
    assert offered(trials, 9, first=20) == []
    assert (trials.won, trials.lost, len(trials.under_way)) == (1, 2, 1)


def test_one_that_is_not_waited_for_any_more_says_nothing() -> None:
    trials = Trials()
    assert offered(trials, 1, now=0.0) == [0]
    trials.give_up(29.9, 30.0)
    assert trials.under_way == {0: 0.0}
    trials.give_up(30.0, 30.0)
    assert (trials.won, trials.lost) == (0, 1)
    assert not trials.ended(0, won=True)
    assert (trials.won, trials.lost) == (0, 1)


def test_one_that_says_nothing_makes_room_for_another() -> None:
    trials = Trials()
    assert offered(trials, 4) == [0, 1, 2, 3]
    assert trials.ended(2, won=None)
    assert (trials.won, trials.lost) == (0, 0)
    assert offered(trials, 9, first=10) == [10]


@pytest.mark.parametrize(
    ("in_all", "share", "lost_max"),
    [(10, 0.2, 2), (10, 0.29, 2), (10, 0.0, 0), (5, 0.2, 1), (3, 0.2, 0), (100, 0.07, 7)],
)
def test_how_many_may_be_lost(in_all: int, share: float, lost_max: int) -> None:
    trials = Trials()
    trials.lost = lost_max
    trials.won = in_all - lost_max - 1
    assert trials.decided(in_all=in_all, lost_share_max=share) is None
    trials.won += 1
    assert trials.decided(in_all=in_all, lost_share_max=share) == "won"
    trials.lost += 1
    assert trials.decided(in_all=in_all, lost_share_max=share) == "lost"


def test_a_period_that_runs_is_not_judged() -> None:
    periods = ErrorPeriods(0.0, 10.0)
    periods.calls, periods.failures = 30, 30
    periods.roll(9.9, 10.0, 20, 0.4, 3)
    assert isnan(periods.rate)
    assert (periods.calls, periods.bad, periods.ends_at) == (30, 0, 10.0)
    periods.roll(10.0, 10.0, 20, 0.4, 3)
    assert (periods.rate, periods.calls, periods.failures, periods.bad, periods.ends_at) == (1.0, 0, 0, 1, 20.0)


def test_an_end_that_rounds_to_now_is_not_the_next_one() -> None:
    periods = ErrorPeriods(0.0, 3.3)
    periods.ends_at, now = 233084.45025757264, 233087.75025757262
    assert periods.ends_at + 3.3 == now
    assert (now - periods.ends_at) / 3.3 < 1
    periods.roll(now, 3.3, 20, 0.4, 3)
    assert periods.ends_at == now + 3.3


def test_periods_keep_to_their_grid() -> None:
    periods = ErrorPeriods(0.0, 10.0)
    periods.roll(27.0, 10.0, 20, 0.4, 3)
    assert periods.ends_at == 30.0


def test_silent_periods_are_counted_from_the_last_that_spoke() -> None:
    for silent, kept in ((2, 1), (3, 0)):
        periods = ErrorPeriods(0.0, 10.0)
        periods.calls = periods.failures = 20
        periods.roll(10.0 + silent * 10.0, 10.0, 20, 0.4, 3)
        assert periods.bad == kept
    periods = ErrorPeriods(0.0, 10.0)
    periods.roll(25.0, 10.0, 20, 0.4, 3)
    for end in (30.0, 40.0):
        periods.calls = periods.failures = 20
        periods.roll(end, 10.0, 20, 0.4, 3)
    periods.roll(60.0, 10.0, 20, 0.4, 3)
    assert periods.bad == 2, "the silence before them is over"


@pytest.mark.parametrize(("slow", "seen"), [(50, 0.01), (51, 5.0)])
def test_the_95th_percentile_is_that_of_the_nearest_rank(slow: int, seen: float) -> None:
    window = LatencyWindow(0.0)
    window.note([0.01] * (1000 - slow))
    window.note([5.0] * slow)
    assert window.p95() == pytest.approx(seen, rel=0.05)


def test_the_slowest_add_up_over_buckets() -> None:
    window = LatencyWindow(0.0)
    values = [0.001 * 1.1**step for step in range(100)]  # one in each
    window.note(values)
    assert window.p95() == pytest.approx(values[94], rel=0.05)


def test_a_slice_ends_on_its_second_and_is_forgotten_on_its_own() -> None:
    window = LatencyWindow(0.0)
    window.note([0.1])
    window.roll(30.0, 300.0)
    window.note([0.1])
    window.roll(299.9, 300.0)
    assert window.count == 2
    window.roll(300.0, 300.0)
    assert window.count == 1
    window.roll(599.8, 300.0)
    assert window.count == 0


def test_after_a_jump_back_everything_is_as_old_as_it_was() -> None:
    window = LatencyWindow(1000.0)
    window.note([0.1])
    window.roll(1030.0, 300.0)
    window.roll(500.0, 300.0)
    for now in (600.0, 769.9):
        window.roll(now, 300.0)
        assert window.count == 1
    window.roll(770.0, 300.0)
    assert window.count == 0
