"""What opens a breaker, and when."""

from __future__ import annotations

import pytest

from squall_resilience.errors import BreakerOpen
from squall_resilience.events import StateChanged
from tests.resilience.breaker.clockwork import Clocked

OFF = {"failures_in_a_row": None}


def test_three_bad_periods_in_a_row_open_it() -> None:
    it = Clocked(**OFF)
    took = it.traffic(120, failing=0.5)
    assert 30 <= took < 40
    assert it.changes == [("closed", "open", "error_rate")]


def test_a_rate_of_exactly_the_limit_does_not() -> None:
    it = Clocked(**OFF)
    assert it.traffic(120, failing=0.4) == 120
    assert it.breaker.read().error_rate == pytest.approx(0.4, abs=0.02)
    assert it.breaker.state == "closed"


def test_a_good_period_in_between_begins_the_count_anew() -> None:
    it = Clocked(**OFF)
    for failing in (0.9, 0.9, 0.1, 0.9, 0.9, 0.1):
        it.traffic(10, failing=failing)
    assert it.breaker.state == "closed"
    assert it.breaker.read().periods_in_a_row == 0


@pytest.mark.parametrize("healthy_minutes", [0, 6, 60])
def test_a_long_healthy_time_does_not_mask_a_burst_of_errors(healthy_minutes: int) -> None:
    it = Clocked(latency=0.3, **OFF)
    it.traffic(healthy_minutes * 60 + 3.7, took=0.02)  # the fault begins within a period
    assert it.traffic(120, failing=1.0) <= 40


def test_all_calls_failing_opens_it_at_once_by_default() -> None:
    it = Clocked()
    it.traffic(360)
    assert it.traffic(60, failing=1.0) <= 2.1
    assert it.changes == [("closed", "open", "failures_in_a_row")]


def test_the_row_is_exact() -> None:
    it = Clocked(failures_in_a_row=5)
    it.fail(4)
    it.succeed()
    it.fail(4)
    assert it.breaker.state == "closed"
    it.fail()
    assert it.breaker.state == "open"


def test_a_latency_above_the_limit_opens_it_after_a_long_healthy_time() -> None:
    it = Clocked(latency=0.3, **OFF)
    it.traffic(360, rate=2, took=0.05)
    assert 14 <= it.traffic(120, rate=2, took=0.5) <= 20  # 5 % of five minutes, and a look
    (change,) = [each for each in it.events if isinstance(each, StateChanged)]
    assert change.cause == "latency"
    assert change.figures["latency"] == pytest.approx(0.5, rel=0.05)


def test_the_latency_says_nothing_below_the_minimum_of_calls() -> None:
    it = Clocked(latency=0.3, minimum_calls=20, **OFF)
    it.succeed(19, took=1.0)
    it.wait(2)
    assert it.breaker.state == "closed"
    it.succeed(1, took=1.0)
    it.wait(2)
    assert it.breaker.state == "open"


def test_latencies_older_than_the_window_are_forgotten() -> None:
    it = Clocked(latency=0.3, window=60, minimum_calls=10, **OFF)
    it.traffic(40, took=0.1)
    it.succeed(1, took=0.2)
    assert it.breaker.read().latency == pytest.approx(0.1, rel=0.05)
    it.wait(61)
    it.succeed(10, took=0.25)
    assert it.breaker.read().latency == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("silence", "opens"), [(1, True), (2, True), (3, False), (100, False)])
def test_periods_without_the_minimum_are_passed_over_up_to_a_bound(silence: int, opens: bool) -> None:  # noqa: FBT001
    it = Clocked(**OFF)
    it.traffic(20, failing=1.0)
    assert it.breaker.read().periods_in_a_row == 2
    for _ in range(silence):
        it.fail(19)
        it.wait(10)
    it.traffic(10, failing=1.0)
    assert (it.breaker.state == "open") is opens


def test_a_silent_period_between_bad_ones_is_not_counted_itself() -> None:
    it = Clocked(**OFF)
    for _ in range(2):
        it.traffic(10, failing=1.0)
        it.wait(10)
    assert it.breaker.read().periods_in_a_row == 2
    assert it.breaker.state == "closed"


def test_all_conditions_must_hold_when_asked_for_all() -> None:
    it = Clocked(trip="all", latency=0.3, failures_in_a_row=3)
    it.traffic(40, failing=0.5)
    it.fail(5)
    assert it.breaker.state == "closed", "errors and a row, but quick ones"
    it.traffic(40, rate=2, failing=0.5, took=0.4)
    assert it.breaker.state == "closed", "errors and slow ones, but no row"
    it.fail(2, took=0.4)  # the traffic ended with one
    assert it.changes == [("closed", "open", "failures_in_a_row+error_rate+latency")]


def test_all_of_the_conditions_that_are_set_are_enough() -> None:
    it = Clocked(trip="all", error_rate=None, failures_in_a_row=3, latency=0.3)
    it.traffic(20, rate=2, took=0.5)
    it.fail(3)
    assert it.changes == [("closed", "open", "failures_in_a_row+latency")]


def test_slow_calls_count_as_failures_when_they_are_said_to() -> None:
    it = Clocked(slow_call=0.25, failures_in_a_row=4)
    it.succeed(3, took=0.3)
    it.succeed(1, took=0.25)
    it.succeed(3, took=0.3)
    assert it.breaker.state == "closed"
    it.succeed(1, took=0.26)
    assert it.breaker.state == "open"
    assert it.breaker.read().failures == 7


def test_slow_blocks_and_slow_trials_count_too() -> None:
    it = Clocked(slow_call=0.25, failures_in_a_row=2, wait=10, trial_share=1.0, trials=2, trial_error_rate=0.0)
    for took in (0.5, 0.25, 0.5, 0.5):
        with it.breaker.guard():
            it.wait(took)
    assert it.breaker.state == "open"
    it.wait(10)
    it.succeed(took=0.25)
    it.succeed(took=0.5)
    reading = it.breaker.read()
    assert (reading.state, reading.successes, reading.failures) == ("open", 2, 4)


def test_of_two_conditions_that_hold_at_once_one_is_the_cause() -> None:
    it = Clocked(periods=1, latency=0.3, **OFF)
    it.traffic(10.5, rate=2, failing=1.0, took=0.4)
    assert it.changes == [("closed", "open", "error_rate")]


def test_what_opened_it_is_seen_as_long_as_it_is_open() -> None:
    it = Clocked(wait=5000, minimum_calls=10, **OFF)
    it.traffic(40, failing=0.5, took=0.1)
    it.wait(1000)
    reading = it.breaker.read()
    assert (reading.state, reading.periods_in_a_row, reading.error_rate) == ("open", 3, 0.5)
    assert reading.latency == pytest.approx(0.1, rel=0.05)


def test_an_open_one_says_for_how_long() -> None:
    it = Clocked(failures_in_a_row=1, wait=20)
    it.fail()
    it.wait(8)
    with pytest.raises(BreakerOpen, match="inventory: its breaker is open for another 12 s") as caught:
        it.call(0.0, "good")
    assert caught.value.retry_after == pytest.approx(12)
    assert (caught.value.dependency, caught.value.link) == ("inventory", "breaker")
    assert it.breaker.read().rejected == 1


def test_the_wait_is_stretched_at_random() -> None:
    it = Clocked(failures_in_a_row=1, wait=20, jitter=0.5, random=0.5)
    it.fail()
    assert it.breaker.read().wait_left == pytest.approx(25)


def test_each_opening_in_a_row_waits_twice_as_long_up_to_the_bound() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, wait_max=35, trials=1)
    it.fail()
    waits = []
    for _ in range(4):
        waits.append(it.breaker.read().wait_left)
        it.wait(waits[-1])
        it.fail()
    assert waits == [10, 20, 35, 35]
    it.wait(35)
    it.succeed()
    assert it.breaker.state == "closed"
    it.fail()
    assert it.breaker.read().wait_left == 10


def test_forcing_begins_the_waits_anew() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, wait_max=80, trials=1)
    for _ in range(2):
        it.breaker.force_open()
        it.breaker.release()
        it.fail()
        assert it.breaker.read().wait_left == 10
        it.wait(10)
        it.fail()
        assert it.breaker.read().wait_left == 20
