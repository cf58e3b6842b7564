"""Bulkhead: a bounded number under way, a bounded number in line, each place given back once."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from squall_resilience import deadline
from squall_resilience.bulkhead import Bulkhead, BulkheadSettings
from squall_resilience.errors import BulkheadFull, Rejected, SettingsError
from squall_resilience.metrics import MetricNameClash, Registry
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from squall_resilience.events import Event


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def made(limit: int = 1, waiting: int = 10, wait: float = 20.0, **more: Any) -> Bulkhead:
    return Bulkhead("inventory", BulkheadSettings(limit, waiting, wait), registry=None, **more)


def numbers(bulkhead: Bulkhead) -> tuple[dict[str, float], dict[str, float]]:
    samples = list(bulkhead.samples())
    gauges = {each.name.removeprefix("resilience_bulkhead_"): each.value for each in samples if each.kind == "gauge"}
    return gauges, {each.labels[-1][1]: each.value for each in samples if each.kind == "counter"}


class TestThreads:
    """Calls from threads."""

    def test_no_more_than_the_limit_are_under_way_and_all_come_through(self) -> None:
        bulkhead, running, most, lock = made(3, 100), 0, 0, threading.Lock()

        @bulkhead
        def call() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.001)
            with lock:
                running -= 1

        threads = [threading.Thread(target=call) for _ in range(40)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(20)
        assert most == 3
        gauges, calls = numbers(bulkhead)
        assert gauges == {"in_use": 0, "waiting": 0, "limit": 3}
        assert calls == {"admitted": 40, "rejected": 0, "timed_out": 0}

    def test_who_finds_the_line_full_is_turned_away_at_once(self) -> None:
        heard: list[Event] = []
        bulkhead = made(1, 0, listeners=[heard.append])
        with bulkhead.guard(), pytest.raises(BulkheadFull, match="inventory: 1 calls are under way") as refused:
            bulkhead(lambda: None)()
        assert isinstance(refused.value, Rejected)
        assert (refused.value.link, refused.value.dependency) == ("bulkhead", "inventory")
        assert numbers(bulkhead)[1] == {"admitted": 1, "rejected": 1, "timed_out": 0}
        assert [(each.kind, each.dependency) for each in heard] == [("bulkhead", "inventory")]

    def test_who_waits_long_enough_is_turned_away_then(self) -> None:
        bulkhead = made(1, 1, 0.03)
        with bulkhead.guard():
            began = time.monotonic()
            with pytest.raises(BulkheadFull, match=r"within the 0\.03 s"):
                bulkhead(lambda: None)()
            assert time.monotonic() - began >= 0.03
        assert numbers(bulkhead) == (
            {"in_use": 0, "waiting": 0, "limit": 1},
            {"admitted": 1, "rejected": 0, "timed_out": 1},
        )

    def test_a_deadline_bounds_the_wait(self) -> None:
        bulkhead = made(1, 1, 60)
        with bulkhead.guard():
            began = time.monotonic()
            with deadline.within(0.03), pytest.raises(BulkheadFull, match="could wait"):
                bulkhead(lambda: None)()
            assert time.monotonic() - began < 10
            with deadline.within(0), pytest.raises(BulkheadFull, match="no time to wait"):
                bulkhead(lambda: None)()

    def test_the_line_moves_in_order_of_arrival(self) -> None:
        bulkhead, order, threads = made(1, 20), [], []
        with bulkhead.guard():
            for number in range(10):
                thread = threading.Thread(target=bulkhead(order.append), args=(number,))
                thread.start()
                threads.append(thread)
                until(lambda number=number: numbers(bulkhead)[0]["waiting"] == number + 1)
        for each in threads:
            each.join(20)
        assert order == list(range(10))

    def test_a_failed_call_gives_its_slot_back(self) -> None:
        bulkhead = made(1, 0)

        @bulkhead
        def fails(error: BaseException) -> None:
            raise error

        for error in (ValueError("x"), KeyboardInterrupt(), SystemExit()):
            with pytest.raises(type(error)):
                fails(error)
        assert numbers(bulkhead)[0]["in_use"] == 0

    def test_a_generator_holds_a_slot_from_its_first_item_to_its_end(self) -> None:
        bulkhead = made(1, 0)

        @bulkhead
        def items() -> Iterator[int]:
            yield from range(3)

        first = items()
        assert numbers(bulkhead)[0]["in_use"] == 0
        assert next(first) == 0
        with pytest.raises(BulkheadFull):
            next(items())
        assert list(first) == [1, 2]
        early = items()
        next(early)
        early.close()
        assert list(items()) == [0, 1, 2]

    def test_growing_lets_in_who_waits_and_shrinking_lets_who_runs_finish(self) -> None:
        bulkhead, go, threads = made(1), threading.Event(), []
        for _ in range(5):
            threads.append(threading.Thread(target=bulkhead(go.wait), args=(20,)))
            threads[-1].start()
        until(lambda: numbers(bulkhead)[0] == {"in_use": 1, "waiting": 4, "limit": 1})
        bulkhead.configure(BulkheadSettings(4, 10, 20))
        assert numbers(bulkhead)[0] == {"in_use": 4, "waiting": 1, "limit": 4}
        bulkhead.configure(BulkheadSettings(2, 10, 20))
        assert numbers(bulkhead)[0] == {"in_use": 4, "waiting": 1, "limit": 2}
        go.set()
        for each in threads:
            each.join(20)
        assert numbers(bulkhead)[0] == {"in_use": 0, "waiting": 0, "limit": 2}

    def test_a_listener_may_raise_and_may_use_the_bulkhead(self) -> None:
        bulkhead, seen = made(2, 0), []

        def listener(event: Event) -> None:
            bulkhead.configure(BulkheadSettings(3, 0))
            bulkhead(seen.append)(event)
            raise ValueError("a listener's own")

        bulkhead.listeners.add(listener)
        with bulkhead.guard(), bulkhead.guard(), pytest.raises(BulkheadFull):
            bulkhead(lambda: None)()
        assert len(seen) == 1

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_of_a_fork_has_all_slots(self) -> None:
        bulkhead = made(1, 1)
        held = bulkhead.guard()
        held.__enter__()
        waits = threading.Thread(target=bulkhead(lambda: None))
        waits.start()
        until(lambda: numbers(bulkhead)[0]["waiting"] == 1)
        child = os.fork()
        if not child:
            ok = bulkhead(lambda: numbers(bulkhead)[0] == {"in_use": 1, "waiting": 0, "limit": 1})()
            held.__exit__(None, None, None)  # of the parent: not there to be given back
            os._exit(0 if ok and numbers(bulkhead)[0]["in_use"] == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        held.__exit__(None, None, None)
        waits.join(20)
        assert numbers(bulkhead)[0]["in_use"] == 0

    def test_no_slot_is_lost_when_threads_are_switched_at_every_chance(self) -> None:
        bulkhead, running, most, interval = made(2, 100), [], 0, sys.getswitchinterval()

        def many() -> None:
            nonlocal most
            call = bulkhead(lambda: (running.append(1), running.pop()))
            for _ in range(2_000):
                most = max(most, len(running))
                call()

        threads = [threading.Thread(target=many) for _ in range(6)]
        sys.setswitchinterval(1e-6)
        try:
            for each in threads:
                each.start()
            for each in threads:
                each.join(60)
        finally:
            sys.setswitchinterval(interval)
        assert most <= 2
        assert numbers(bulkhead) == (
            {"in_use": 0, "waiting": 0, "limit": 2},
            {"admitted": 12_000, "rejected": 0, "timed_out": 0},
        )

    def test_without_the_interpreters_lock_it_takes_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("squall_resilience.bulkhead.ONE_STEP", False)
        bulkhead, inside = made(1, 0), []

        @bulkhead
        def call() -> None:
            inside.append(numbers(bulkhead)[0]["in_use"])

        call()
        call()
        assert inside == [1, 1]


class TestTasks:
    """Calls from tasks, on both libraries."""

    @both
    def test_tasks_wait_in_order_and_no_more_run_than_may(self, world: World) -> None:
        bulkhead, order, running = made(2, 100), [], 0

        @bulkhead
        async def call(number: int) -> None:
            nonlocal running
            running += 1
            assert running <= 2
            await world.sleep(1)
            order.append(number)
            running -= 1

        async def main() -> None:
            if world.library == "asyncio":
                await asyncio.gather(*(call(number) for number in range(20)))
            else:
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(call, number)
                        await trio.lowlevel.checkpoint()

        world.run(main)
        if world.library == "asyncio":  # trio shuffles those that become ready at once
            assert order == list(range(20))
        assert sorted(order) == list(range(20))

    @both
    def test_waiting_ends_when_its_time_is_over(self, world: World) -> None:
        bulkhead = made(1, 1, 5.0)

        async def main() -> float:
            async with bulkhead.guard():
                began = world.clock()
                with pytest.raises(BulkheadFull, match="5 s"):
                    await bulkhead(world.sleep)(0)
                return world.clock() - began

        assert world.run(main) == pytest.approx(5.0)
        assert numbers(bulkhead)[1]["timed_out"] == 1

    @both
    def test_a_cancelled_waiter_gives_back_its_place_once(self, world: World) -> None:
        bulkhead = made(1, 1)

        async def main() -> None:
            async with bulkhead.guard():
                assert await world.cancelled_after(1, lambda: bulkhead(world.sleep)(0))
                assert numbers(bulkhead)[0] == {"in_use": 1, "waiting": 0, "limit": 1}
            assert numbers(bulkhead)[0]["in_use"] == 0

        world.run(main)
        assert numbers(bulkhead)[1] == {"admitted": 1, "rejected": 0, "timed_out": 0}

    @both
    def test_a_cancelled_call_gives_back_its_slot_once(self, world: World) -> None:
        bulkhead = made(1, 1)

        async def main() -> None:
            assert await world.cancelled_after(1, lambda: bulkhead(world.sleep)(9))
            assert numbers(bulkhead)[0]["in_use"] == 0
            await bulkhead(world.sleep)(0)

        world.run(main)

    def test_a_slot_given_in_the_moment_of_cancellation_is_passed_on(self) -> None:
        bulkhead, ran = made(1, 5), []

        async def main() -> None:
            held = bulkhead.guard()
            await held.__aenter__()
            first = asyncio.create_task(bulkhead(asyncio.sleep)(0))
            await asyncio.sleep(0)

            @bulkhead
            async def after() -> None:
                ran.append("after")

            second = asyncio.create_task(after())
            await asyncio.sleep(0)
            assert numbers(bulkhead)[0]["waiting"] == 2
            await held.__aexit__(None, None, None)  # the first has the slot now, and has not run yet
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await asyncio.wait_for(second, 10)

        asyncio.run(main())
        assert ran == ["after"]
        assert numbers(bulkhead) == (
            {"in_use": 0, "waiting": 0, "limit": 1},
            {"admitted": 2, "rejected": 0, "timed_out": 0},
        )

    @both
    def test_an_async_generator_holds_a_slot_until_it_is_closed(self, world: World) -> None:
        bulkhead = made(1, 0)

        @bulkhead
        async def items() -> AsyncIterator[int]:
            for each in range(3):
                yield each

        async def main() -> None:
            stream = items()
            assert await anext(stream) == 0
            assert numbers(bulkhead)[0]["in_use"] == 1
            await stream.aclose()  # type: ignore[attr-defined]
            assert numbers(bulkhead)[0]["in_use"] == 0
            assert [each async for each in items()] == [0, 1, 2]

        world.run(main)

    @both
    def test_a_thread_and_a_task_stand_in_one_line(self, world: World) -> None:
        bulkhead, order = made(1, 5), []

        async def call() -> None:
            async with bulkhead.guard():
                order.append("task")

        async def main() -> None:
            held = bulkhead.guard()
            held.__enter__()
            thread = threading.Thread(target=bulkhead(order.append), args=("thread",))
            thread.start()
            until(lambda: numbers(bulkhead)[0]["waiting"] == 1)
            releaser = threading.Timer(0.05, held.__exit__, (None, None, None))
            releaser.start()
            await call()
            thread.join(20)
            releaser.join(20)

        world.run(main, jumping=False)
        assert order == ["thread", "task"]

    def test_ten_thousand_callers(self) -> None:
        bulkhead, running, most = made(50, 10_000), 0, 0

        @bulkhead
        async def call() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        async def main() -> None:
            await asyncio.gather(*(call() for _ in range(10_000)))

        asyncio.run(main())
        assert most == 50
        assert numbers(bulkhead)[1]["admitted"] == 10_000


def test_all_settings_that_are_wrong_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as wrong:
        BulkheadSettings(limit=0, waiting=-1, wait=-0.5)
    assert {each.path for each in wrong.value.problems} == {"limit", "waiting", "wait"}


def test_two_of_one_name_are_refused() -> None:
    registry = Registry()
    first = Bulkhead("inventory", registry=registry)
    with pytest.raises(MetricNameClash, match="bulkhead named 'inventory'"):
        Bulkhead("inventory", registry=registry)
    assert 'resilience_bulkhead_limit{dependency="inventory"} 100' in registry.render()
    assert first.settings == BulkheadSettings()
