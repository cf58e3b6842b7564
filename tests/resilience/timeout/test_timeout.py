"""A time-out ends the call that is too slow, says so once, and leaves every other cancellation alone."""

from __future__ import annotations

import asyncio

import pytest

from squall_resilience import deadline
from squall_resilience.errors import DeadlineExceeded, SettingsError
from squall_resilience.events import Event, TimedOut
from squall_resilience.metrics import Registry
from squall_resilience.timeout import Timeout, TimeoutSettings
from tests.resilience.worlds import World, both


def timeout_of(world: World, seconds: float = 1.0, name: str = "stock") -> Timeout:
    return Timeout(name, TimeoutSettings(seconds), clock=world.clock, registry=None)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@both
def test_a_call_in_time_gives_its_answer(world: World) -> None:
    async def main() -> tuple[str, int, int]:
        timeout = timeout_of(world)

        @timeout
        async def answer(text: str) -> str:
            await world.sleep(0.9)
            return text

        return await answer("yes"), timeout.in_time, timeout.timed_out

    assert world.run(main) == ("yes", 1, 0)


@both
def test_a_call_that_is_too_slow_is_cancelled_and_says_which_and_how_long(world: World) -> None:
    told: list[Event] = []
    cleaned: list[float] = []

    async def main() -> Timeout:
        timeout = Timeout("stock", TimeoutSettings(1.5), clock=world.clock, listeners=[told.append], registry=None)

        @timeout
        async def answer() -> None:
            try:
                await world.sleep(60)
            finally:
                cleaned.append(world.clock())

        with pytest.raises(DeadlineExceeded, match=r"stock: no answer within 1\.5 s") as raised:
            await answer()
        assert isinstance(raised.value, TimeoutError)
        assert (raised.value.seconds, raised.value.begun, raised.value.dependency) == (1.5, True, "stock")
        assert deadline.at() is None
        return timeout

    timeout = world.run(main)
    assert cleaned == [pytest.approx(1.5)]
    assert (timeout.in_time, timeout.timed_out) == (0, 1)
    assert [(type(each), each.dependency) for each in told] == [(TimedOut, "stock")]


@both
def test_an_error_of_the_call_goes_through_as_it_is(world: World) -> None:
    async def main() -> Timeout:
        timeout = timeout_of(world)

        @timeout
        async def fails() -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await fails()
        return timeout

    assert world.run(main).in_time == 1


@both
@pytest.mark.parametrize("after", [0.5, 1.0])
def test_a_cancellation_from_outside_is_never_swallowed_and_counts_as_neither(world: World, after: float) -> None:
    async def main() -> tuple[bool, int, int]:
        timeout = timeout_of(world)

        @timeout
        async def slow() -> None:
            await world.sleep(60)

        ended = await world.cancelled_after(after, slow)
        return ended, timeout.in_time, timeout.timed_out

    assert world.run(main) == (True, 0, 0)


@both
@pytest.mark.parametrize("form", ["decorator", "guard"])
def test_the_expiry_of_an_outer_one_is_the_outer_ones(world: World, form: str) -> None:
    async def main() -> None:
        outer, inner = timeout_of(world, 1, "page"), timeout_of(world, 5, "stock")

        @inner
        async def called() -> float:
            await world.sleep(60)
            return 0.0

        async def guarded() -> None:
            async with inner.guard():
                await world.sleep(60)

        @outer
        async def calling() -> None:
            await (called() if form == "decorator" else guarded())

        with pytest.raises(DeadlineExceeded) as raised:
            await calling()
        # both are due at the same moment, by the same deadline: either may be first, and then says whose it is
        assert "page" in str(raised.value) or "what its caller had left; its own limit is 5 s" in str(raised.value)
        assert world.clock() == pytest.approx(1)
        assert outer.timed_out == 1

    world.run(main)


@both
def test_the_inner_call_has_what_is_left_of_the_outer_one(world: World) -> None:
    async def main() -> tuple[float | None, ...]:
        outer, inner = timeout_of(world, 2, "page"), timeout_of(world, 5, "stock")
        short = timeout_of(world, 0.5, "price")
        seen: list[float | None] = []

        @short
        async def shortest() -> None:
            seen.append(deadline.at())

        @inner
        async def called() -> None:
            seen.append(deadline.at())
            await shortest()
            seen.append(deadline.at())

        @outer
        async def calling() -> None:
            await world.sleep(1)
            await called()

        start = world.clock()
        await calling()
        return *(each and round(each - start, 6) for each in seen), deadline.at()

    assert world.run(main) == (2.0, 1.5, 2.0, None)


@both
def test_a_call_is_not_begun_when_no_time_is_left(world: World) -> None:
    async def main() -> tuple[int, int]:
        timeout, calls = timeout_of(world), 0

        @timeout
        async def called() -> None:
            nonlocal calls
            calls += 1

        deadline.moment.set(world.clock())
        with pytest.raises(DeadlineExceeded, match="not begun") as raised:
            await called()
        assert not raised.value.begun
        with pytest.raises(DeadlineExceeded, match="not begun"):
            async with timeout.guard():
                calls += 1
        return calls, timeout.timed_out

    assert world.run(main) == (0, 2)


@both
def test_a_call_that_answers_its_own_cancellation_is_believed_but_not_in_time(world: World) -> None:
    async def main() -> tuple[str, int, int]:
        timeout = timeout_of(world)

        @timeout
        async def stubborn() -> str:
            try:
                await world.sleep(60)
            except world.cancelled:
                if world.library == "trio":
                    raise  # trio does not let anybody
            return "half"

        try:
            answer = await stubborn()
        except DeadlineExceeded:
            answer = "none"
        await world.sleep(0)  # nothing of it is left: the task goes on unharmed
        return answer, timeout.in_time, timeout.timed_out

    assert world.run(main) == ("half" if world.library == "asyncio" else "none", 0, 1)


@both
@pytest.mark.parametrize(("raised", "becomes"), [(TimeoutError, DeadlineExceeded), (ValueError, ValueError)])
def test_a_time_out_of_a_driver_at_the_deadline_becomes_ours_and_other_errors_stay(
    world: World, raised: type[Exception], becomes: type[Exception]
) -> None:
    async def main() -> tuple[type[Exception], int]:
        timeout = timeout_of(world)

        @timeout
        async def called() -> None:
            try:
                await world.sleep(60)
            finally:
                raise raised

        with pytest.raises(Exception) as error:  # noqa: PT011 - which one is what is asked
            await called()
        return error.type, timeout.timed_out

    assert world.run(main) == (becomes, 1)


@both
def test_guard_cancels_a_block_and_lets_outside_cancellation_through(world: World) -> None:
    async def main() -> tuple[bool, Timeout]:
        timeout = timeout_of(world)

        async def too_slow() -> None:
            async with timeout.guard():
                assert deadline.at() == pytest.approx(world.clock() + 1)
                await world.sleep(60)

        with pytest.raises(DeadlineExceeded):
            await too_slow()
        assert deadline.at() is None
        async with timeout.guard():
            await world.sleep(0.5)

        async def guarded() -> None:
            async with timeout.guard():
                await world.sleep(60)

        return await world.cancelled_after(0.5, guarded), timeout

    ended, timeout = world.run(main)
    assert ended
    assert (timeout.in_time, timeout.timed_out) == (1, 1)


def test_a_blocking_call_sees_its_deadline_and_a_late_answer_is_none() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

    @timeout
    def takes(seconds: float) -> float | None:
        clock.now += seconds
        return deadline.at()

    assert takes(1.9) == pytest.approx(102)
    with pytest.raises(DeadlineExceeded, match="no answer within 2 s"):
        takes(2.0)
    with pytest.raises(DeadlineExceeded), timeout.guard():
        clock.now += 3
    assert deadline.at() is None
    assert (timeout.in_time, timeout.timed_out) == (1, 2)


def test_a_blocking_call_that_raises_is_counted_and_a_socket_time_out_becomes_ours() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

    @timeout
    def fails(seconds: float, error: BaseException) -> None:
        clock.now += seconds
        raise error

    with pytest.raises(TimeoutError, match="early"):
        fails(1, TimeoutError("early"))
    with pytest.raises(DeadlineExceeded) as raised:
        fails(2, TimeoutError("the socket's"))
    assert str(raised.value.__cause__) == "the socket's"
    with pytest.raises(LookupError):
        fails(3, LookupError("late"))
    with pytest.raises(KeyboardInterrupt):
        fails(3, KeyboardInterrupt())
    assert (timeout.in_time, timeout.timed_out) == (1, 2)
    assert deadline.at() is None


def test_a_clock_that_goes_back_neither_raises_nor_makes_a_call_late() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

    @timeout
    def back() -> None:
        clock.now -= 1e6

    back()
    back()
    assert timeout.in_time == 2


@both
def test_a_clock_that_jumps_back_gives_an_awaited_call_its_own_limit_and_no_more(world: World) -> None:
    clock = Hands()

    async def main() -> float:
        timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

        @timeout
        async def slow() -> None:
            clock.now -= 1e6
            await world.sleep(60)

        with pytest.raises(DeadlineExceeded):
            await slow()
        return world.clock()

    assert world.run(main) == pytest.approx(2)


def test_asyncios_own_timeouts_inside_and_outside_keep_their_meaning() -> None:
    async def main() -> None:
        timeout = Timeout("stock", TimeoutSettings(0.2), registry=None)

        @timeout
        async def inside() -> None:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)

        with pytest.raises(TimeoutError) as raised:
            await inside()
        assert not isinstance(raised.value, DeadlineExceeded)

        @timeout
        async def slow() -> None:
            await asyncio.sleep(60)

        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.01):
                await slow()
        assert not isinstance(raised.value, DeadlineExceeded)
        assert timeout.timed_out == 0

    asyncio.run(main())


def test_calls_in_calls_of_the_same_time_out() -> None:
    timeout = Timeout("stock", TimeoutSettings(5), registry=None)

    @timeout
    def down(depth: int) -> int:
        return down(depth - 1) + 1 if depth else 0

    assert down(50) == 50
    assert timeout.in_time == 51


def test_its_numbers_are_in_the_registry() -> None:
    registry = Registry()
    timeout = Timeout("stock", registry=registry)
    timeout(lambda: None)()
    assert 'resilience_timeout_calls_total{dependency="stock",outcome="in_time"} 1' in registry.render()
    assert 'resilience_timeout_calls_total{dependency="stock",outcome="timed_out"} 0' in registry.render()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "soon", None, 1e9])
def test_a_limit_out_of_range_is_refused_with_what_is_allowed(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"limit: .* is not a duration from 0\.001s to 86400s"):
        TimeoutSettings(wrong)  # type: ignore[arg-type]
