"""Clocks that jump, threads, forks, and how little a breaker may take."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from squall_resilience import BreakerSettings, CircuitBreaker
from squall_resilience.errors import BreakerOpen
from tests.resilience.breaker.clockwork import Clock, Clocked, PlannedError

if TYPE_CHECKING:
    from squall_resilience.events import Event

YEAR = 365 * 86_400.0


@pytest.mark.parametrize("jump", [-YEAR, -700.0, -5.0, 5.0, 700.0, YEAR])
def test_an_open_breaker_after_a_jump_waits_at_most_once_more(jump: float) -> None:
    it = Clocked(failures_in_a_row=1, wait=10)
    it.fail()
    it.wait(jump)
    left = it.breaker.read().wait_left
    assert 0 <= left <= 10
    it.wait(left)
    it.succeed()
    assert it.breaker.state == "half_open"


@pytest.mark.parametrize("jump", [-YEAR, -700.0, -5.0, 5.0, 700.0, YEAR])
def test_a_closed_breaker_after_a_jump_still_opens_in_time(jump: float) -> None:
    it = Clocked(failures_in_a_row=None, latency=1.0)
    it.traffic(25)
    it.wait(jump)
    assert it.traffic(120, failing=0.9) <= 51
    assert it.breaker.state == "open"


@pytest.mark.parametrize("jump", [-YEAR, -700.0, 700.0, YEAR])
def test_a_trial_over_a_jump_is_not_waited_for_for_ever(jump: float) -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1, trial_timeout=30)
    it.fail()
    it.wait(10)
    it.breaker.guard().__enter__()
    it.wait(jump)
    assert it.breaker.state in {"half_open", "open"}
    it.wait(30)
    assert it.breaker.state in {"half_open", "open"}
    it.wait(10)
    it.succeed()
    assert it.breaker.state == "closed"


def test_a_call_over_a_jump_backwards_took_no_time() -> None:
    it = Clocked(slow_call=1.0)
    it.succeed(took=-500.0)
    assert it.breaker.read().latency == 1e-4


def test_successes_and_failures_of_threads_are_all_counted() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        breaker = CircuitBreaker(
            "inventory", BreakerSettings(error_rate=None, latency=60.0, failures_in_a_row=None), registry=None
        )

        @breaker
        def dependency(number: int) -> int:
            if number % 7 == 0:
                raise PlannedError
            return number

        def thread(first: int) -> None:
            for number in range(first, first + 3000):
                try:
                    dependency(number)
                except PlannedError:
                    continue

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(thread, [0] * 8))
            assert breaker.read().rejected == 0
        reading = breaker.read()
    finally:
        sys.setswitchinterval(interval)
    failures = len(range(0, 3000, 7))
    assert (reading.failures, reading.successes) == (8 * failures, 8 * (3000 - failures))


def test_every_call_is_counted_once_over_many_changes_of_state() -> None:
    it = Clocked(failures_in_a_row=1, wait=0.001, trials=1, trial_share=0.5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ends: list[dict[str, int]] = []

    def thread(first: int) -> None:
        seen = {"success": 0, "failure": 0, "rejected": 0}
        for number in range(first, first + 1500):
            it.clock.now += 0.0001
            try:
                it.call(0.0001, PlannedError() if number % 11 == 0 else "good")
                seen["success"] += 1
            except PlannedError:
                seen["failure"] += 1
            except BreakerOpen:
                seen["rejected"] += 1
        ends.append(seen)

    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(thread, range(6)))
    finally:
        sys.setswitchinterval(interval)
    reading = it.breaker.read()
    assert len(it.changes) > 100
    assert all(before[1] == after[0] for before, after in zip(it.changes, it.changes[1:], strict=False)), (
        "told in order"
    )
    for outcome, counted in (
        ("success", reading.successes),
        ("failure", reading.failures),
        ("rejected", reading.rejected),
    ):
        assert counted == sum(each[outcome] for each in ends), outcome


def test_calls_that_outlive_states_are_counted() -> None:
    it = Clocked(failures_in_a_row=1, wait=1, trials=1)
    held = [it.breaker.guard() for _ in range(100)]
    for each in held:
        each.__enter__()
    for _ in range(3):
        it.fail()
        it.wait(1)
        it.succeed()
    for each in held:
        each.__exit__(None, None, None)
    reading = it.breaker.read()
    assert (reading.successes, reading.failures, reading.state) == (103, 3, "closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_goes_on_with_what_the_parent_knew_and_waits_for_nobody() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1)
    it.fail()
    it.wait(10)
    inside, leave = threading.Event(), threading.Event()

    @it.breaker
    def trial() -> None:
        inside.set()
        leave.wait(30)

    def telling(event: Event) -> None:
        assert event.dependency == "inventory"
        inside.set()
        leave.wait(30)

    def rejected() -> None:
        with pytest.raises(BreakerOpen):
            it.call(0.0, "good")

    thread = threading.Thread(target=trial)
    thread.start()
    assert inside.wait(30)
    it.breaker.listeners.add(telling)
    inside.clear()
    teller = threading.Thread(target=rejected)
    teller.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:  # the thread in the trial, and the one that tells, are not here
        status = 1
        try:
            signal.alarm(30)
            it.breaker.listeners.remove(telling)
            before = it.breaker.read()
            if (before.state, before.trials_under_way) == ("half_open", 0):
                it.clock.now += 1
                for _ in range(10):
                    try:
                        it.call(0.0, "good")
                    except BreakerOpen:
                        continue
                status = 0 if it.breaker.state == "closed" and it.events[-1].new == "closed" else 2  # type: ignore[attr-defined]
        finally:
            os._exit(status)
    leave.set()
    thread.join(30)
    teller.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert it.breaker.state == "closed"


def test_a_signal_handler_may_use_the_breaker_that_it_interrupts() -> None:
    it = Clocked(failures_in_a_row=None, error_rate=None, latency=60.0)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        it.fail()

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        for number in range(200_000):
            it.fail()
            if number > 2000 and handled > 20:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert handled > 20
    assert it.breaker.read().failures == number + 1 + handled


def test_one_takes_at_most_sixteen_kilobytes() -> None:
    settings = BreakerSettings(latency=60.0, error_rate=None, failures_in_a_row=None)
    every_bucket = [1e-4 * 1.05 * 1.1**step for step in range(146)]
    clock = Clock()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        breakers = [CircuitBreaker(f"dependency-{n}", settings, clock=clock, registry=None) for n in range(10)]
        for breaker in breakers:
            clock.now = 1000.0
            breaker.force_open()
            breaker.force_closed()
            breaker.release()
            for _ in range(31):
                for took in every_bucket:
                    with breaker.guard():
                        clock.now += took / 100
                clock.now += 10
                breaker.read()
            for _ in range(50):
                with breaker.guard():
                    clock.now += 0.01
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / len(breakers)
    finally:
        tracemalloc.stop()
    assert breakers[0].read().successes == 31 * 146 + 50
    assert 8_000 <= each <= 16_000, f"{each:.0f} bytes"
