"""Of many calls at once each is ended at its own moment: on one loop, on several, with deadlines of their own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from squall_resilience import deadline
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.timeout import Timeout, TimeoutSettings
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import Callable


def timeout_of(world: World, seconds: float = 1.0, name: str = "stock") -> Timeout:
    return Timeout(name, TimeoutSettings(seconds), clock=world.clock, registry=None)


@both
def test_a_new_limit_binds_the_next_call_also_while_older_ones_are_under_way(world: World) -> None:
    async def main() -> dict[str, float]:
        timeout = timeout_of(world, 10)
        ended: dict[str, float] = {}

        @timeout
        async def slow() -> None:
            await world.sleep(60)

        async def watched(name: str) -> None:
            with pytest.raises(DeadlineExceeded):
                await slow()
            ended[name] = round(world.clock(), 6)

        async def first() -> None:
            await watched("first")

        async def second() -> None:
            await world.sleep(1)
            timeout.configure(TimeoutSettings(2))
            await watched("second")

        await world.together(first, second)
        return ended

    assert world.run(main) == {"first": 10.0, "second": 3.0}


@both
def test_of_many_calls_at_once_each_is_ended_at_its_own_moment_and_no_other(world: World) -> None:
    async def main() -> tuple[int, Timeout]:
        timeout, wrong = timeout_of(world, 1), 0

        @timeout
        async def takes(seconds: float) -> None:
            await world.sleep(seconds)

        def caller(number: int) -> Callable[[], object]:
            async def calls() -> None:
                nonlocal wrong
                await world.sleep(number * 0.013)
                start, takes_s = world.clock(), (number * 7 % 20) / 10 + 0.05
                try:
                    await takes(takes_s)
                except DeadlineExceeded:
                    wrong += takes_s < 1 or abs(world.clock() - start - 1) > 1e-6
                else:
                    wrong += takes_s > 1

            return calls

        await world.together(*[caller(number) for number in range(1000)])
        return wrong, timeout

    wrong, timeout = world.run(main)
    assert (wrong, timeout.in_time, timeout.timed_out) == (0, 500, 500)


def test_places_of_ended_calls_do_not_pile_up_behind_a_long_one() -> None:
    timeout = Timeout("stock", TimeoutSettings(3600), registry=None)

    async def main() -> int:
        @timeout
        async def quick() -> None: ...

        @timeout
        async def long() -> None:
            await asyncio.sleep(3600)

        task = asyncio.create_task(long())
        await asyncio.sleep(0)
        for _ in range(5000):
            await quick()
        lane = timeout._lanes.lane
        assert lane is not None
        kept = len(lane._places)
        task.cancel()
        await asyncio.wait([task])
        return kept

    assert asyncio.run(main()) <= 600
    assert timeout.in_time == 5000


def test_one_timeout_serves_loops_of_several_threads() -> None:
    timeout = Timeout("stock", TimeoutSettings(0.05), registry=None)
    ended: list[type[BaseException]] = []

    @timeout
    async def slow() -> None:
        await asyncio.sleep(60)

    def loop() -> None:
        for _ in range(2):  # a second loop in the same thread, too
            try:
                asyncio.run(slow())
            except DeadlineExceeded as error:
                ended.append(type(error))

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert ended == [DeadlineExceeded] * 8
    assert timeout.timed_out == 8


@both
def test_many_calls_with_deadlines_of_their_own_are_each_ended_at_theirs(world: World) -> None:
    async def main() -> tuple[int, Timeout]:
        timeout, wrong = timeout_of(world, 10), 0

        @timeout
        async def takes(seconds: float) -> None:
            await world.sleep(seconds)

        def caller(number: int) -> Callable[[], object]:
            async def calls() -> None:
                nonlocal wrong
                left = (number * 37 % 100) / 10 + 0.1
                start = world.clock()
                deadline.moment.set(start + left)
                try:
                    await takes(5)
                except DeadlineExceeded:
                    wrong += left > 5 or abs(world.clock() - start - left) > 1e-6
                else:
                    wrong += left < 5

            return calls

        await world.together(*[caller(number) for number in range(300)])
        return wrong, timeout

    wrong, timeout = world.run(main)
    assert wrong == 0
    assert timeout.in_time + timeout.timed_out == 300
    assert timeout.timed_out > 100
