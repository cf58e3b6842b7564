"""What a half-open breaker lets through: exactly its share, whoever comes at once, and never for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from squall_resilience.errors import BreakerOpen
from tests.resilience.breaker.clockwork import Clocked, PlannedError

MANY = {"failures_in_a_row": 1, "wait": 10, "trials": 10_000, "trials_at_once": 10_000}


def half_open(**settings: object) -> Clocked:
    it = Clocked(**{"failures_in_a_row": 1, "wait": 10, **settings})
    it.fail()
    it.wait(10)
    assert it.breaker.state == "half_open"
    return it


def tries(it: Clocked, times: int, outcome: object = "good") -> list[bool]:
    """Of so many calls that come one after the other, which were let through."""
    through = []
    for _ in range(times):
        try:
            it.call(0.0, outcome)
        except BreakerOpen:
            through.append(False)
        except PlannedError:
            through.append(True)
        else:
            through.append(True)
    return through


@pytest.mark.parametrize(("share", "every"), [(0.1, 10), (0.25, 4), (0.5, 2), (1.0, 1)])
def test_one_call_of_so_many_is_tried_beginning_with_the_first(share: float, every: int) -> None:
    it = half_open(**MANY, trial_share=share)
    assert tries(it, 200) == [n % every == 0 for n in range(200)]


@pytest.mark.parametrize("share", [0.0001, 0.03, 0.1, 0.15, 0.3, 0.7, 0.9999])
def test_the_share_stays_exact_over_many_calls(share: float) -> None:
    it = half_open(**{**MANY, "trials": 10_000}, trial_share=share)
    calls = 9_000
    assert sum(tries(it, calls)) == 1 + int((calls - 1) * share + 1e-9)


def test_ten_thousand_callers_of_asyncio_at_once_give_exactly_the_share() -> None:
    it = half_open(**MANY)
    under_way = most = 0

    async def dependency() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1

    async def main() -> list[object]:
        call = it.breaker(dependency)
        return await asyncio.gather(*(call() for _ in range(10_000)), return_exceptions=True)

    ends = asyncio.run(main())
    assert most == 1000
    assert ends.count(None) == 1000
    assert sum(isinstance(end, BreakerOpen) for end in ends) == 9000
    reading = it.breaker.read()
    assert (reading.trials_won, reading.trials_under_way, reading.rejected) == (1000, 0, 9000)


def test_callers_of_trio_at_once_give_exactly_the_share() -> None:
    it = half_open(**MANY)
    tried = 0

    async def dependency() -> None:
        nonlocal tried
        tried += 1
        await trio.sleep(0.01)

    call = it.breaker(dependency)

    async def one() -> None:
        try:
            await call()
        except BreakerOpen:
            return

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2000):
                nursery.start_soon(one)

    trio.run(main)
    assert tried == 200


def test_threads_at_once_give_exactly_the_share() -> None:
    it = half_open(**MANY)
    begin = threading.Barrier(20)
    tried: list[int] = []
    call = it.breaker(tried.append)

    def thread(number: int) -> int:
        begin.wait(30)
        rejected = 0
        for _ in range(200):
            try:
                call(number)
            except BreakerOpen:
                rejected += 1
        return rejected

    with ThreadPoolExecutor(20) as pool:
        rejected = sum(pool.map(thread, range(20)))
    assert (len(tried), rejected) == (400, 3600)


def test_every_tenth_caller_is_tried_not_those_that_come_first() -> None:
    """A burst of a thousand with room for few does not use up the turns of those that come later."""
    it = half_open(**{**MANY, "trials_at_once": 5})

    async def main() -> list[int]:
        gate = asyncio.Event()
        tried: list[int] = []

        async def dependency(number: int) -> None:
            tried.append(number)
            await gate.wait()

        call = it.breaker(dependency)
        tasks = [asyncio.ensure_future(call(number)) for number in range(1000)]
        await asyncio.sleep(0)
        assert tried == [0, 10, 20, 30, 40], "as many at once as may be"
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks = [asyncio.ensure_future(call(number)) for number in range(1000, 1040)]
        await asyncio.gather(*tasks, return_exceptions=True)
        return tried[5:]

    assert asyncio.run(main()) == [1000, 1009, 1019, 1029, 1039], "one turn was kept, not ninety"


def test_no_more_than_the_number_of_trials_in_all() -> None:
    it = half_open(trials=4, trials_at_once=100, trial_share=1.0)

    async def main() -> int:
        tried = 0

        async def dependency() -> None:
            nonlocal tried
            tried += 1
            await asyncio.sleep(0.01)

        call = it.breaker(dependency)
        await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
        return tried

    assert asyncio.run(main()) == 4
    assert it.changes[-1] == ("half_open", "closed", "trials_succeeded")


def test_it_closes_as_soon_as_it_cannot_be_lost() -> None:
    it = half_open(trial_share=1.0, trials=10, trial_error_rate=0.2)
    it.fail(2)
    it.succeed(7)
    assert it.breaker.state == "half_open"
    it.succeed()
    assert it.changes[-1] == ("half_open", "closed", "trials_succeeded")
    reading = it.breaker.read()
    assert reading.periods_in_a_row == reading.failures_in_a_row == 0


def test_it_opens_as_soon_as_it_cannot_be_won() -> None:
    it = half_open(trial_share=1.0, trials=10, trial_error_rate=0.2)
    it.succeed(7)
    it.fail(2)
    assert it.breaker.state == "half_open"
    it.fail()
    assert it.changes[-1] == ("half_open", "open", "trials_failed")
    assert it.events[-1].figures["trials_lost"] == 3  # type: ignore[attr-defined]
    assert it.breaker.read().wait_left == 10


def test_slow_trials_are_lost_ones() -> None:
    it = half_open(trial_share=1.0, trials=2, trial_error_rate=0.0, latency=0.25)
    it.succeed(took=0.25)
    assert it.breaker.read().trials_won == 1
    it.succeed(took=0.31)
    assert it.changes[-1] == ("half_open", "open", "trials_failed")
    assert it.breaker.read().successes == 2


def test_the_counters_begin_anew() -> None:
    it = Clocked(failures_in_a_row=3, wait=10, trial_share=1.0, trials=3, trial_error_rate=0.0, minimum_calls=3)
    it.succeed(500, took=5.0)
    it.fail(3)
    it.wait(10)
    it.succeed(2, took=0.1)
    reading = it.breaker.read()
    assert reading.latency == pytest.approx(0.1, rel=0.05)
    assert (reading.error_rate, reading.trials_won) == (0.0, 2)
    it.succeed(1, took=0.1)
    it.fail(2)
    assert it.breaker.state == "closed", "the three failures from before are forgotten"


def test_its_figures() -> None:
    it = half_open(trial_share=1.0, trials=10, trials_at_once=2, trial_error_rate=0.2)
    it.succeed()
    it.fail(2)
    it.breaker.guard().__enter__()
    reading = it.breaker.read()
    assert reading.error_rate == pytest.approx(2 / 3)
    assert (reading.trials_won, reading.trials_lost, reading.trials_under_way, reading.wait_left) == (1, 2, 1, 0.0)
    it.fail()
    assert it.events[-1].figures == {  # type: ignore[attr-defined]
        "trials_won": 1.0,
        "trials_lost": 3.0,
        "trials_under_way": 1.0,
        "latency": 1e-4,
    }


def test_a_latency_from_before_does_not_open_it_again() -> None:
    it = Clocked(latency=0.3, minimum_calls=5, failures_in_a_row=None, wait=10, trials=1)
    it.succeed(5, took=1.0)
    it.wait(1)
    assert it.breaker.state == "open"
    it.wait(10)
    it.succeed()
    it.fail()
    assert it.breaker.state == "closed"


def test_what_began_before_it_opened_proves_nothing() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trial_share=1.0, trials=1)
    early = [it.breaker.guard() for _ in range(3)]
    for each in early:
        each.__enter__()
    it.fail()
    early[0].__exit__(None, None, None)
    assert it.breaker.state == "open"
    it.wait(10)
    error = PlannedError()
    early[1].__exit__(type(error), error, None)
    assert it.breaker.state == "half_open"
    it.succeed()
    early[2].__exit__(type(error), error, None)
    reading = it.breaker.read()
    assert (reading.state, reading.successes, reading.failures) == ("closed", 2, 3)


def test_a_trial_that_never_comes_back_counts_as_lost_after_a_while() -> None:
    it = half_open(trials=2, trials_at_once=1, trial_error_rate=0.5, trial_share=1.0, trial_timeout=30)
    lost = it.breaker.guard()
    lost.__enter__()
    it.wait(29)
    assert tries(it, 3) == [False] * 3, "its place is taken"
    it.wait(1)
    assert tries(it, 1) == [True]
    assert it.breaker.state == "closed", "one of two was lost, which may be"
    lost.__exit__(None, None, None)
    assert it.breaker.read().trials_won == 1


def test_trials_that_never_come_back_open_it_again() -> None:
    it = half_open(trials=2, trials_at_once=2, trial_error_rate=0.0, trial_share=1.0, trial_timeout=30)
    it.breaker.guard().__enter__()
    it.wait(30)
    assert it.breaker.state == "open"
    it.wait(10)
    it.succeed(2)
    assert it.breaker.state == "closed"


def test_a_cancelled_trial_gives_its_place_back_and_proves_nothing() -> None:
    it = half_open(trials=1, trials_at_once=1, trial_share=1.0)

    async def main() -> None:
        async def dependency() -> None:
            await asyncio.sleep(60)

        task = asyncio.ensure_future(it.breaker(dependency)())
        await asyncio.sleep(0)
        assert it.breaker.read().trials_under_way == 1
        assert tries(it, 1) == [False]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    reading = it.breaker.read()
    assert (reading.state, reading.trials_under_way, reading.trials_lost) == ("half_open", 0, 0)
    it.succeed()
    assert it.breaker.state == "closed"


def test_the_wait_over_is_seen_by_a_look_and_by_a_call() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1)
    it.fail()
    it.wait(9.5)
    assert it.breaker.state == "open"
    it.wait(0.5)
    it.succeed()
    assert it.changes == [
        ("closed", "open", "failures_in_a_row"),
        ("open", "half_open", "wait_over"),
        ("half_open", "closed", "trials_succeeded"),
    ]


def test_one_breaker_serves_threads_and_loops_at_once() -> None:
    it = half_open(**MANY)
    breaker = it.breaker
    tried: list[str] = []

    async def soon() -> None:
        tried.append("asyncio")

    async def loop() -> None:
        await asyncio.gather(*(breaker(soon)() for _ in range(500)), return_exceptions=True)

    def thread() -> None:
        for _ in range(500):
            try:
                breaker(tried.append)("thread")
            except BreakerOpen:
                continue

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for each in threads:
        each.start()
    asyncio.run(loop())
    for each in threads:
        each.join(30)
    assert len(tried) == 200
