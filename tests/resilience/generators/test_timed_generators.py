"""A generator with a deadline: its own steps are bound by it, its consumer is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall_resilience import deadline
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.timeout import Timeout, TimeoutSettings
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator


class Hands:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@both
def test_a_stream_that_takes_too_long_is_cancelled_in_its_own_step(world: World) -> None:
    async def main() -> tuple[list[int], list[str], float, int]:
        timeout = Timeout("stock", TimeoutSettings(2.5), clock=world.clock, registry=None)
        seen: list[int] = []
        cleaned: list[str] = []

        @timeout
        async def items() -> AsyncIterator[int]:
            try:
                for number in range(10):
                    await world.sleep(1)
                    yield number
            finally:
                cleaned.append("closed")

        async def consume() -> None:
            async for item in items():
                assert deadline.at() is None  # the deadline is not the consumer's
                seen.append(item)

        with pytest.raises(DeadlineExceeded):
            await consume()
        return seen, cleaned, world.clock(), timeout.timed_out

    assert world.run(main) == ([0, 1], ["closed"], pytest.approx(2.5), 1)


@both
def test_a_consumer_that_takes_long_is_not_cancelled_but_gets_no_more(world: World) -> None:
    async def main() -> tuple[list[int], int]:
        timeout = Timeout("stock", TimeoutSettings(2), clock=world.clock, registry=None)
        seen: list[int] = []

        @timeout
        async def items() -> AsyncIterator[int]:
            yield 1
            yield 2

        async def consume() -> None:
            async for item in items():
                await world.sleep(30)
                seen.append(item)

        with pytest.raises(DeadlineExceeded):
            await consume()
        return seen, timeout.timed_out

    assert world.run(main) == ([1], 1)


@both
def test_a_stream_in_time_is_whole_and_one_that_is_left_early_is_closed(world: World) -> None:
    async def main() -> tuple[list[int], list[str], int]:
        timeout = Timeout("stock", TimeoutSettings(2), clock=world.clock, registry=None)
        closed: list[str] = []

        @timeout
        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                closed.append("closed")

        whole = [item async for item in items()]
        early = items()
        async for _ in early:
            break
        await early.aclose()  # type: ignore[attr-defined]
        return whole, closed, timeout.in_time

    assert world.run(main) == ([1, 2], ["closed", "closed"], 2)


@both
def test_cancellation_from_outside_goes_through_a_stream(world: World) -> None:
    async def main() -> tuple[bool, int, int]:
        timeout = Timeout("stock", TimeoutSettings(2), clock=world.clock, registry=None)

        @timeout
        async def items() -> AsyncIterator[int]:
            await world.sleep(60)
            yield 1

        async def consumes() -> None:
            async for _ in items():
                pass

        return await world.cancelled_after(1, consumes), timeout.in_time, timeout.timed_out

    assert world.run(main) == (True, 0, 0)


def test_what_is_sent_thrown_and_returned_reaches_the_other_side() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

    @timeout
    def talk() -> Generator[str, str, str]:
        heard = yield "first"
        try:
            heard = yield heard.upper()
        except LookupError as error:
            heard = yield f"caught {error}"
        return heard

    items = talk()
    assert next(items) == "first"
    assert items.send("second") == "SECOND"
    assert items.throw(LookupError("it")) == "caught it"
    with pytest.raises(StopIteration) as end:
        items.send("last")
    assert end.value.value == "last"
    assert timeout.in_time == 1


@both
def test_what_is_sent_and_thrown_reaches_an_async_generator(world: World) -> None:
    async def main() -> list[str]:
        timeout = Timeout("stock", TimeoutSettings(2), clock=world.clock, registry=None)

        @timeout
        async def talk():  # type: ignore[no-untyped-def]  # noqa: ANN202 - a generator that is sent to
            heard = yield "first"
            try:
                yield heard.upper()
            except LookupError as error:
                yield f"caught {error}"

        items = talk()
        heard = [await items.asend(None), await items.asend("second"), await items.athrow(LookupError("it"))]
        await items.aclose()
        return heard

    assert world.run(main) == ["first", "SECOND", "caught it"]


def test_a_blocking_generator_is_closed_when_a_step_was_too_slow() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)
    seen: list[int] = []
    closed: list[str] = []

    @timeout
    def items() -> Iterator[int]:
        try:
            for number in range(10):
                clock.now += 0.9
                assert deadline.at() == pytest.approx(102)
                yield number
        finally:
            closed.append("closed")

    def consume() -> None:
        for item in items():
            assert deadline.at() is None
            seen.append(item)

    with pytest.raises(DeadlineExceeded):
        consume()
    assert (seen, closed, timeout.timed_out) == ([0, 1], ["closed"], 1)


def test_an_error_in_a_step_is_the_generators_and_counted_once() -> None:
    clock = Hands()
    timeout = Timeout("stock", TimeoutSettings(2), clock=clock, registry=None)

    @timeout
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("in the second step")

    with pytest.raises(LookupError, match="in the second step"):
        list(items())
    assert (timeout.in_time, timeout.timed_out) == (1, 0)
    assert deadline.at() is None
