"""What the patterns need of a library is the same on asyncio and on trio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
import trio

from squall_resilience.running import ThreadWaiter, Waiter, cancel_after, library, sleep
from tests.resilience.worlds import World, both


@both
def test_the_library_is_the_one_that_runs_the_task(world: World) -> None:
    async def main() -> str:
        return library()

    assert world.run(main) == world.library


def test_outside_of_tasks_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="no task of asyncio or trio"):
        library()


def test_trio_as_a_guest_of_asyncio_is_trio_and_its_host_is_asyncio() -> None:
    seen: list[str] = []

    async def guest() -> None:
        seen.append(library())
        await sleep(0)
        seen.append(library())

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        await done
        seen.append(library())

    asyncio.run(host())
    assert seen == ["trio", "trio", "asyncio"]


def test_neither_library_is_imported_for_the_asking() -> None:
    program = (
        "import sys; from squall_resilience.running import library\n"
        "try: library()\n"
        "except RuntimeError: print(sorted({'asyncio', 'trio'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@both
@pytest.mark.parametrize(("asked", "taken"), [(2.5, 2.5), (0.0, 0.0), (-3.0, 0.0)])
def test_sleep_takes_the_time_and_never_a_negative_one(world: World, asked: float, taken: float) -> None:
    async def main() -> float:
        before = world.clock()
        await sleep(asked)
        return world.clock() - before

    assert world.run(main) == pytest.approx(taken)


@both
def test_a_waiter_that_nobody_wakes_says_so_after_its_time(world: World) -> None:
    async def main() -> tuple[bool, float]:
        return await Waiter().wait(1.5), world.clock()

    assert world.run(main) == (False, pytest.approx(1.5))


@both
def test_waking_first_is_not_lost(world: World) -> None:
    async def main() -> tuple[bool, float]:
        waiter = Waiter()
        waiter.wake()
        waiter.wake()
        return await waiter.wait(10), world.clock()

    assert world.run(main) == (True, 0.0)


@both
@pytest.mark.parametrize("limit", [None, 20.0])
def test_a_waiter_is_woken_from_another_thread(world: World, limit: float | None) -> None:
    async def main() -> bool:
        waiter = Waiter()
        thread = threading.Thread(target=waiter.wake)
        thread.start()
        woken = await waiter.wait(limit)
        thread.join()
        return woken

    assert world.run(main, jumping=False)


@both
def test_waking_one_whose_loop_has_ended_is_harmless(world: World) -> None:
    async def main() -> Waiter:
        return Waiter()

    waiter = world.run(main)
    waiter.wake()
    thread = threading.Thread(target=waiter.wake)
    thread.start()
    thread.join()
    assert waiter.woken


@both
def test_a_cancelled_waiter_is_cancelled_and_may_still_be_woken(world: World) -> None:
    async def main() -> tuple[bool, bool]:
        kept: list[Waiter] = []

        async def waits() -> None:
            kept.append(Waiter())
            await kept[0].wait(60)

        cancelled = await world.cancelled_after(1, waits)
        kept[0].wake()
        return cancelled, kept[0].woken

    assert world.run(main) == (True, True)


def test_a_thread_waits_until_it_is_woken() -> None:
    waiter, seen = ThreadWaiter(), []
    thread = threading.Thread(target=lambda: seen.append(waiter.wait(60)))
    thread.start()
    waiter.wake()
    waiter.wake()
    thread.join(60)
    assert seen == [True]
    assert waiter.wait()
    assert not ThreadWaiter().wait(0.001)
    assert not ThreadWaiter().wait(-1)


@both
def test_a_scope_ends_its_block_when_its_time_is_over(world: World) -> None:
    async def main() -> tuple[bool, float]:
        with cancel_after(2) as scope:
            await world.sleep(60)
        return scope.expired, world.clock()

    assert world.run(main) == (True, pytest.approx(2))


@both
def test_a_scope_leaves_a_block_in_time_alone(world: World) -> None:
    async def main() -> bool:
        with cancel_after(2) as scope:
            await world.sleep(1)
        await world.sleep(5)
        return scope.expired

    assert world.run(main) is False


@both
def test_an_error_of_the_block_goes_through(world: World) -> None:
    async def main() -> None:
        with cancel_after(2):
            raise LookupError

    with pytest.raises(LookupError):
        world.run(main)


@both
@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_a_cancellation_from_outside_goes_through_even_at_the_same_moment(world: World, limit: float) -> None:
    async def main() -> bool:
        async def scoped() -> None:
            with cancel_after(limit):
                await world.sleep(60)
            pytest.fail("the scope swallowed a cancellation from outside")

        return await world.cancelled_after(1.0, scoped)

    assert world.run(main)


@both
def test_the_outer_of_two_scopes_ends_both(world: World) -> None:
    async def main() -> tuple[bool, bool]:
        with cancel_after(1) as outer:
            with cancel_after(1.5) as inner:
                await world.sleep(60)
            pytest.fail("the inner scope took the outer one's cancellation for its own")
        return outer.expired, inner.expired

    assert world.run(main) == (True, False)
